//! The micro benchmarks of an allocator that cannot share a process with the
//! others, run on request.

use std::io;

fn main() -> io::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_default();
    bursar_benches::remote::serve(&name)
}
