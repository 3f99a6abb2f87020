//! What holders may do to each other, and what is left when they die. A second attachment of the
//! same process stands for a second process: the kernel tells their locks apart.

use super::layout::{GRANULE, PROCESSES, counts, descriptor, head};
use super::locked::Locked;
use super::*;
use crate::os::sync::Ordering::Relaxed;
use crate::pool::PoolSpec;
use core::mem::forget;
use std::sync::Arc;
use std::vec::Vec;

const MIB: usize = 1 << 20;

fn pools(spec: &str) -> MbufPools {
    MbufPools::new(&PoolSpec::must_parse(spec)).unwrap()
}

fn attach(pools: &MbufPools) -> MbufPools {
    MbufPools::attach(pools.fd().try_clone_to_owned().unwrap()).unwrap()
}

/// What a process leaves that is killed: nothing happens but that its locks are dropped.
fn die(pools: MbufPools, held: Vec<Mbuf>) {
    forget(held);
    // SAFETY: read once; the value that it is read from is never used again.
    drop(unsafe { core::ptr::read(&pools.0.member.locks) });
    forget(pools);
}

fn used(pools: &MbufPools) -> u64 {
    pools.check().unwrap();
    pools.pools().iter().map(|pool| pool.used_bytes).sum()
}

/// A request of so many bytes, head included.
fn request(pools: &MbufPools, bytes: u64) -> Result<Mbuf, MbufError> {
    Mbuf::new(pools, (bytes - GRANULE) as usize)
}

#[test]
fn the_last_holder_gives_it_back() {
    let a = pools("1048576");
    let b = attach(&a);
    let first = Mbuf::new(&a, 5000).unwrap();
    assert_eq!(used(&a), 6 * 1024);
    let handle = first.export().unwrap();
    let clone = first.clone();
    let [second, third] = [(); 2].map(|()| Mbuf::open(&b, handle).unwrap());
    drop(first);
    drop(second);
    assert_eq!(used(&a), 6 * 1024);
    drop(third);
    assert_eq!(used(&b), 6 * 1024, "a clone is still there");
    drop(clone);
    assert_eq!(used(&b), 0);
    let stale = Mbuf::open(&b, handle).unwrap_err();
    assert_eq!(stale, MbufError::Stale { handle });
}

#[test]
fn one_holder_writes_and_several_read() {
    let a = pools("1048576");
    let b = attach(&a);
    let mut first = Mbuf::new(&a, 100).unwrap();
    first.exclusive().unwrap().data().write_at(0, &[7; 100]);
    let clone = first.clone();
    assert_eq!(first.exclusive().unwrap_err(), MbufError::Shared);
    drop(clone);
    let handle = first.export().unwrap();
    let mut second = Mbuf::open(&b, handle).unwrap();
    assert_eq!(first.exclusive().unwrap_err(), MbufError::Shared);
    assert_eq!(second.exclusive().unwrap_err(), MbufError::Shared);
    drop(first);
    assert_eq!(second.data().to_vec(), [7; 100]);
    second.exclusive().unwrap().data().fill(8);
    // Writing has revoked the handle.
    assert_eq!(
        Mbuf::open(&a, handle).unwrap_err(),
        MbufError::Stale { handle }
    );
    let again = Mbuf::open(&a, second.export().unwrap()).unwrap();
    assert_eq!(again.data().to_vec(), [8; 100]);
    drop(second);
    drop(again);
    assert_eq!(used(&a), 0);
}

#[test]
fn opening_twice_is_holding_twice() {
    let a = pools("1048576");
    let mut first = Mbuf::new(&a, 100).unwrap();
    let mut second = Mbuf::open(&a, first.export().unwrap()).unwrap();
    assert_eq!(first.exclusive().unwrap_err(), MbufError::Shared);
    drop(first);
    assert!(second.exclusive().is_ok());
    assert_eq!(used(&a), 2048);
    drop(second);
    assert_eq!(used(&a), 0);
}

