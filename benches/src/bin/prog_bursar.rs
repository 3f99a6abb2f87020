//! The published programs on bursar.

use std::process::ExitCode;

use bursar_benches::books::consumers::Consumers;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn main() -> ExitCode {
    child::main_with(Some(&Consumers))
}
