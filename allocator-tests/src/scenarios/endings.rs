//! Programs that come to their end with known blocks alive, in the ways that there are, for tests of
//! what is told at exit.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

use bursar::Consumer;
use libc::{SIG_DFL, SIGPIPE};

use super::{Arguments, Host, Run};
use crate::blocks::layout;

pub(super) const ALL: &[(&str, Run)] = &[
    ("end", end),
    ("end_in_thread", end_in_thread),
    ("end_without_exit", end_without_exit),
    ("end_forked", end_forked),
    ("end_another", end_another),
    ("end_unheard", end_unheard),
    ("end_with_consumers", end_with_consumers),
    ("end_with_other_environment", end_with_other_environment),
];

/// Blocks of a size that nothing else in the program has: how many are alive, and how many were freed.
pub const ALIVE: u64 = 37;
/// See [`ALIVE`].
pub const FREED: u64 = 5;
/// Bytes of each.
pub const SIZE: usize = 14_000;
/// Large blocks alive, and the bytes of each.
pub const LARGE: (u64, usize) = (3, 5 << 20);
/// What the program ends with, where it is not told otherwise.
pub const CODE: i32 = 7;

/// Allocates what the tests know of.
fn allocate(host: &Host) {
    let take = |size| {
        // SAFETY: the size is not zero.
        let block = unsafe { host.heap.alloc(layout(size, 8)) };
        assert!(!block.is_null(), "memory can be had");
        block
    };
    for _ in 0..ALIVE {
        take(SIZE);
    }
    let freed: Vec<*mut u8> = (0..FREED).map(|_| take(SIZE)).collect();
    for block in freed {
        // SAFETY: allocated above, and not used any more.
        unsafe { host.heap.dealloc(block, layout(SIZE, 8)) };
    }
    for _ in 0..LARGE.0 {
        take(LARGE.1);
    }
}

fn end(host: &Host, _: &Arguments) {
    allocate(host);
    exit(CODE);
}

fn end_in_thread(host: &Host, _: &Arguments) {
    allocate(host);
    let other = std::thread::spawn(|| -> () { exit(CODE) });
    let _ = other.join();
    unreachable!("the process is gone");
}

fn end_without_exit(host: &Host, _: &Arguments) {
    allocate(host);
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(CODE) };
}

/// Says the child's number. The child allocates one block more, and ends first.
fn end_forked(host: &Host, _: &Arguments) {
    allocate(host);
    // SAFETY: there is one thread, so the child may do all that the parent may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the size is not zero.
        assert!(!unsafe { host.heap.alloc(layout(SIZE, 8)) }.is_null());
        exit(CODE);
    }
    let mut status = 0;
    // SAFETY: our child, and a place for the result.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(libc::WEXITSTATUS(status), CODE);
    println!("{child}");
    exit(CODE);
}

/// Another program takes its place.
fn end_another(host: &Host, _: &Arguments) {
    allocate(host);
    let program = std::env::current_exe().expect("it lies somewhere");
    let error = Command::new(program).arg("use").exec();
    panic!("{error}");
}

/// Waits until its input ends: nobody reads its standard error any more.
fn end_unheard(host: &Host, _: &Arguments) {
    // SAFETY: as in programs in other languages.
    unsafe { libc::signal(SIGPIPE, SIG_DFL) };
    allocate(host);
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("a pipe");
    exit(CODE);
}

fn end_with_consumers(host: &Host, _: &Arguments) {
    let query = Consumer::new("query \"1\"\n");
    query.child("scan").run(|| allocate(host));
    exit(CODE);
}

/// Writes over its environment, as programs do that show what they are at.
fn end_with_other_environment(host: &Host, _: &Arguments) {
    allocate(host);
    // SAFETY: the value is the program's, of that length, and there is one thread.
    unsafe {
        let value = libc::getenv(c"BURSAR_CONF".as_ptr());
        value.write_bytes(b'x', libc::strlen(value));
    }
    exit(CODE);
}
