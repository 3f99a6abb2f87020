//! Rows of an allocator that cannot share a process with the others.
//!
//! A process is told through its standard input which row to run and how
//! often, and answers with nanoseconds: the allocators still take turns, and
//! what is timed does not include the talk.

use std::alloc::GlobalAlloc;
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Write};
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
    fn start(peer: Peer) -> io::Result<Self> {
        let built = build::cargo_build(&["rows_child".to_owned()], peer.name, Lto::Fat)?;
        let binary = built.get("rows_child");
        let binary = binary.ok_or_else(|| io::Error::other("cargo built no rows_child"))?;
        let mut child = Command::new(binary)
            .arg(peer.name)
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
    let server = Rc::new(RefCell::new(Server::start(peer).map_err(failed)?));
    // Names and order are the same for every allocator.
    static SYSTEM: std::alloc::System = std::alloc::System;
    let rows = micro::rows(&SYSTEM).into_iter().enumerate();
    Ok(rows
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

fn answer(rows: &[Row]) -> io::Result<()> {
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
