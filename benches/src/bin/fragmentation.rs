//! Runs the fragmentation workload under bursar, the system's allocator and
//! the peers, and compares what stays resident.

fn main() -> std::process::ExitCode {
    bursar_benches::fragmentation::driver::main()
}
