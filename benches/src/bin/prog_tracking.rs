//! The published programs on tracking-allocator over the system's allocator.

use std::alloc::System;
use std::process::ExitCode;

use bursar_benches::books::groups;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: tracking_allocator::Allocator<System> =
    tracking_allocator::Allocator::from_allocator(System);

fn main() -> ExitCode {
    child::main_with(Some(&groups::Groups))
}
