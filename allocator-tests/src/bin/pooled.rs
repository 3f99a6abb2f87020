//! Helper of the tests: a program that has bursar installed with pools and
//! their backings made in code.

use std::process::ExitCode;

use allocator_tests::scenarios::{self, Host};
use bursar::{Backing, Bursar};

#[global_allocator]
static GLOBAL: Bursar = Bursar::with_pools("1073741824,268435456:65536")
    .with_backings(&[Backing::Memory, Backing::TransparentHuge]);

fn main() -> ExitCode {
    scenarios::main(&Host {
        heap: &GLOBAL,
        books: None,
        inside: |call| call(),
        seal: || {},
    })
}
