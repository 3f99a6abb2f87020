//! The published programs on bursar without its account layer.

use std::process::ExitCode;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn main() -> ExitCode {
    bursar_benches::suite::child::main()
}
