//! Processes that die, holding buffers or at work.

use super::{attach, die, pools, used};
use crate::mbuf::layout::{GRANULE, PROCESSES, counts, descriptor};
use crate::mbuf::locked::Locked;
use crate::mbuf::{Mbuf, MbufError};
use crate::os::sync::Ordering::Relaxed;
use core::mem::forget;
use std::vec::Vec;

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
