//! The process that runs one program on the allocator it was linked with.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Job;
use crate::programs::Outcome;
use crate::programs::corpus::Corpus;

/// The main function of every `prog_` binary: `<program> <threads> <divisor>
/// <corpus directory>`.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(threads), Some(divisor), Some(directory)) = (
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next(),
    ) else {
        eprintln!("usage: <program> <threads> <divisor> <corpus directory>");
        return ExitCode::FAILURE;
    };
    let (Ok(threads), Ok(divisor)) = (threads.parse(), divisor.parse()) else {
        eprintln!("not numbers: {threads} {divisor}");
        return ExitCode::FAILURE;
    };
    let corpus = Corpus::new(PathBuf::from(directory));
    let job = Job {
        corpus: &corpus,
        threads,
        divisor,
    };
    let Some(checksum) = super::run(&name, &job) else {
        eprintln!("no program {name}");
        return ExitCode::FAILURE;
    };
    let peak_kib = peak_kib().expect("the kernel tells the peak");
    let outcome = Outcome { checksum, peak_kib };
    println!(
        "{}",
        serde_json::to_string(&outcome).expect("numbers can be written")
    );
    ExitCode::SUCCESS
}

/// The peak of this process alone. `ru_maxrss` of `wait4` would not do: it
/// includes what was resident before `exec`, which is the runner's memory.
/// Allocates nothing that could show.
fn peak_kib() -> Option<u64> {
    let mut buffer = [0_u8; 4096];
    let length = File::open("/proc/self/status")
        .ok()?
        .read(&mut buffer)
        .ok()?;
    let status = std::str::from_utf8(&buffer[..length]).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::peak_kib;

    #[test]
    fn the_peak_grows_with_what_is_touched() {
        let before = peak_kib().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = peak_kib().unwrap();
        drop(block);
        assert!(
            after >= before + (32 << 10),
            "{before} KiB, then {after} KiB"
        );
    }
}
