//! Rows of an allocator that cannot share a process with the others.
//!
//! A process is told through its standard input which row to run and how
//! often, and answers with nanoseconds: the allocators still take turns, and
//! what is timed does not include the talk.

use std::alloc::GlobalAlloc;
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use crate::micro::{self, Row};
use crate::peers::{self, Peer, Visitor};
use crate::programs::build::{self, Lto};

/// A running process; ends with its standard input.
struct Server {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn start(binary: &Path, arguments: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            requests: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().expect("stdout is piped")),
            child,
        })
    }

    /// Runs `count` operations of the row at `index`.
    fn run(&mut self, index: usize, count: u64) -> io::Result<Duration> {
        let requests = self.requests.as_mut().expect("taken only when dropped");
        writeln!(requests, "{index} {count}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let nanos = answer.trim().parse().map_err(io::Error::other)?;
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.requests.take());
        // Nothing is left to be done about a child that ended badly.
        let _ = self.child.wait();
    }
}

/// The rows of `peer`, each of which runs in that allocator's process.
pub(crate) fn rows(peer: Peer) -> Result<Vec<Row>, String> {
    let failed = |error: io::Error| format!("{}: {error}", peer.name);
    let built = build::cargo_build(&["rows_child".to_owned()], peer.name, Lto::Fat);
    let built = built.map_err(failed)?;
    let binary = built.get("rows_child").ok_or("cargo built no rows_child")?;
    // Names and order are the same for every allocator.
    static SYSTEM: std::alloc::System = std::alloc::System;
    elsewhere(micro::rows(&SYSTEM), binary, &[peer.name])
}

/// The same rows, run by a process of `binary` that answers by [`answer`] with
/// these rows first.
///
/// # Errors
/// If the process cannot be started.
pub fn elsewhere(rows: Vec<Row>, binary: &Path, arguments: &[&str]) -> Result<Vec<Row>, String> {
    let server = Server::start(binary, arguments)
        .map_err(|error| format!("{}: {error}", binary.display()))?;
    let server = Rc::new(RefCell::new(server));
    Ok(rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| {
            let server = Rc::clone(&server);
            row.elsewhere(move |count| {
                server
                    .borrow_mut()
                    .run(index, count)
                    .expect("the process answers")
            })
        })
        .collect())
}

/// Answers requests for rows of the linked allocator of that name until the
/// standard input ends.
///
/// # Errors
/// If there is no such allocator, a request is none, or the pipes break.
// Inline for the same reason as `interleave::lanes`.
#[inline]
pub fn serve(name: &str) -> io::Result<()> {
    let mut rows = Rows {
        name,
        rows: Vec::new(),
    };
    peers::for_each(&mut rows);
    answer(&rows.rows)
}

struct Rows<'a> {
    name: &'a str,
    rows: Vec<Row>,
}

impl Visitor for Rows<'_> {
    fn visit<A: GlobalAlloc + Sync>(&mut self, peer: Peer, allocator: &'static A) {
        if peer.name == self.name {
            self.rows = micro::rows(allocator);
        }
    }
}

/// Answers requests for these rows until the standard input ends.
///
/// # Errors
/// If a request is none, or the pipes break.
pub fn answer(rows: &[Row]) -> io::Result<()> {
    let mut answers = io::stdout().lock();
    for request in io::stdin().lines() {
        let request = request?;
        let parsed = request.split_once(' ').and_then(|(index, count)| {
            Some((rows.get(index.parse::<usize>().ok()?)?, count.parse().ok()?))
        });
        let (row, count) =
            parsed.ok_or_else(|| io::Error::other(format!("request {request:?}")))?;
        writeln!(answers, "{}", row.run(count).as_nanos())?;
    }
    Ok(())
}
