//! The exact count of live bytes, kept by the workload itself.
//!
//! Each thread sits on a seat and is the only one that writes there, so that
//! counting costs two plain stores and threads share no cache line. A block
//! that is freed on another thread is counted on that thread's seat: a seat's
//! balance may be negative, the sum over the seats is not.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The most threads that can be counted at once.
pub const SEATS: usize = 256;

/// What one thread has taken and given back since the process began.
#[repr(align(128))]
struct Seat {
    taken_bytes: AtomicU64,
    returned_bytes: AtomicU64,
    operations: AtomicU64,
}

impl Seat {
    const fn new() -> Self {
        Self {
            taken_bytes: AtomicU64::new(0),
            returned_bytes: AtomicU64::new(0),
            operations: AtomicU64::new(0),
        }
    }
}

static LEDGER: [Seat; SEATS] = [const { Seat::new() }; SEATS];

thread_local! {
    // Const and without a destructor: reading it never allocates.
    static SEAT: Cell<usize> = const { Cell::new(0) };
}

/// Gives the calling thread a seat. No two threads that are alive may have the
/// same one; a thread that ended leaves its seat to another.
///
/// # Panics
/// If there is no such seat.
pub fn sit(seat: usize) {
    assert!(seat < SEATS, "seat {seat} of {SEATS}");
    SEAT.set(seat);
}

/// Counts bytes taken from the allocator by the calling thread.
pub fn take(bytes: u64) {
    let seat = &LEDGER[SEAT.get()];
    bump(&seat.taken_bytes, bytes);
    bump(&seat.operations, 1);
}

/// Counts bytes given back to the allocator by the calling thread.
pub fn give_back(bytes: u64) {
    let seat = &LEDGER[SEAT.get()];
    bump(&seat.returned_bytes, bytes);
    bump(&seat.operations, 1);
}

/// Requested bytes that are alive, in all threads: exact while no thread
/// allocates or frees, else off by what happens during the reading.
pub fn live_bytes() -> u64 {
    // Returned bytes first: a block seen here as returned is then also seen as
    // taken in nearly every reading; what is left of the race saturates.
    let returned = sum(|seat| &seat.returned_bytes);
    sum(|seat| &seat.taken_bytes).saturating_sub(returned)
}

/// Allocations, frees and resizings so far, in all threads.
pub fn operations() -> u64 {
    sum(|seat| &seat.operations)
}

/// Bytes taken less bytes returned by the calling thread.
#[cfg(test)]
pub fn balance() -> i64 {
    let seat = &LEDGER[SEAT.get()];
    seat.taken_bytes.load(Relaxed) as i64 - seat.returned_bytes.load(Relaxed) as i64
}

/// The seat has one writer, so a load and a store do for an atomic add.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

fn sum(of: impl Fn(&Seat) -> &AtomicU64) -> u64 {
    LEDGER
        .iter()
        .fold(0, |sum, seat| sum.wrapping_add(of(seat).load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frees_on_another_thread_balance_in_the_sum() {
        let taker = std::thread::spawn(|| {
            sit(SEATS - 1);
            take(1000);
            balance()
        });
        assert_eq!(taker.join().unwrap(), 1000);
        let freer = std::thread::spawn(|| {
            sit(SEATS - 2);
            give_back(1000);
            balance()
        });
        assert_eq!(freer.join().unwrap(), -1000);
    }
}
