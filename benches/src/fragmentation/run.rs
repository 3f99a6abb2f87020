//! Builds the binaries of the allocators, and runs one of them under watch.

use super::figures::Records;
use super::plan::Work;
use super::record::Record;
use crate::programs::build::groups;
use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A child that says nothing for this long is taken for hung.
const SILENCE: Duration = Duration::from_secs(60);

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All phases were run.
    Finished,
    /// There is no binary.
    NotBuilt,
    /// It could not be started or read.
    Unreadable(String),
    /// It exited early or was killed: its status and what it said.
    Died(String),
    /// It was killed because so many bytes were resident.
    TooLarge(u64),
    /// It was killed because it said nothing for so many seconds.
    Silent(u64),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => write!(f, "finished"),
            Self::NotBuilt => write!(f, "not built"),
            Self::Unreadable(error) => write!(f, "not run: {error}"),
            Self::Died(how) => write!(f, "died: {how}"),
            Self::TooLarge(bytes) => write!(f, "killed at {} MiB resident", bytes >> 20),
            Self::Silent(seconds) => write!(f, "killed after {seconds} s of silence"),
        }
    }
}

/// Builds `frag_<name>` for each name, optimised, and returns the paths of
/// those that came out. Cargo's progress and errors go to stderr. It runs
/// in this package, wherever the driver was started.
///
/// # Errors
/// If cargo cannot be started or read.
pub fn build(names: &[&str], target: &Path) -> io::Result<HashMap<String, PathBuf>> {
    let mut built = HashMap::new();
    for (feature, names) in groups(names) {
        build_group(feature, &names, target, &mut built)?;
    }
    Ok(built)
}

fn build_group(
    feature: &str,
    names: &[&str],
    target: &Path,
    built: &mut HashMap<String, PathBuf>,
) -> io::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--release", "--keep-going"])
        .args(["--no-default-features", "--features", feature])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(target);
    for name in names {
        command.arg(format!("--bin=frag_{name}"));
    }
    let mut cargo = command.stdout(Stdio::piped()).spawn()?;
    let output = cargo.stdout.take().expect("stdout is piped");
    for line in BufReader::new(output).lines() {
        built.extend(executable(&line?));
    }
    cargo.wait()?;
    Ok(())
}

/// The allocator's name and the binary's path, if the line tells of one.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let name = message["target"]["name"].as_str()?.strip_prefix("frag_")?;
    let path = message["executable"].as_str()?;
    Some((name.to_owned(), path.into()))
}

/// Runs a binary to its end, or kills it when it outgrows the limit or falls
/// silent. `seen` is shown each record.
pub fn run(
    binary: &Path,
    work: &Work,
    limit_bytes: u64,
    seen: impl FnMut(&Record),
) -> (Records, Outcome) {
    let child = Command::new(binary)
        .args(work.to_args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match child {
        Ok(mut child) => watch(&mut child, limit_bytes, seen),
        Err(error) => (Records::default(), Outcome::Unreadable(error.to_string())),
    }
}

fn watch(child: &mut Child, limit_bytes: u64, mut seen: impl FnMut(&Record)) -> (Records, Outcome) {
    let lines = lines_of(child.stdout.take().expect("stdout is piped"));
    let complaint = text_of(child.stderr.take().expect("stderr is piped"));
    let mut records = Records::default();
    let stopped = loop {
        let line = match lines.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => break Some(Outcome::Silent(SILENCE.as_secs())),
            Err(RecvTimeoutError::Disconnected) => break None,
        };
        let record: Record = match serde_json::from_str(&line) {
            Ok(record) => record,
            Err(error) => break Some(Outcome::Unreadable(format!("{error} in {line:?}"))),
        };
        seen(&record);
        records.add(record);
        if let Record::Sample(sample) = record
            && sample.resident_bytes > limit_bytes
        {
            break Some(Outcome::TooLarge(sample.resident_bytes));
        }
    };
    if stopped.is_some() {
        // It may have ended in the meantime; then there is nothing to kill.
        let _ = child.kill();
    }
    let status = child.wait();
    let outcome = stopped.unwrap_or_else(|| match status {
        Ok(status) => judge(status, &records, complaint.join().unwrap_or_default()),
        Err(error) => Outcome::Unreadable(error.to_string()),
    });
    (records, outcome)
}

fn judge(status: ExitStatus, records: &Records, complaint: String) -> Outcome {
    if status.success() && records.end.is_some() {
        return Outcome::Finished;
    }
    let said: Vec<&str> = complaint.lines().filter(|l| !l.is_empty()).collect();
    let said = said[..said.len().min(2)].join(": ");
    Outcome::Died(format!("{status} {said}").trim_end().to_owned())
}

/// Lines, read on a thread of their own so that they can be waited for with a
/// time limit.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = unbounded();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        for line in lines {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn text_of(mut output: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth showing.
        let _ = output.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit_bytes: u64) -> (Records, Outcome) {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        watch(&mut child, limit_bytes, |_| ())
    }

    const SAMPLE: &str = r#"echo '{"record":"sample","at_us":1,"phase":"fill","rounds":0,"operations":1,"live_bytes":5,"resident_bytes":4096}'"#;
    const END: &str = r#"echo '{"record":"end","peak_resident_bytes":4096,"page_faults":1}'"#;

    #[test]
    fn a_child_that_ends_well_has_finished() {
        let (records, outcome) = shell(&format!("{SAMPLE}; {END}"), 1 << 30);
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(records.samples[0].live_bytes, 5);
    }

    #[test]
    fn a_child_that_dies_is_told_with_what_it_said() {
        let (records, outcome) = shell(
            &format!("{SAMPLE}; echo no memory >&2; kill -6 $$"),
            1 << 30,
        );
        assert_eq!(records.samples.len(), 1);
        let Outcome::Died(how) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(
            how.contains("signal: 6") && how.contains("no memory"),
            "{how}"
        );
        let (_, outcome) = shell(SAMPLE, 1 << 30);
        assert!(
            matches!(outcome, Outcome::Died(_)),
            "no last record: {outcome:?}"
        );
    }

    #[test]
    fn a_child_that_outgrows_the_limit_is_killed() {
        let (_, outcome) = shell(&format!("{SAMPLE}; exec sleep 100"), 4000);
        assert_eq!(outcome, Outcome::TooLarge(4096));
    }

    #[test]
    fn binaries_are_found_in_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"frag_system"},"executable":"/t/frag_system"}"#;
        let (name, path) = executable(line).unwrap();
        assert_eq!((name.as_str(), path), ("system", "/t/frag_system".into()));
        assert_eq!(executable(&line.replace("frag_", "")), None);
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }
}
