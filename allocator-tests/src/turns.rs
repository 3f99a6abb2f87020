//! Tests that share a heap and compare all that is on its books take turns.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;

static TURN: Mutex<()> = Mutex::new(());

/// Runs `work` while no other test does, on a thread of its own, which has
/// ended when the next one's turn comes: a test harness lets its threads end
/// whenever they do, and the end of a thread gives memory back.
///
/// # Panics
/// If `work` does, or if that of an earlier test did and left the heap as it
/// should not be.
pub fn alone<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let _turn = TURN
        .lock()
        .expect("an earlier test left the heap as it should not be");
    let result = thread::scope(|scope| scope.spawn(work).join());
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
