//! The threads of the workload, what they share, and their rounds.
//!
//! Between two rounds all workers and the conductor (the main thread) wait at a
//! barrier, so that what a worker finds in its mailbox, and with it the whole
//! run, does not depend on the allocator's speed.

use super::plan::{Phase, Work};
use super::shelf::Shelf;
use super::worker::Worker;
use std::sync::{Barrier, Mutex, MutexGuard};

/// What the workers share.
pub struct Crew<'a> {
    /// The work to be done.
    pub work: &'a Work,
    /// Two mailboxes a worker: one is filled in even rounds, one in odd ones,
    /// and each is emptied in the round after.
    mail: [Vec<Mutex<Shelf>>; 2],
    /// The two tables of the steady phase, which wander from worker to worker.
    hot: [Mutex<Shelf>; 2],
    barrier: Barrier,
}

impl<'a> Crew<'a> {
    /// A crew that has not begun.
    pub fn new(work: &'a Work) -> Self {
        let mailboxes = || (0..work.workers).map(|_| Mutex::default()).collect();
        Self {
            work,
            mail: [mailboxes(), mailboxes()],
            hot: Default::default(),
            barrier: Barrier::new(work.workers as usize + 1),
        }
    }

    /// Runs all phases up to the end of the workers. Calls `began` before and
    /// `ended` after each phase while all workers wait, and `advanced` after
    /// each round.
    pub fn run(
        &self,
        mut began: impl FnMut(Phase),
        mut advanced: impl FnMut(Phase),
        mut ended: impl FnMut(Phase),
    ) {
        std::thread::scope(|scope| {
            let _abort = AbortOnPanic;
            for index in 0..self.work.workers as usize {
                scope.spawn(move || self.work_through(index));
            }
            for phase in phases_of_workers() {
                began(phase);
                self.barrier.wait();
                for _ in 0..self.work.rounds(phase) {
                    self.barrier.wait();
                    advanced(phase);
                }
                ended(phase);
            }
            self.barrier.wait();
        });
    }

    /// Puts blocks into another worker's mailbox. A worker is sent blocks by
    /// one other in a round, see [`Self::neighbour`].
    pub fn send(&self, to: usize, round: u64, parcel: Shelf) {
        if !parcel.is_empty() {
            *self.mailbox(to, round) = parcel;
        }
    }

    /// Takes what was sent to a worker in the round before.
    pub fn receive(&self, worker: usize, round: u64) -> Shelf {
        std::mem::take(&mut *self.mailbox(worker, round + 1))
    }

    /// Whom a worker sends to: a different worker each round, and never the
    /// one that another worker sends to.
    pub fn neighbour(&self, worker: usize, round: u64) -> usize {
        let workers = self.work.workers;
        let step = 1 + round % (workers - 1);
        ((worker as u64 + step) % workers) as usize
    }

    /// One of the two wandering tables.
    pub fn hot(&self, table: usize) -> MutexGuard<'_, Shelf> {
        self.hot[table].lock().expect("a worker panicked")
    }

    fn mailbox(&self, worker: usize, round: u64) -> MutexGuard<'_, Shelf> {
        let boxes = &self.mail[(round % 2) as usize];
        boxes[worker].lock().expect("a worker panicked")
    }

    fn work_through(&self, index: usize) {
        // One that panics would leave the others waiting for ever.
        let _abort = AbortOnPanic;
        let mut worker = Worker::new(index, self);
        for phase in phases_of_workers() {
            self.barrier.wait();
            for round in 0..self.work.rounds(phase) {
                worker.work_round(phase, round);
                self.barrier.wait();
            }
        }
        self.barrier.wait();
    }
}

fn phases_of_workers() -> impl Iterator<Item = Phase> {
    Phase::ALL.into_iter().filter(|&phase| phase != Phase::Gone)
}

/// Ends the process when its thread unwinds; the panic's message is out by then.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_by_two_or_by_itself() {
        let work = Work {
            scale: 1.0,
            live_mib: 16,
            workers: 7,
            seed: 1,
        };
        let crew = Crew::new(&work);
        for round in 0..20 {
            let mut receivers: Vec<_> = (0..7).map(|w| crew.neighbour(w, round)).collect();
            assert!(receivers.iter().enumerate().all(|(from, &to)| from != to));
            receivers.sort_unstable();
            assert_eq!(receivers, (0..7).collect::<Vec<_>>());
        }
    }
}
