//! The fragmentation workload under stoolap-jemalloc.

#[global_allocator]
static GLOBAL: stoolap_jemalloc::Jemalloc = stoolap_jemalloc::Jemalloc::new();

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::child::main()
}
