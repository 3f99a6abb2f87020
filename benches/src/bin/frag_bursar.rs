//! The fragmentation workload under bursar.

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::child::main()
}
