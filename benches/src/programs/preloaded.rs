//! Programs that know nothing of the allocators, under each of them as a
//! library that stands in for `malloc`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::process::{self, Used};

/// A library under the name that it has in tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Where it is; none for the C library's own allocator.
    pub path: Option<PathBuf>,
}

impl std::str::FromStr for Library {
    type Err = String;

    /// `NAME=PATH`, or `NAME=none`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
        let path = match path {
            "none" => None,
            path => Some(fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?),
        };
        Ok(Self {
            name: name.to_owned(),
            path,
        })
    }
}

/// How much a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The same in each run.
    Set,
    /// As much as it can in a set time: the number after this text says how
    /// many seconds a set piece of work takes.
    Seconds(&'static str),
    /// As much as it can in a set time: the number before this text, and
    /// behind the last blank or point, says how many operations it was, or
    /// how many in a second.
    Operations(&'static str),
}

/// One program of a suite that is built elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    /// The name in tables.
    pub name: &'static str,
    /// The file, and its arguments; `{threads}` stands for how many there are.
    pub command: &'static str,
    /// A file of its suite that it reads as its input.
    pub input: Option<&'static str>,
    /// Whether it runs as many threads as the machine has processors.
    pub threaded: bool,
    /// How much it does.
    pub work: Work,
}

const fn judge(name: &'static str, command: &'static str, threaded: bool, work: Work) -> Judge {
    Judge {
        name,
        command,
        input: None,
        threaded,
        work,
    }
}

/// mimalloc-bench's own programs, with the arguments of its `bench.sh`. They
/// lie in its `out/bench`, and files that they read where its sources do.
pub const MIMALLOC_BENCH: &[Judge] = &[
    judge(
        "cfrac",
        "cfrac 17545186520507317056371138836327483792789528",
        false,
        Work::Set,
    ),
    judge(
        "espresso",
        "espresso ../../bench/espresso/largest.espresso",
        false,
        Work::Set,
    ),
    Judge {
        input: Some("../../bench/barnes/input"),
        ..judge("barnes", "barnes", false, Work::Set)
    },
    judge("alloc-test1", "alloc-test 1", false, Work::Set),
    judge("alloc-testN", "alloc-test {threads}", true, Work::Set),
    judge(
        "larsonN",
        "larson 5 8 1000 5000 100 4141 {threads}",
        true,
        Work::Seconds("time: "),
    ),
    judge(
        "larsonN-sized",
        "larson-sized 5 8 1000 5000 100 4141 {threads}",
        true,
        Work::Seconds("time: "),
    ),
    judge("mstressN", "mstress {threads} 50 25", true, Work::Set),
    judge(
        "rptestN",
        "rptest {threads} 0 1 2 500 1000 100 8 16000",
        true,
        Work::Operations(" memory ops"),
    ),
    judge("sh6benchN", "sh6bench {threads}", true, Work::Set),
    judge("sh8benchN", "sh8bench {threads}", true, Work::Set),
    judge(
        "xmalloc-testN",
        "xmalloc-test -w {threads} -t 5 -s 64",
        true,
        Work::Seconds("rtime: "),
    ),
    judge(
        "cache-scratch1",
        "cache-scratch 1 1000 1 2000000 {threads}",
        false,
        Work::Set,
    ),
    judge(
        "cache-scratchN",
        "cache-scratch {threads} 1000 1 2000000 {threads}",
        true,
        Work::Set,
    ),
    judge(
        "cache-thrash1",
        "cache-thrash 1 1000 1 2000000 {threads}",
        false,
        Work::Set,
    ),
    judge(
        "cache-thrashN",
        "cache-thrash {threads} 1000 1 2000000 {threads}",
        true,
        Work::Set,
    ),
    judge("malloc-large", "malloc-large", false, Work::Set),
    judge("mleak10", "mleak 5", false, Work::Set),
    judge("mleak100", "mleak 50", false, Work::Set),
    judge("glibc-simple", "glibc-simple", false, Work::Set),
    judge(
        "glibc-thread",
        "glibc-thread {threads}",
        true,
        Work::Operations(" iterations"),
    ),
];

/// What a command took, as the process tells that watched it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Watched {
    status: i32,
    wall: Duration,
    cpu: Duration,
    peak_kib: u64,
}

/// What one run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Wall time, or the time of a set piece of work.
    pub wall: Duration,
    /// Processor time for the same.
    pub cpu: Duration,
    /// The most memory that one process had resident.
    pub peak_kib: u64,
}

