//! The published programs on cap over bursar.

use std::process::ExitCode;

use bursar::Bursar;
use bursar_benches::books::differences::Differences;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: cap::Cap<Bursar> = cap::Cap::new(Bursar::new(), usize::MAX);

static BOOKS: Differences<cap::Cap<Bursar>> = Differences::new(&GLOBAL);

fn main() -> ExitCode {
    child::main_with(Some(&BOOKS))
}
