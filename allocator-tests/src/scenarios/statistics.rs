//! Snapshots while threads work, and everything else that must not allocate.

use std::fmt::Write;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bursar::Stats;

use super::threads::some_blocks;
use super::{Arguments, Host, Run, scaled};
use crate::blocks::Filled;
use crate::process::{Fate, in_child};

pub(super) const ALL: &[(&str, Run)] = &[
    ("snapshots", snapshots),
    ("interface", interface),
    ("thread_end", thread_end),
    ("trespass", trespass),
];

/// Panics if the parts of a snapshot that was taken at rest do not add up.
pub fn adds_up(stats: &Stats) {
    adds_up_but_for(stats, 0);
}

/// Panics if the parts of a snapshot do not add up but for the bytes that were allocated meanwhile.
fn adds_up_but_for(stats: &Stats, meanwhile: u64) {
    let arenas: i64 = stats
        .arenas()
        .iter()
        .map(|arena| arena.allocated_bytes)
        .sum();
    let classes: u64 = stats
        .classes()
        .iter()
        .map(|class| class.allocated_bytes)
        .sum();
    let whole = stats.allocated_bytes;
    assert_eq!(classes, whole, "the classes and the whole");
    assert_eq!(arenas, whole as i64, "the arenas and the whole");
    assert!(
        stats.mapped_bytes <= stats.reserved_bytes,
        "mapped beyond reserved"
    );
    assert!(
        stats.committed_bytes <= stats.mapped_bytes,
        "committed beyond mapped"
    );
    assert!(
        stats.allocated_bytes <= stats.committed_bytes + meanwhile,
        "allocated beyond committed"
    );
    assert!(
        stats.dirty_bytes <= stats.committed_bytes,
        "dirty beyond committed"
    );
}

/// Threads allocate, free and exit; each snapshot meanwhile adds up, and lies
/// between what is always live and what was live or allocated at the time.
fn snapshots(host: &Host, _: &Arguments) {
    static DONE: AtomicBool = AtomicBool::new(false);
    static BEGUN: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
    let heap = host.heap;
    let lasting = some_blocks(heap, 1, 20_000);
    let floor: u64 = lasting
        .iter()
        .map(|b| bursar::block_size(b.layout()) as u64)
        .sum();
    let each = [2, 3, 4].map(|seed| {
        let blocks = some_blocks(heap, seed, 300);
        let bytes = blocks.iter().map(|b| bursar::block_size(b.layout()) as u64);
        // And what the thread itself and its books take.
        bytes.sum::<u64>() + (64 << 10)
    });
    let own = bursar::stats().allocated_bytes.saturating_sub(floor) + (1 << 20);
    let begun = || BEGUN.each_ref().map(|count| count.load(Ordering::SeqCst));
    let keepers = [2, 3, 4].map(|seed| {
        thread::spawn(move || {
            while !DONE.load(Ordering::Relaxed) {
                BEGUN[seed as usize - 2].fetch_add(1, Ordering::SeqCst);
                let blocks = thread::spawn(move || some_blocks(heap, seed, 300)).join();
                drop(blocks.unwrap_or_else(|panic| resume_unwind(panic)));
            }
        })
    });
    for _ in 0..scaled(2_000, 200) {
        let before = begun();
        let stats = host.inside(bursar::stats);
        let after = begun();
        // Of each thread what it had or was about to have, and what it began meanwhile.
        let above = |n: usize| each[n] * (1 + after[n] - before[n]);
        let above = above(0) + above(1) + above(2);
        adds_up_but_for(&stats, above);
        let allocated = stats.allocated_bytes;
        assert!(
            (floor..=floor + own + above).contains(&allocated),
            "{allocated} over {floor}, {above} at most"
        );
        thread::sleep(Duration::from_micros(200));
    }
    DONE.store(true, Ordering::Relaxed);
    for thread in keepers {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
    drop(lasting);
    adds_up(&bursar::stats());
    host.check();
}

/// A place for text that does not grow.
struct Fixed {
    text: [u8; 1 << 16],
    length: usize,
}

impl Write for Fixed {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        let end = self.length + more.len();
        let place = self.text.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        place.copy_from_slice(more.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Every call that a program makes apart from allocating, none of which may
/// allocate: snapshots, their table, purging, verification, the last failure.
/// (`is_installed()` asks the global allocator for a byte; that is its way.)
fn interface(host: &Host, _: &Arguments) {
    let blocks = some_blocks(host.heap, 1, 5_000);
    let mut table = Fixed {
        text: [0; 1 << 16],
        length: 0,
    };
    for _ in 0..20 {
        drop(some_blocks(host.heap, 2, 500));
        let stats = host.inside(bursar::stats);
        table.length = 0;
        host.inside(|| write!(table, "{stats}"))
            .expect("the table fits in 64 KiB");
        host.inside(bursar::purge);
        host.inside(bursar::check)
            .unwrap_or_else(|broken| panic!("{broken}"));
        // SAFETY: the layout is valid; there is no such block to be had.
        let none = unsafe { host.heap.alloc(crate::blocks::layout(1 << 62, 8)) };
        assert!(none.is_null(), "2^62 bytes cannot be had");
        host.inside(bursar::last_failure).expect("a reason");
        assert_eq!(host.inside_fork(), Fate::Fine, "a fork");
    }
    let text = std::str::from_utf8(&table.text[..table.length]).expect("text");
    assert!(text.lines().count() > 3, "a table: {text}");
    drop(blocks);
    host.check();
}

/// Runs on a thread without Rust's thread-locals: what follows the last line is
/// bursar's hook and the C library.
extern "C" fn last_words(host: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `thread_end` passes its host and waits for the thread.
    let host = unsafe { &*host.cast::<Host>() };
    let mut live = some_blocks(host.heap, 3, 400);
    drop(live.split_off(200));
    let block = Box::into_raw(Box::new(live));
    (host.seal)();
    block.cast()
}

/// Threads end with live and with free memory, and their end allocates nothing.
fn thread_end(host: &Host, _: &Arguments) {
    for _ in 0..scaled(2_000, 200) {
        let mut thread = 0;
        let argument = std::ptr::from_ref(host).cast_mut().cast();
        let mut left = std::ptr::null_mut();
        // SAFETY: the host outlives the thread, which is joined at once.
        unsafe {
            let failed =
                libc::pthread_create(&raw mut thread, std::ptr::null(), last_words, argument);
            assert_eq!(failed, 0, "there can be a thread");
            assert_eq!(libc::pthread_join(thread, &raw mut left), 0);
        }
        // SAFETY: the thread left a box of this type.
        drop(unsafe { Box::from_raw(left.cast::<Vec<Filled>>()) });
    }
    host.check();
}

/// Allocates where it may not, so that the guard itself is tested.
fn trespass(host: &Host, _: &Arguments) {
    drop(host.inside(|| std::hint::black_box(Box::new(1))));
}

impl Host {
    /// A fork whose hooks may not allocate, in the parent or in the child.
    fn inside_fork(&self) -> Fate {
        self.inside(|| in_child(|| {}))
    }
}
