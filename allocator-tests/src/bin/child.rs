//! Helper of the tests: scenarios in a program that has bursar installed.

use std::process::ExitCode;

use allocator_tests::scenarios::{self, Host, exits};
use bursar::Bursar;

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

extern "C" fn before_main() {
    exits::early(&GLOBAL);
}

#[used]
// SAFETY: the section holds pointers to functions that the loader calls.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

fn main() -> ExitCode {
    scenarios::main(&Host {
        heap: &GLOBAL,
        books: None,
        inside: |call| call(),
        seal: || {},
    })
}
