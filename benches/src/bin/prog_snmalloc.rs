//! The published programs on snmalloc.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

fn main() -> ExitCode {
    bursar_benches::suite::child::main()
}
