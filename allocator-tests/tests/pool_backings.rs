//! What pools made at run time are made of: memory, huge pages, files, shared memory; and what of
//! it a forked child has. bursar is not installed here: what is in a pool is the test's.

use std::alloc::Layout;
use std::ffi::CString;

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as PoolVec;
use allocator_tests::process::{Fate, in_child};
use allocator_tests::turns::alone;
use bursar::{Backing, Consumer, Pool, PoolError};

fn check() {
    bursar::check().unwrap_or_else(|broken| panic!("check(): {broken}"));
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

fn folder() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into)
}

/// Blocks in a pool hold what is written, are zero where asked for, and give memory back.
fn exercise(pool: &Pool) {
    for round in 0..3 {
        let mut blocks = Vec::new();
        for i in 0..300_usize {
            let size = [64, 700, 5000, 50_000, 400_000][i % 5];
            let Ok(block) = pool.allocator().allocate_zeroed(layout(size)) else {
                continue;
            };
            // SAFETY: just allocated.
            unsafe {
                assert!(
                    block.as_ref().iter().all(|&byte| byte == 0),
                    "{size}, round {round}"
                );
                block.cast::<u8>().write_bytes(i as u8, size);
            }
            blocks.push((block, size, i as u8));
        }
        assert!(blocks.len() > 100, "{} of 300", blocks.len());
        check();
        bursar::purge();
        for (block, size, byte) in blocks {
            // SAFETY: alive, and freed once with its layout.
            unsafe {
                assert!(block.as_ref().iter().all(|&found| found == byte));
                pool.allocator().deallocate(block.cast(), layout(size));
            }
        }
        bursar::purge();
        assert_eq!(pool.stats().used_bytes, 0, "{}", pool.stats());
        check();
    }
}

/// Bytes that a file or shared memory takes.
fn bytes_of(pool: &Pool) -> i64 {
    let mut status = core::mem::MaybeUninit::<libc::stat>::uninit();
    let fd = pool.raw_fd().expect("it has a file");
    // SAFETY: an open file, and a place for the result, which is set if the call succeeds.
    let status = unsafe {
        assert_eq!(libc::fstat(fd, status.as_mut_ptr()), 0);
        status.assume_init()
    };
    status.st_blocks * 512
}

#[test]
fn pools_of_every_backing_work() {
    alone(|| {
        for size in [100_000, 20 << 20, 40_000_001] {
            for backing in [Backing::Memory, Backing::TransparentHuge, Backing::Shared] {
                let pool = Pool::builder(size)
                    .backing(backing)
                    .build()
                    .expect("it can be had");
                if size > 1 << 20 {
                    exercise(&pool);
                }
            }
        }
    });
}

#[test]
fn shared_memory_is_given_back() {
    alone(|| {
        let pool = Pool::builder(64 << 20)
            .backing(Backing::Shared)
            .build()
            .expect("it can be had");
        let mut bytes = PoolVec::new_in(pool.allocator());
        bytes.resize(32 << 20, 1_u8);
        assert!(
            bytes_of(&pool) >= 32 << 20,
            "it is the memory of the object"
        );
        goes_back(bytes, &pool);
    });
}

/// What is freed leaves the pool's object too.
fn goes_back<T>(freed: T, pool: &Pool) {
    drop(freed);
    bursar::purge();
    let left = bytes_of(pool);
    assert!(left < 1 << 20, "{left} bytes are left");
}

#[test]
fn a_pool_may_lie_in_a_file() {
    alone(|| {
        let path = folder().join(format!("bursar-pool-{}", std::process::id()));
        let name = CString::new(path.to_str().expect("text")).expect("no zero");
        let build = |size| Pool::builder(size).backing(Backing::File(&name)).build();
        // Larger than memory: nothing of it is touched yet.
        let pool = build(200 << 30).expect("it can be had");
        assert!(!path.exists(), "nothing is left of it, whatever happens");
        assert!(bytes_of(&pool) < 1 << 20);
        // First of all: a file system may go on counting some of the pages that come and go below
        // (ext4 does, of ranges that are set aside, written and taken away in turn).
        let mut bytes = PoolVec::new_in(pool.allocator());
        bytes.resize(8 << 20, 1_u8);
        assert!(bytes_of(&pool) >= 8 << 20, "its bytes are the file's");
        goes_back(bytes, &pool);
        exercise(&pool);
        drop(pool);
        exercise(&build(20_000_001).expect("it can be had"));

        std::fs::write(&path, "precious").expect("a file");
        let refused = build(20 << 20).expect_err("a file is there");
        assert_eq!(
            refused,
            PoolError::File {
                errno: libc::EEXIST
            }
        );
        assert_eq!(
            refused.to_string(),
            "the pool's file could not be made (errno 17)"
        );
        assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
        std::fs::remove_file(&path).expect("it was there");
        let nowhere = Backing::File(c"/no/such/folder/pool");
        let refused = Pool::builder(4096)
            .backing(nowhere)
            .build()
            .expect_err("no folder");
        assert_eq!(
            refused,
            PoolError::File {
                errno: libc::ENOENT
            }
        );
        check();
    });
}