#[test]
fn what_is_handed_over_is_the_receivers_alone() {
    let a = pools("1048576");
    let (b, c) = (attach(&a), attach(&a));
    let mut first = Mbuf::new(&a, 100).unwrap();
    first.exclusive().unwrap().data().fill(3);
    let shared = first.export().unwrap();
    let handle = first.export_to(b.me()).unwrap();
    assert_eq!(used(&a), 2048, "it is held before it is opened");
    assert_eq!(
        Mbuf::open(&c, shared).unwrap_err(),
        MbufError::Stale { handle: shared }
    );
    let refused = Mbuf::open(&c, handle).unwrap_err();
    assert_eq!(refused, MbufError::NotForThisProcess { handle });
    let mut second = Mbuf::open(&b, handle).unwrap();
    assert_eq!(second.data().to_vec(), [3; 100]);
    second.exclusive().unwrap().data().fill(4);
    assert_eq!(
        Mbuf::open(&b, handle).unwrap_err(),
        MbufError::Stale { handle }
    );
    drop(second);
    assert_eq!(used(&a), 0);
    assert_eq!(
        Mbuf::open(&b, handle).unwrap_err(),
        MbufError::Stale { handle }
    );
}

#[test]
fn what_is_shared_or_has_no_taker_is_not_handed_over() {
    let a = pools("1048576");
    let b = attach(&a);
    let first = Mbuf::new(&a, 100).unwrap();
    let clone = first.clone();
    let (first, refused) = first.export_to(b.me()).unwrap_err();
    assert_eq!(refused, MbufError::Shared);
    drop(clone);
    let second = Mbuf::open(&b, first.export().unwrap()).unwrap();
    let (first, refused) = first.export_to(b.me()).unwrap_err();
    assert_eq!(refused, MbufError::Shared);
    drop(second);
    let gone = b.me();
    drop(b);
    let (first, refused) = first.export_to(gone).unwrap_err();
    assert_eq!(refused, MbufError::PeerGone);
    let myself = first.export_to(a.me()).unwrap();
    assert_eq!(used(&a), 2048);
    drop(Mbuf::open(&a, myself).unwrap());
    assert_eq!(used(&a), 0);
}

#[test]
fn forged_and_foreign_handles_are_errors() {
    let (a, other) = (pools("1048576,65536:2048"), pools("1048576,65536:2048"));
    let [first, second] = [(); 2].map(|()| Mbuf::new(&a, 5000).unwrap());
    let handle = first.export().unwrap();
    let open = |change: &dyn Fn(&mut MbufHandle)| {
        let mut forged = handle;
        change(&mut forged);
        Mbuf::open(&a, forged).unwrap_err()
    };
    let kind = |error: MbufError| core::mem::discriminant(&error);
    let stale = kind(MbufError::Stale { handle });
    let invalid = kind(MbufError::Invalid { handle });
    assert_eq!(
        Mbuf::open(&other, handle).unwrap_err(),
        MbufError::Foreign { handle }
    );
    assert_eq!(kind(open(&|h| h.generation ^= 1)), stale);
    assert_eq!(kind(open(&|h| h.generation += 1 << 32)), stale);
    assert_eq!(kind(open(&|h| h.offset += GRANULE)), stale);
    assert_eq!(kind(open(&|h| h.offset = second.offset())), stale);
    assert_eq!(kind(open(&|h| h.pool = 1)), stale);
    assert_eq!(kind(open(&|h| h.offset += 1)), invalid);
    assert_eq!(kind(open(&|h| h.offset = MIB as u64)), invalid);
    assert_eq!(kind(open(&|h| h.offset = u64::MAX - GRANULE + 1)), invalid);
    assert_eq!(kind(open(&|h| h.pool = 2)), invalid);
    assert_eq!(kind(open(&|h| h.pool = u32::MAX)), invalid);
    assert_eq!(kind(open(&|h| h.to = a.me().to_bits())), stale);
    assert!(matches!(
        open(&|h| h.to = 99),
        MbufError::NotForThisProcess { .. }
    ));
    assert!(Mbuf::open(&a, handle).is_ok());
}

