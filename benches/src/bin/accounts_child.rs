//! Rows and memory of bursar with or without its account layer, on request.

use std::io;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn main() -> io::Result<()> {
    bursar_benches::accounts::child::main()
}
