//! Sharing, handing over, and what gives a buffer back.

use super::{MIB, attach, pools, request, used};
use crate::mbuf::layout::{GRANULE, PROCESSES};
use crate::mbuf::{Mbuf, MbufError, MbufHandle, MbufPools};
use crate::pool::PoolSpec;
use std::sync::Arc;
use std::vec::Vec;

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
    // The same for anybody, before and after it is opened.
    let mut forged = handle;
    forged.to = 0;
    let stale = MbufError::Stale { handle: forged };
    assert_eq!(Mbuf::open(&c, forged).unwrap_err(), stale);
    assert_eq!(Mbuf::open(&b, forged).unwrap_err(), stale);
    let mut second = Mbuf::open(&b, handle).unwrap();
    assert_eq!(Mbuf::open(&c, forged).unwrap_err(), stale);
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

#[test]
fn detaching_gives_back_what_was_never_opened() {
    let a = pools("1048576");
    let b = attach(&a);
    Mbuf::new(&a, 100).unwrap().export_to(b.me()).unwrap();
    assert_eq!(used(&a), 2048);
    drop(b);
    assert_eq!(used(&a), 0);
}
