//! The fragmentation workload under mimalloc.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::child::main()
}
