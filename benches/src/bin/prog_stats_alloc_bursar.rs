//! The published programs on stats_alloc over bursar.

use std::process::ExitCode;

use bursar::Bursar;
use bursar_benches::books::differences::Differences;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: stats_alloc::StatsAlloc<Bursar> = stats_alloc::StatsAlloc::new(Bursar::new());

static BOOKS: Differences<stats_alloc::StatsAlloc<Bursar>> = Differences::new(&GLOBAL);

fn main() -> ExitCode {
    child::main_with(Some(&BOOKS))
}
