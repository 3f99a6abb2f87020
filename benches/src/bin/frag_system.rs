//! The fragmentation workload under the system's allocator.

#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::child::main()
}