#[test]
fn what_the_dead_held_is_reclaimed() {
    let a = pools("1048576");
    let (b, c) = (attach(&a), attach(&a));
    let kept = Mbuf::new(&b, 100).unwrap();
    let also = Mbuf::open(&a, kept.export().unwrap()).unwrap();
    let lone = Mbuf::new(&b, 100).unwrap();
    // On its way to the one that dies.
    Mbuf::new(&c, 100).unwrap().export_to(b.me()).unwrap();
    assert_eq!(a.reclaim(), Ok(0));
    let dead = b.me();
    assert!(a.is_alive(dead));
    die(b, [kept, lone].into());
    assert!(!a.is_alive(dead));
    assert_eq!(used(&a), 3 * 2048);
    assert_eq!(a.reclaim(), Ok(2));
    assert_eq!(used(&a), 2048);
    assert_eq!(also.data().len(), 100);
    drop(also);
    assert_eq!(used(&a), 0);
    assert_eq!(a.reclaim(), Ok(0));
}

#[test]
fn who_comes_next_inherits_nothing() {
    let a = pools("1048576");
    let mut dead = Vec::new();
    for _ in 0..PROCESSES - 1 {
        let b = attach(&a);
        dead.push(b.me());
        let held = Mbuf::new(&b, 100).unwrap();
        die(b, [held].into());
    }
    assert_eq!(used(&a), u64::from(PROCESSES - 1) * 2048);
    // Every slot but one has a record of a dead process.
    let b = attach(&a);
    assert!(!dead.contains(&b.me()));
    assert_eq!(used(&a), u64::from(PROCESSES - 2) * 2048);
    let lone = Mbuf::new(&a, 100).unwrap();
    for peer in dead {
        assert!(!a.is_alive(peer));
    }
    assert_eq!(a.reclaim(), Ok(u64::from(PROCESSES) - 2));
    drop((lone, b));
    assert_eq!(used(&a), 0);
}

#[test]
fn a_full_pool_reclaims_by_itself() {
    let a = pools("10240");
    let b = attach(&a);
    let held = Mbuf::new(&b, 8000).unwrap();
    let refused = Mbuf::new(&a, 8000).unwrap_err();
    assert_eq!(refused, MbufError::Full { bytes: 9024 });
    die(b, [held].into());
    let again = Mbuf::new(&a, 8000).unwrap();
    assert_eq!(used(&a), 9 * 1024);
    drop(again);
}

#[test]
fn what_a_dead_sender_never_sent_is_settled() {
    let a = pools("1048576");
    let b = attach(&a);
    let [sent, unsent] = [(); 2].map(|()| Mbuf::new(&b, 100).unwrap());
    let handle = sent.export_to(a.me()).unwrap();
    unsent.export_to(a.me()).unwrap();
    let dead = b.me();
    assert_eq!(a.settle(dead), Err(MbufError::PeerAlive));
    die(b, Vec::new());
    assert_eq!(a.reclaim(), Ok(0), "both are this process's");
    let received = Mbuf::open(&a, handle).unwrap();
    assert_eq!(a.settle(dead), Ok(1));
    assert_eq!(used(&a), 2048);
    drop(received);
    assert_eq!(used(&a), 0);
}

#[test]
fn detaching_gives_back_what_was_never_opened() {
    let a = pools("1048576");
    let b = attach(&a);
    Mbuf::new(&a, 100).unwrap().export_to(b.me()).unwrap();
    assert_eq!(used(&a), 2048);
    drop(b);
    assert_eq!(used(&a), 0);
}

