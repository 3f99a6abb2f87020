//! `errno` survives `free`, whatever a free does: when it gives memory back, when another thread's
//! block goes, and when the kernel refuses what the allocator asks for.

use crate::contents::*;
use crate::family::*;
use libc::{c_long, c_void, sock_filter};
use std::mem::transmute;
use std::ptr::null_mut;
use std::thread;

/// What no call says.
const ERRNO: i32 = 4_321;

/// From a byte to large blocks, which go back to the system by themselves.
const SIZES: [usize; 10] = [
    1,
    24,
    500,
    3_000,
    20_000,
    100_000,
    400_000,
    2 << 20,
    9 << 20,
    33 << 20,
];

/// Runs a call that must leave `errno` alone.
fn kept(what: &str, call: impl FnOnce()) {
    set_errno(ERRNO);
    call();
    assert_eq!(errno(), ERRNO, "{what}");
}

/// Frees a block that was written to, by each function that frees.
fn free_each(blocks: impl Iterator<Item = (usize, *mut c_void)>) {
    type Delete = unsafe extern "C" fn(*mut c_void);
    // SAFETY: the name is terminated, and the function of that name is of that type.
    let operator_delete = unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, c"_ZdlPv".as_ptr());
        transmute::<*mut c_void, Delete>(found)
    };
    for (number, (size, block)) in blocks.enumerate() {
        // SAFETY: each block is alive, and freed once.
        kept(
            &format!("{size} bytes, freed in way {}", number % 3),
            || unsafe {
                match number % 3 {
                    0 => free(block),
                    1 => assert!(realloc(block, 0).is_null()),
                    _ => operator_delete(block),
                }
            },
        );
    }
}

fn blocks(each: usize) -> Vec<(usize, *mut c_void)> {
    let all = SIZES
        .iter()
        .flat_map(|&size| std::iter::repeat_n(size, each));
    all.map(|size| {
        // SAFETY: plain calls; the block is that long.
        let block = unsafe { malloc(size) };
        assert!(!block.is_null(), "{size} bytes can be had");
        fill(block, size.min(5_000), 1);
        (size, block)
    })
    .collect()
}

/// Pointers that go to another thread.
struct Handed(Vec<(usize, *mut c_void)>);
// SAFETY: blocks are owned, and any thread may free one.
unsafe impl Send for Handed {}

impl Handed {
    fn free(self) {
        free_each(self.0.into_iter());
    }
}

fn frees() {
    for _ in 0..5 {
        free_each(blocks(6).into_iter());
        // SAFETY: plain calls.
        kept("nothing", || unsafe { free(null_mut()) });
        let mut trimmed = 0;
        // SAFETY: as above.
        kept("malloc_trim", || trimmed = unsafe { malloc_trim(0) });
        let _ = trimmed;
        let theirs = Handed(blocks(6));
        let freeing = thread::spawn(move || theirs.free());
        freeing.join().expect("errno survives there too");
    }
}

/// While the kernel does what it is asked for.
pub fn survives() {
    frees();
}

/// While it refuses to take memory back or to move it.
pub fn survives_refusals() {
    // What the C library does at a thread's end is refused too: that is its affair.
    let calls = [
        libc::SYS_madvise,
        libc::SYS_process_madvise,
        libc::SYS_mremap,
    ];
    free_each(blocks(2).into_iter());
    refuse(&calls);
    // SAFETY: nothing is at that address; refused before that is looked at.
    let result = unsafe { libc::madvise(null_mut(), 4096, libc::MADV_DONTNEED) };
    assert_eq!(result, -1);
    assert_eq!(errno(), libc::EPERM);
    frees();
    for (size, block) in blocks(3) {
        // SAFETY: the block is alive; contents stay where pages cannot be moved.
        let block = unsafe { realloc(block, 3 * size) };
        assert!(!block.is_null(), "it can be copied");
        expect(block, size.min(5_000), 1);
        // SAFETY: as above.
        kept("a block that has grown", || unsafe { free(block) });
    }
    free_each(blocks(3).into_iter());
    // SAFETY: a plain call.
    let trimmed = unsafe { malloc_trim(0) };
    assert_eq!(trimmed, 0, "nothing could be given back");
    // What was not given back holds what was written; it must read as zero all the same.
    for &size in &SIZES {
        // SAFETY: the block is that long.
        unsafe {
            let zeroed = calloc(1, size).cast::<u8>();
            assert!((0..size).step_by(97).all(|at| zeroed.add(at).read() == 0));
            free(zeroed.cast());
        }
    }
}

/// Has the kernel answer these system calls of this process with `EPERM`, from now on.
fn refuse(calls: &[c_long]) {
    let statement = |code: u32, value: u32, yes: u8| sock_filter {
        code: code as u16,
        jt: yes,
        jf: 0,
        k: value,
    };
    // The number of the call is the first word that a filter sees.
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (place, &call) in calls.iter().enumerate() {
        let to_refusal = (calls.len() - place) as u8;
        filter.push(statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            call as u32,
            to_refusal,
        ));
    }
    let answer = libc::BPF_RET | libc::BPF_K;
    filter.push(statement(answer, libc::SECCOMP_RET_ALLOW, 0));
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    filter.push(statement(answer, refusal, 0));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: a program of valid statements that lives as long as the calls.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        let installed = libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program);
        assert_eq!(installed, 0, "errno {}", errno());
    }
}
