//! The published programs on the system's allocator.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() -> ExitCode {
    bursar_benches::suite::child::main()
}
