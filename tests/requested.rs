//! Bytes that were asked for, beside those that blocks occupy. A test binary of its own, since the
//! feature is.

#![cfg(feature = "requested")]

use bursar::{Bursar, Consumer, transfer};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

#[test]
fn what_was_asked_for_follows_the_block() {
    let (one, other) = (Consumer::new("one"), Consumer::new("other"));
    let requested = |consumer: &Consumer| consumer.usage().requested_bytes;
    let mut kept = Vec::new();
    let mut sum = 0;
    for size in [1, 7, 100, 1000, 5000, 100_000, 300_001, 3_000_001] {
        kept.push(one.run(|| Vec::<u8>::with_capacity(size)));
        sum += size as u64;
        assert_eq!(requested(&one), sum);
        assert!(one.usage().live_bytes >= sum);
    }
    // Growth in the scope of another, in place and moved.
    for block in &mut kept {
        let more = block.capacity() + 3;
        other.run(|| block.reserve_exact(more));
    }
    sum = kept.iter().map(|block| block.capacity() as u64).sum();
    assert_eq!((requested(&one), requested(&other)), (sum, 0));
    for block in &mut kept {
        block.shrink_to(block.capacity() / 2);
    }
    sum = kept.iter().map(|block| block.capacity() as u64).sum();
    assert_eq!(requested(&one), sum);
    // Handed over, and freed by another thread.
    for block in &kept {
        transfer(block, &other).expect("bursar is installed");
    }
    assert_eq!((requested(&one), requested(&other)), (0, sum));
    std::thread::spawn(move || drop(kept))
        .join()
        .expect("it frees");
    assert_eq!(requested(&other), 0);
    let zeroed = one.run(|| vec![0_u64; 1000]);
    assert_eq!(requested(&one), 8000);
    drop(zeroed);
    assert_eq!(requested(&one), 0);
}
