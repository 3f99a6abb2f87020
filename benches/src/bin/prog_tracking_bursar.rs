//! The published programs on tracking-allocator over bursar.

use std::process::ExitCode;

use bursar::Bursar;
use bursar_benches::books::groups;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: tracking_allocator::Allocator<Bursar> =
    tracking_allocator::Allocator::from_allocator(Bursar::new());

fn main() -> ExitCode {
    child::main_with(Some(&groups::Groups))
}