/// A process dies under the lock after `work`; the next one puts everything in order.
fn dies_at_work(work: impl FnOnce(&mut Locked<'_>, u64)) {
    let a = pools("1048576");
    let b = attach(&a);
    let below = Mbuf::new(&a, 100).unwrap();
    let held = Mbuf::new(&b, 70_000).unwrap();
    let above = Mbuf::new(&a, 100).unwrap();
    let mut locked = Locked::new(&b.0, 0).unwrap();
    work(&mut locked, held.offset() / GRANULE);
    // The process is dead; its mutex is nobody's any more.
    forget(locked);
    die(b, [held].into());
    a.reclaim().unwrap();
    assert_eq!(used(&a), 2 * 2048);
    let again = Mbuf::new(&a, 70_000).unwrap();
    assert_eq!(again.offset(), 2048, "the place is free");
    drop((below, above, again));
    assert_eq!(used(&a), 0);
}

#[test]
fn the_dead_may_have_been_allocating() {
    dies_at_work(|_, _| {});
    dies_at_work(|pool, _| pool.space().claim(500, 100).unwrap());
    dies_at_work(|pool, _| {
        pool.counts()[counts::TOP].store(700, Relaxed);
        pool.space().claim(500, 200).unwrap();
        let fields = pool.descriptor(500);
        fields[descriptor::SPAN].store(200, Relaxed);
        pool.set_holder(500, slot(pool), true);
        pool.set_start(500, true);
    });
}

#[test]
fn the_dead_may_have_been_freeing() {
    let me = slot;
    dies_at_work(|pool, start| pool.set_holder(start, me(pool), false));
    dies_at_work(|pool, start| {
        pool.set_holder(start, me(pool), false);
        pool.set_start(start, false);
    });
    dies_at_work(|pool, start| {
        pool.set_holder(start, me(pool), false);
        pool.set_start(start, false);
        pool.space().release(start, 70);
    });
}

fn slot(pool: &Locked<'_>) -> u32 {
    pool.set.member.slot()
}

#[test]
fn the_dead_may_have_been_handing_over() {
    let a = pools("1048576");
    let b = attach(&a);
    let held = Mbuf::new(&b, 100).unwrap();
    let locked = Locked::new(&b.0, 0).unwrap();
    let start = held.offset() / GRANULE;
    locked.descriptor(start)[descriptor::FLIGHT].store(b.me().to_bits(), Relaxed);
    locked.set_holder(start, a.0.member.slot(), true);
    forget(locked);
    let dead = b.me();
    die(b, [held].into());
    assert_eq!(a.reclaim(), Ok(0));
    assert_eq!(a.settle(dead), Ok(1));
    assert_eq!(used(&a), 0);
}

#[test]
fn a_lock_that_a_living_process_keeps_is_an_error() {
    let a = pools("1048576,65536:4096");
    let b = attach(&a);
    let held = Mbuf::new(&a, MIB / 2).unwrap();
    let locked = Locked::new(&b.0, 0).unwrap();
    assert_eq!(
        Mbuf::new(&a, 5000).unwrap_err(),
        MbufError::Stalled { pool: 0 }
    );
    assert!(Mbuf::new(&a, 1000).is_ok(), "the other pool is free");
    drop(held);
    drop(locked);
    // What could not be released then is released with the next use of the pool.
    let whole = Mbuf::new(&a, MIB - GRANULE as usize).unwrap();
    drop(whole);
    assert_eq!(used(&a), 0);
}

#[test]
fn a_lock_word_that_names_no_process_is_taken_over() {
    let a = pools("1048576");
    let word = |a: &MbufPools| {
        let words = a.0.memory.words(a.0.layout.pools[0].counts);
        core::ptr::from_ref(&words[counts::LOCK])
    };
    let left = {
        let b = attach(&a);
        b.me().to_bits()
    };
    for scribble in [u64::MAX, 1, 77 << 8 | 5, left, a.me().to_bits()] {
        // SAFETY: a word of the mapping, which lives as long as `a`.
        unsafe { (*word(&a)).store(scribble, Relaxed) };
        let held = Mbuf::new(&a, 1000).unwrap();
        assert_eq!(used(&a), 2048);
        drop(held);
    }
}

#[test]
fn what_was_written_over_is_put_in_order() {
    let a = pools("1048576");
    let held: Vec<Mbuf> = (0..10).map(|_| Mbuf::new(&a, 3000).unwrap()).collect();
    let layout = &a.0.layout.pools[0];
    for (index, words) in [layout.used, layout.summaries].into_iter().enumerate() {
        for scribble in [0, u64::MAX, 0x5555_5555_5555_5555] {
            for word in a.0.memory.words(words) {
                word.store(scribble, Relaxed);
            }
            assert!(a.check().is_err() || (index, scribble) == (1, 0));
            a.repair().unwrap();
            assert_eq!(used(&a), 10 * 4096);
        }
    }
    drop(held);
    assert_eq!(used(&a), 0);
}

#[test]
fn no_two_buffers_of_a_process_overlap_whatever_the_records_say() {
    let a = pools("65536");
    let held = Mbuf::new(&a, 3000).unwrap();
    let handle = held.export().unwrap();
    let locked = Locked::new(&a.0, 0).unwrap();
    // All forgotten; and a second buffer is said to lie across the first.
    locked.set_start(0, false);
    locked.space().release(0, 64);
    let fields = locked.descriptor(1);
    fields[descriptor::GENERATION].store(handle.generation, Relaxed);
    fields[descriptor::SPAN].store(2, Relaxed);
    locked.set_start(1, true);
    drop(locked);
    let mut forged = handle;
    forged.offset = GRANULE;
    assert_eq!(
        Mbuf::open(&a, forged).unwrap_err(),
        MbufError::Damaged { pool: 0 }
    );
    let next = Mbuf::new(&a, 3000).unwrap();
    assert!(next.offset() >= 4096);
    drop((held, next));
    drop(Mbuf::new(&a, 63 * 1024).unwrap());
    assert_eq!(used(&a), 0);
}

#[test]
fn a_descriptor_that_was_written_over_is_an_error() {
    let a = pools("65536");
    let held = Mbuf::new(&a, 3000).unwrap();
    let handle = held.export().unwrap();
    let b = attach(&a);
    for (word, scribble) in [
        (descriptor::SPAN, 0),
        (descriptor::SPAN, 65),
        (descriptor::SPAN, u64::MAX),
        (descriptor::LEN, 3073),
        (descriptor::LEN, u64::MAX),
    ] {
        let locked = Locked::new(&b.0, 0).unwrap();
        let place = &locked.descriptor(0)[word];
        let before = place.swap(scribble, Relaxed);
        drop(locked);
        assert_eq!(
            Mbuf::open(&b, handle).unwrap_err(),
            MbufError::Damaged { pool: 0 }
        );
        place_back(&a, word, before);
    }
    assert_eq!(held.data().to_vec().len(), 3000);
}

/// Undoes what a test did to the first descriptor, and to its start bit in consequence.
fn place_back(a: &MbufPools, word: usize, value: u64) {
    let locked = Locked::new(&a.0, 0).unwrap();
    locked.descriptor(0)[word].store(value, Relaxed);
    locked.set_start(0, true);
    drop(locked);
    a.repair().unwrap();
}

#[test]
fn exact_sizes() {
    let a = pools("2500");
    let whole = request(&a, 2500).unwrap();
    let stats = a.pools()[0];
    assert_eq!(
        (stats.used_bytes, stats.free_bytes, stats.largest_free_span),
        (2500, 0, 0)
    );
    drop(whole);
    assert_eq!(
        request(&a, 2501).unwrap_err(),
        MbufError::Full { bytes: 2501 }
    );
    let two = request(&a, 1025).unwrap();
    assert_eq!(a.pools()[0].largest_free_span, 452);
    assert!(request(&a, 1024).is_err(), "452 bytes are left");
    drop(two);
    let smallest = pools("1024");
    assert!(Mbuf::new(&smallest, 0).unwrap().is_empty());
    assert!(Mbuf::new(&smallest, 1).is_err());
}

#[test]
fn what_is_no_set_of_pools_is_refused() {
    let refused = |fd: std::os::fd::OwnedFd| MbufPools::attach(fd).unwrap_err();
    let file = |len| crate::os::memfd::create(c"test", len).unwrap();
    for len in [0, 1024, 1 << 20] {
        let error = refused(file(len));
        let is_refused = matches!(error, MbufError::NotPools | MbufError::System { .. });
        assert!(is_refused, "{error}");
    }
    let unsealed = std::fs::File::open("/dev/zero").unwrap();
    assert_eq!(refused(unsealed.into()), MbufError::NotPools);
    let a = pools("1048576");
    let table = a.0.memory.words(a.0.layout.head);
    for (word, value) in [
        (head::MAGIC, 0),
        (head::POOLS, 0),
        (head::POOLS, 2),
        (head::POOLS, u64::MAX),
        (head::TABLE, 1023),
        (head::TABLE, 1 << 30),
        (head::TABLE, u64::MAX),
        (head::TABLE + 1, 5),
    ] {
        let before = table[word].swap(value, Relaxed);
        assert_eq!(
            refused(a.fd().try_clone_to_owned().unwrap()),
            MbufError::NotPools
        );
        table[word].store(before, Relaxed);
    }
    assert_eq!(attach(&a).spec(), a.spec());
}

#[test]
fn no_more_than_the_most_processes() {
    let a = pools("1048576");
    // Locks of others, as many as there are slots; the process can have only so many attachments.
    let locks = crate::os::memfd::ByteLocks::new(a.fd()).unwrap();
    for slot in 1..PROCESSES {
        assert_eq!(locks.try_lock(slot), Ok(slot != a.0.member.slot()));
    }
    let refused = MbufPools::attach(a.fd().try_clone_to_owned().unwrap()).unwrap_err();
    assert_eq!(refused, MbufError::TooManyProcesses);
    drop(locks);
    assert!(attach(&a).me() != a.me());
}

#[test]
fn strict_pools_pass_nothing_on() {
    let spec = PoolSpec::must_parse("1048576,8192:4096");
    let a = MbufPools::strict(&spec).unwrap();
    let b = attach(&a);
    let held: Vec<Mbuf> = (0..2).map(|_| request(&b, 4096).unwrap()).collect();
    assert_eq!(
        request(&b, 4096).unwrap_err(),
        MbufError::Full { bytes: 4096 }
    );
    let [large, small] = a.pools()[..] else {
        unreachable!()
    };
    assert_eq!(
        (small.requests, small.fall_throughs, small.failures),
        (3, 0, 1)
    );
    assert_eq!(large.requests, 0);
    assert!(request(&b, 4097).is_ok());
    drop(held);
}

#[test]
fn falls_through_are_counted() {
    let a = pools("65536,8192:2048,8192:4096");
    let held: Vec<Mbuf> = (0..40).map(|_| request(&a, 2048).unwrap()).collect();
    let at = |range: core::ops::Range<usize>| held[range].iter().map(Mbuf::pool);
    assert!(at(0..4).eq([1; 4]) && at(4..8).eq([2; 4]) && at(8..40).eq([0; 32]));
    assert_eq!(
        request(&a, 2048).unwrap_err(),
        MbufError::Full { bytes: 2048 }
    );
    let counted = a.pools();
    let counted = counted
        .iter()
        .map(|pool| [pool.requests, pool.fall_throughs, pool.failures]);
    assert!(counted.eq([[33, 0, 1], [41, 37, 0], [37, 33, 0]]));
    let refused = Mbuf::new(&pools("8192:2048,8192:4096"), 4096).unwrap_err();
    assert_eq!(
        refused,
        MbufError::NotAdmitted {
            bytes: 5120,
            limit: 4096
        }
    );
    assert_eq!(
        Mbuf::new(&a, usize::MAX).unwrap_err(),
        MbufError::Full { bytes: u64::MAX }
    );
}

#[test]
fn threads_of_one_process() {
    let a = Arc::new(pools("1048576,262144:4096"));
    let threads: Vec<_> = (0..4_usize)
        .map(|thread| {
            let a = Arc::clone(&a);
            std::thread::spawn(move || {
                let mut held = Vec::new();
                for round in 0..2000_usize {
                    let len = (round * 37 + thread * 1000) % 9000;
                    let mut mbuf = Mbuf::new(&a, len).unwrap();
                    let byte = thread as u8;
                    mbuf.exclusive().unwrap().data().fill(byte);
                    held.push((mbuf, byte));
                    if held.len() > 10 {
                        let (mbuf, byte) = held.swap_remove(round % 10);
                        assert!(mbuf.data().to_vec().iter().all(|&found| found == byte));
                    }
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(used(&a), 0);
}

#[test]
fn purging_gives_pages_back() {
    let a = pools("67108864");
    let blocks = |a: &MbufPools| {
        let file = std::fs::File::from(a.fd().try_clone_to_owned().unwrap());
        std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
    };
    let mut kept = Mbuf::new(&a, 10_000).unwrap();
    kept.exclusive().unwrap().data().fill(1);
    let mut large = Mbuf::new(&a, 32 * MIB).unwrap();
    large.exclusive().unwrap().data().fill(2);
    drop(large);
    assert!(blocks(&a) > 32 * MIB as u64);
    a.purge().unwrap();
    assert!(blocks(&a) < MIB as u64, "{}", blocks(&a));
    assert_eq!(kept.data().to_vec(), [1; 10_000]);
}
