//! The fragmentation workload under rusty_alloc.

#[global_allocator]
static GLOBAL: rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::child::main()
}
