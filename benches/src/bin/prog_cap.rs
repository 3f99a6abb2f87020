//! The published programs on cap over the system's allocator.

use std::alloc::System;
use std::process::ExitCode;

use bursar_benches::books::differences::Differences;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: cap::Cap<System> = cap::Cap::new(System, usize::MAX);

static BOOKS: Differences<cap::Cap<System>> = Differences::new(&GLOBAL);

fn main() -> ExitCode {
    child::main_with(Some(&BOOKS))
}
