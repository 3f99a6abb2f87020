//! What a manager and the handles of its task share.

#[cfg(feature = "allocator-api2")]
use super::arena::Chunks;
use super::end::{self, EndError, EndReport, LeftReservation};
use super::handle::TaskEnded;
use super::resource::Resources;
use super::running;
use crate::account::budget::Budget;
use crate::account::consumer::Consumer;
use crate::account::registry::internally;
use crate::account::reservation::Reservation;
use crate::pool::{PoolId, bound};
use core::time::Duration;
use std::boxed::Box;
use std::string::String;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::vec::Vec;

/// A task.
pub(super) struct Task {
    /// The consumer that all others of the task are below.
    pub(super) root: Consumer,
    /// Where its memory comes from, if not from where all others' does.
    pool: Option<PoolId>,
    pub(super) began: Instant,
    pub(super) budget: Arc<dyn Budget>,
    /// What its reservations may declare.
    pub(super) limit: Option<u64>,
    /// How long the end waits for others.
    pub(super) patience: Duration,
    state: Mutex<State>,
    /// The last use has ended.
    unused: Condvar,
    pub(super) resources: Resources,
}

/// What changes while a task runs.
struct State {
    has_ended: bool,
    /// Calls by way of handles that are under way.
    uses: usize,
    members: Vec<Member>,
    reservations: Vec<Arc<Reservation>>,
    #[cfg(feature = "allocator-api2")]
    arenas: Vec<Arc<Chunks>>,
}

/// A consumer of the task.
pub(super) struct Member {
    pub(super) consumer: Consumer,
    pub(super) began: Instant,
}

impl Task {
    pub(super) fn begin(
        root: Consumer,
        pool: Option<PoolId>,
        budget: Arc<dyn Budget>,
        limit: Option<u64>,
        patience: Duration,
    ) -> Arc<Task> {
        internally(|| {
            let began = Instant::now();
            let member = Member {
                consumer: root.clone(),
                began,
            };
            let task = Arc::new(Task {
                root,
                pool,
                began,
                budget,
                limit,
                patience,
                state: Mutex::new(State {
                    has_ended: false,
                    uses: 0,
                    members: std::vec![member],
                    reservations: Vec::new(),
                    #[cfg(feature = "allocator-api2")]
                    arenas: Vec::new(),
                }),
                unused: Condvar::new(),
                resources: Resources::new(),
            });
            running::add(&task);
            task
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in there is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ended(&self) -> TaskEnded {
        TaskEnded {
            task: self.root.name().into(),
            task_id: self.root.id(),
        }
    }

    /// Begins a use, which the end of the task waits for.
    pub(super) fn begin_use(&self) -> Result<(), TaskEnded> {
        let mut state = self.state();
        if state.has_ended {
            return Err(self.ended());
        }
        state.uses += 1;
        Ok(())
    }

    pub(super) fn end_use(&self) {
        let mut state = self.state();
        state.uses -= 1;
        if state.uses == 0 {
            self.unused.notify_all();
        }
    }

    /// A consumer of the task, below `parent`.
    pub(super) fn consumer(&self, parent: &Consumer, name: String) -> Consumer {
        let consumer = parent.child(name);
        if let Some(PoolId(pool)) = self.pool {
            bound::bind(consumer.owner_tag(), Some(pool));
        }
        let member = Member {
            consumer: consumer.clone(),
            began: Instant::now(),
        };
        internally(|| self.state().members.push(member));
        consumer
    }

    /// The last borrowed handle of a consumer is gone: the task keeps it if it holds something.
    pub(super) fn leave(&self, consumer: &Consumer) {
        if consumer.usage().live_blocks == 0 {
            let mut state = self.state();
            let at = |member: &Member| member.consumer == *consumer;
            let place = state.members.iter().rposition(at);
            let left = place.map(|place| state.members.swap_remove(place));
            // A consumer's last handle is given up outside the lock.
            drop(state);
            drop(left);
        }
    }

    /// Keeps a reservation until it is [let go](Self::let_go), or the task ends.
    pub(super) fn keep(&self, reservation: Reservation) -> Arc<Reservation> {
        internally(|| {
            let reservation = Arc::new(reservation);
            self.state().reservations.push(Arc::clone(&reservation));
            reservation
        })
    }

    pub(super) fn let_go(&self, reservation: &Arc<Reservation>) {
        let mut state = self.state();
        let at = |kept: &Arc<Reservation>| Arc::ptr_eq(kept, reservation);
        let place = state.reservations.iter().rposition(at);
        let kept = place.map(|place| state.reservations.swap_remove(place));
        // Budgets are called outside the lock.
        drop(state);
        drop(kept);
    }

    /// The chunks of one more arena, which are given back at the end at the latest.
    #[cfg(feature = "allocator-api2")]
    pub(super) fn new_chunks(&self) -> Arc<Chunks> {
        internally(|| {
            let chunks = Arc::new(Chunks::default());
            self.state().arenas.push(Arc::clone(&chunks));
            chunks
        })
    }

    /// An arena is dropped.
    #[cfg(feature = "allocator-api2")]
    pub(super) fn forget_chunks(&self, chunks: &Arc<Chunks>) {
        self.state()
            .arenas
            .retain(|kept| !Arc::ptr_eq(kept, chunks));
    }

    /// How many consumers it has.
    pub(super) fn consumers(&self) -> usize {
        self.state().members.len()
    }

    /// Ends the task: no use begins any more, those under way are waited for, resources released,
    /// and memory that others are about to free is given time.
    pub(super) fn end(&self) -> Result<EndReport, EndError> {
        let in_use = self.wait_for_uses();
        let failures = self.resources.release_all();
        let reservations = self.free_reservations();
        #[cfg(feature = "allocator-api2")]
        {
            let forgotten = core::mem::take(&mut self.state().arenas);
            forgotten.iter().for_each(|chunks| chunks.release());
        }
        running::remove(self.root.id());
        let waited = end::wait_until_free(&self.root, self.patience);
        let members = core::mem::take(&mut self.state().members);
        let report = EndReport::new(self, &members, reservations, in_use, waited);
        match failures.is_empty() {
            true => Ok(report),
            false => Err(EndError {
                report: Box::new(report),
                failures,
            }),
        }
    }

    /// Lets no use begin any more, and waits for those under way. How many go on nevertheless.
    fn wait_for_uses(&self) -> usize {
        let mut state = self.state();
        state.has_ended = true;
        let waited = self
            .unused
            .wait_timeout_while(state, self.patience, |state| state.uses > 0);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.uses
    }

    /// Gives back what reservations still declare.
    fn free_reservations(&self) -> Vec<LeftReservation> {
        let kept = core::mem::take(&mut self.state().reservations);
        let left = kept.iter().map(|reservation| LeftReservation {
            consumer: reservation.consumer().name().into(),
            consumer_id: reservation.consumer().id(),
            reservation_id: reservation.id(),
            live_bytes: reservation.usage().live_bytes,
            declared_bytes: reservation.free(),
        });
        left.filter(|left| left.declared_bytes > 0 || left.live_bytes > 0)
            .collect()
    }
}
