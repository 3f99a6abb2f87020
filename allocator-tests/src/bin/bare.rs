//! Helper of the tests: scenarios in a program that does not have bursar
//! installed, but drives it. What is on its books is the scenario's own.

use std::process::ExitCode;

use allocator_tests::scenarios::{self, Host};
use bursar::Bursar;

static HEAP: Bursar = Bursar::new();

fn main() -> ExitCode {
    scenarios::main(&Host {
        heap: &HEAP,
        books: Some(|ours| ours),
        inside: |call| call(),
        seal: || {},
    })
}