/// Runs a command under a library and writes what it took to `report`. For a
/// process that does nothing else: the kernel counts what is resident in whoever
/// starts a program as the program's.
///
/// # Errors
/// If it cannot be started, or the report not be written.
pub fn watch(report: &Path, library: Option<&Path>, command: &[OsString]) -> io::Result<()> {
    let mut child = Command::new(&command[0]);
    child.args(&command[1..]);
    if let Some(library) = library {
        child.env("LD_PRELOAD", library);
    }
    let start = Instant::now();
    let child = child.spawn()?;
    let Used {
        status,
        cpu,
        peak_kib,
    } = process::wait(child.id())?;
    let wall = start.elapsed();
    let watched = Watched {
        status,
        wall,
        cpu,
        peak_kib,
    };
    fs::write(report, serde_json::to_string(&watched)?)
}

/// What is run, and where.
#[derive(Debug)]
pub struct Errand {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The library that the program is to have from its first instruction.
    pub library: Option<PathBuf>,
    /// Where it is run; none for where the runner is.
    pub directory: Option<PathBuf>,
    /// What it reads, relative to the directory.
    pub input: Option<&'static str>,
    /// How much it does.
    pub work: Work,
}

impl Errand {
    /// Runs it once, watched by a process of `watcher`, the program whose main
    /// function calls [`watch`] for `--watch REPORT [--under LIBRARY] -- COMMAND`.
    ///
    /// # Errors
    /// Says what failed.
    pub fn run(&self, watcher: &Path, report: &Path) -> Result<Sample, String> {
        let mut watching = Command::new(watcher);
        watching.arg("--watch").arg(report);
        if let Some(library) = &self.library {
            watching.arg("--under").arg(library);
        }
        watching.arg("--").args(&self.command);
        let at = self.directory.as_deref().unwrap_or(Path::new("."));
        watching.current_dir(at).stdin(Stdio::null());
        let told = |error: io::Error| format!("{:?}: {error}", self.command);
        if let Some(input) = self.input {
            watching.stdin(fs::File::open(at.join(input)).map_err(told)?);
        }
        let output = watching.output().map_err(told)?;
        let text = fs::read_to_string(report).map_err(told)?;
        let watched: Watched = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if !output.status.success() || watched.status != 0 {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let tail: Vec<&str> = said.lines().rev().take(5).collect();
            let status = watched.status;
            return Err(format!(
                "{:?}: wait status {status:#x}: {tail:?}",
                self.command
            ));
        }
        self.work
            .sample(&watched, &String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| format!("{:?} did not say what it did", self.command))
    }
}

impl Work {
    /// What the same piece of work took; none if the output does not say.
    fn sample(self, watched: &Watched, output: &str) -> Option<Sample> {
        let seconds: f64 = match self {
            Work::Set => watched.wall.as_secs_f64(),
            Work::Seconds(before) => {
                let rest = output.split(before).nth(1)?;
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
                rest[..end.unwrap_or(rest.len())].parse().ok()?
            }
            Work::Operations(after) => {
                let until = &output[..output.find(after)?];
                let start = until.rfind(|c: char| !c.is_ascii_digit());
                let count: f64 = until[start.map_or(0, |at| at + 1)..].parse().ok()?;
                1e6 / count
            }
        };
        let share = seconds / watched.wall.as_secs_f64();
        Some(Sample {
            wall: Duration::try_from_secs_f64(seconds).ok()?,
            cpu: watched.cpu.mul_f64(share),
            peak_kib: watched.peak_kib,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Library, Sample, Watched, Work};

    #[test]
    fn what_is_done_in_a_set_time_counts_by_the_piece() {
        let watched = Watched {
            status: 0,
            wall: Duration::from_secs(5),
            cpu: Duration::from_secs(10),
            peak_kib: 7,
        };
        let sample = |seconds, cpu| {
            Some(Sample {
                wall: Duration::from_secs_f64(seconds),
                cpu: Duration::from_secs_f64(cpu),
                peak_kib: 7,
            })
        };
        assert_eq!(Work::Set.sample(&watched, ""), sample(5.0, 10.0));
        let timed = Work::Seconds("rtime: ");
        assert_eq!(timed.sample(&watched, "a\nrtime: 0.5, b"), sample(0.5, 1.0));
        assert_eq!(timed.sample(&watched, "nothing"), None);
        let counted = Work::Operations(" memory ops");
        let output = "running...4000000 memory ops/CPU";
        assert_eq!(counted.sample(&watched, output), sample(0.25, 0.5));
        let first = Work::Operations(" iterations");
        let output = "2000000 iterations\n9\n";
        assert_eq!(first.sample(&watched, output), sample(0.5, 1.0));
    }

    #[test]
    fn a_library_is_a_file_or_none() {
        let library = |text: &str| text.parse::<Library>();
        assert_eq!(library("glibc=none").unwrap().path, None);
        assert_eq!(library("a=/bin/../bin/sh").unwrap().name, "a");
        assert!(library("a=/nowhere").is_err());
        assert!(library("/bin/sh").is_err());
    }
}
