//! Helper of the tests: a program that has bursar installed with settings
//! made in code: the secure profile.

use std::process::ExitCode;

use allocator_tests::scenarios::{self, Host};
use bursar::Bursar;

#[global_allocator]
static GLOBAL: Bursar = Bursar::new().secure(true);

fn main() -> ExitCode {
    scenarios::main(&Host {
        heap: &GLOBAL,
        books: None,
        inside: |call| call(),
        seal: || {},
    })
}
