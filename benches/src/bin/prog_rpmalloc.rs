//! The published programs on rpmalloc.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> ExitCode {
    bursar_benches::suite::child::main()
}
