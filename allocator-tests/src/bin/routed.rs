//! Helper of the tests: a program that has bursar installed with a router of
//! its own, which does as the scenario says.

use std::process::ExitCode;

use allocator_tests::scenarios::routers::ROUTER;
use allocator_tests::scenarios::{self, Host};
use bursar::Bursar;

#[global_allocator]
static GLOBAL: Bursar = Bursar::with_pools("1073741824,268435456:1048576").with_router(&ROUTER);

fn main() -> ExitCode {
    scenarios::main(&Host {
        heap: &GLOBAL,
        books: None,
        inside: |call| call(),
        seal: || {},
    })
}
