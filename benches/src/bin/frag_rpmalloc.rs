//! The fragmentation workload under rpmalloc.

#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::child::main()
}
