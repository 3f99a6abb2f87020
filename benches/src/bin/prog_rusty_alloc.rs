//! The published programs on rusty_alloc.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

fn main() -> ExitCode {
    bursar_benches::suite::child::main()
}
