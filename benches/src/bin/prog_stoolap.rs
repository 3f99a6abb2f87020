//! The published programs on stoolap.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: stoolap_jemalloc::Jemalloc = stoolap_jemalloc::Jemalloc::new();

fn main() -> ExitCode {
    bursar_benches::suite::child::main()
}
