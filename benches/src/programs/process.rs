//! Runs one program once, in a process of its own, and measures it.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{ATTRIBUTED, Outcome};

/// What a run took.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// From the start of the process until it was gone.
    pub wall: Duration,
    /// User and system time of all its threads.
    pub cpu: Duration,
    /// What it said of itself.
    pub outcome: Outcome,
}

/// Runs `binary` on `program`, with its work booked to a consumer or a group
/// if the allocator knows such and `attributed` says so.
///
/// A process that fails is given a second chance, and that is said: some peers
/// crash now and then as their threads end, and an hour's figures would be lost.
///
/// # Errors
/// If the process cannot be started, fails twice, or writes no outcome.
pub fn run(
    binary: &Path,
    program: &str,
    threads: usize,
    divisor: usize,
    corpus: &Path,
    attributed: bool,
) -> io::Result<Run> {
    let once = || run_once(binary, program, threads, divisor, corpus, attributed);
    once().or_else(|error| {
        eprintln!("{error}; once more");
        once()
    })
}

fn run_once(
    binary: &Path,
    program: &str,
    threads: usize,
    divisor: usize,
    corpus: &Path,
    attributed: bool,
) -> io::Result<Run> {
    let mut command = Command::new(binary);
    command
        .arg(program)
        .arg(threads.to_string())
        .arg(divisor.to_string())
        .arg(corpus)
        .args(attributed.then_some(ATTRIBUTED));
    command.stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn()?;
    let Used { status, cpu, .. } = wait(child.id())?;
    let wall = start.elapsed();
    let failed = |what: String| io::Error::other(format!("{} {program}: {what}", binary.display()));
    if status != 0 {
        return Err(failed(format!("wait status {status:#x}")));
    }
    let mut text = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut text)?;
    }
    let outcome = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Run { wall, cpu, outcome })
}

/// What a process took of the machine, with all that it started and waited for.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// How it ended: 0 if all was well.
    pub status: libc::c_int,
    /// User and system time.
    pub cpu: Duration,
    /// The most memory that one of them had resident, the one that started it
    /// included.
    pub peak_kib: u64,
}

/// Waits for a child and tells what it used. The standard library waits
/// without asking for that.
///
/// # Errors
/// If it is no child, or was waited for before.
pub fn wait(id: u32) -> io::Result<Used> {
    let id = libc::pid_t::try_from(id).map_err(io::Error::other)?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are valid for writes of their types, and the
        // child was not waited for before.
        let waited = unsafe { libc::wait4(id, &raw mut status, 0, usage.as_mut_ptr()) };
        if waited == id {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // SAFETY: wait4 has filled it in; all zeroes were a valid value before.
    let usage = unsafe { usage.assume_init() };
    Ok(Used {
        status,
        cpu: time(usage.ru_utime) + time(usage.ru_stime),
        peak_kib: usage.ru_maxrss as u64,
    })
}

fn time(value: libc::timeval) -> Duration {
    Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::run;

    #[test]
    fn a_failing_process_is_an_error() {
        let error = run(Path::new("/bin/false"), "syn", 1, 1, Path::new("/"), false).unwrap_err();
        assert!(error.to_string().contains("wait status 0x100"), "{error}");
    }

    #[test]
    fn a_process_that_says_nothing_is_an_error() {
        assert!(run(Path::new("/bin/true"), "syn", 1, 1, Path::new("/"), false).is_err());
    }
}
