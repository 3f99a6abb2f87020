//! Records that somebody wrote over, and a lock that nobody gives back.

use super::{MIB, attach, pools, used};
use crate::mbuf::layout::{GRANULE, counts, descriptor, head};
use crate::mbuf::locked::Locked;
use crate::mbuf::memory::Memory;
use crate::mbuf::set::write_head;
use crate::mbuf::{Mbuf, MbufError, MbufPools};
use crate::os::sync::Ordering::Relaxed;
use std::vec::Vec;

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
fn what_this_process_holds_is_not_settled() {
    let a = pools("65536");
    let held = Mbuf::new(&a, 3000).unwrap();
    let gone = attach(&a).me();
    let locked = Locked::new(&a.0, 0).unwrap();
    locked.descriptor(0)[descriptor::FLIGHT].store(gone.to_bits(), Relaxed);
    drop(locked);
    assert_eq!(a.settle(gone), Ok(0));
    assert_eq!(used(&a), 4096);
    drop(held);
    assert_eq!(used(&a), 0);
}

#[test]
fn a_file_that_is_longer_than_its_pools_is_refused() {
    let a = pools("1048576");
    let spec = a.spec();
    for (more, is_taken) in [(0, true), (1 << 16, false)] {
        let memory = Memory::new(a.0.layout.len + more).unwrap();
        write_head(memory.words(a.0.layout.head), spec, false);
        let file = memory.file().try_clone_to_owned().unwrap();
        assert_eq!(MbufPools::attach(file).is_ok(), is_taken);
    }
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