#[test]
fn huge_pages_are_had_or_refused_with_the_reason() {
    alone(|| {
        let size = 64 << 20;
        match Pool::builder(size).backing(Backing::HugePages).build() {
            Ok(pool) => exercise(&pool),
            Err(refused) => {
                assert!(matches!(refused, PoolError::HugePages { bytes, .. } if bytes == size));
                let said = refused.to_string();
                assert!(
                    said.starts_with(
                        "too few huge pages are set aside for a pool of 67108864 bytes"
                    )
                );
            }
        }
        check();
        // With some set aside, where this program may do that.
        const SETTING: &str = "/proc/sys/vm/nr_hugepages";
        let Ok(before) = std::fs::read_to_string(SETTING) else {
            return eprintln!("skipped: the machine knows no huge pages");
        };
        if std::fs::write(SETTING, "40").is_err() {
            return eprintln!("skipped: huge pages cannot be set aside");
        }
        let made = Pool::builder(size).backing(Backing::HugePages).build();
        match made {
            Ok(pool) => {
                exercise(&pool);
                drop(pool);
            }
            Err(refused) => eprintln!("skipped: {refused}"),
        }
        std::fs::write(SETTING, before.trim()).expect("it was written before");
        check();
    });
}

/// A forked child does not see what is in a shared pool, and goes on with memory of its own; the
/// parent's is not changed.
#[test]
fn a_forked_child_has_nothing_of_a_shared_pool() {
    alone(|| {
        let consumer = Consumer::new("with shared memory");
        let path = folder().join(format!("bursar-fork-{}", std::process::id()));
        let name = CString::new(path.to_str().expect("text")).expect("no zero");
        let ordinary = Pool::new(32 << 20).expect("it can be had");
        let mut kept = PoolVec::new_in(ordinary.allocator());
        kept.resize(1000, 5_u8);
        for backing in [Backing::Shared, Backing::File(&name)] {
            let pool = Pool::builder(64 << 20)
                .backing(backing)
                .build()
                .expect("it can be had");
            let take = |size: usize, byte: u8| {
                let mut bytes = PoolVec::new_in(pool.allocator());
                bytes.resize(size, byte);
                bytes
            };
            let mut blocks: Vec<_> = (1..200_usize).map(|i| take(i * 7, 3)).collect();
            blocks.extend(
                consumer.run(|| (1..200_usize).map(|i| take(i * 70, 3)).collect::<Vec<_>>()),
            );
            blocks.push(take(1_000_000, 3));
            blocks.drain(..).step_by(2).for_each(drop);
            let blocks: Vec<_> = (1..300_usize).map(|i| take(i * 31, 4)).collect();
            let fate = in_child(|| {
                check();
                assert!(
                    blocks.iter().flatten().all(|&byte| byte == 0),
                    "nothing is seen of it"
                );
                assert!(
                    kept.iter().all(|&byte| byte == 5),
                    "other pools are as they were"
                );
                let own: Vec<_> = (1..300_usize).map(|i| take(i * 13, 9)).collect();
                assert!(own.iter().flatten().all(|&byte| byte == 9));
                check();
                drop(blocks);
                drop(own);
                check();
                bursar::purge();
                check();
            });
            assert_eq!(fate, Fate::Fine);
            let again: Vec<_> = (1..300_usize).map(|i| take(i * 31, 4)).collect();
            assert!(again.iter().flatten().all(|&byte| byte == 4));
            check();
        }
        assert!(kept.iter().all(|&byte| byte == 5));
    });
}
