//! The process that runs one program on the allocator it was linked with.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Job;
use crate::books::{self, Books, exact};
use crate::programs::corpus::Corpus;
use crate::programs::{ATTRIBUTED, Outcome};

/// The main function of the `prog_` binaries: `<program> <threads> <divisor>
/// <corpus directory>`.
#[must_use]
pub fn main() -> ExitCode {
    main_with(None)
}

/// The same for an allocator that keeps books: with `attributed` as the last
/// argument the program is booked to somebody, and `exact` alone checks the
/// books instead.
#[must_use]
pub fn main_with(books: Option<&'static dyn Books>) -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if let (Some("exact"), Some(books)) = (arguments.peek().map(String::as_str), books) {
        println!("{}", exact::run(books).to_json());
        return ExitCode::SUCCESS;
    }
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
    if arguments.next().as_deref() == Some(ATTRIBUTED) {
        match books {
            Some(books) => books::keep(books),
            None => {
                eprintln!("nobody to book to");
                return ExitCode::FAILURE;
            }
        }
    }
    let Some(checksum) = books::attributed(|| super::run(&name, &job)) else {
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
