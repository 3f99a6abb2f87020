//! The published programs on stats_alloc over the system's allocator.

use std::alloc::System;
use std::process::ExitCode;

use bursar_benches::books::differences::Differences;
use bursar_benches::suite::child;

#[global_allocator]
static GLOBAL: stats_alloc::StatsAlloc<System> = stats_alloc::StatsAlloc::new(System);

static BOOKS: Differences<stats_alloc::StatsAlloc<System>> = Differences::new(&GLOBAL);

fn main() -> ExitCode {
    child::main_with(Some(&BOOKS))
}
