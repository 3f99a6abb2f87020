//! A shadow of the accounts: random consumers, scopes, blocks, hand-overs and
//! threads, with books of their own beside the real ones.
//!
//! | file | what it does |
//! |---|---|
//! | `cast.rs` | the consumers of a run: a tree in which places are taken anew |
//! | `desk.rs` | the blocks of one thread, whose they are, and what was counted so far |
//! | `worker.rs` | a thread: scopes in any order, blocks, hand-overs, its exit |
//! | `judge.rs` | the comparison, to the byte and block, while all threads rest |
//! | `watch.rs` | a reader that runs all the while |
//!
//! bursar is not installed where this runs: what the run itself allocates is
//! on nobody's books, so those of what no consumer claimed can be compared too.

mod cast;
mod desk;
mod judge;
mod watch;
mod worker;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use cast::Cast;
use desk::{Desk, Piece};
use judge::Judge;

use crate::blocks::Heap;
use crate::sizes::Mix;

/// What to run.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Threads at a time.
    pub threads: usize,
    /// Operations in all.
    pub operations: u64,
    /// After so many operations all threads rest, and the books are compared.
    pub round: u64,
    /// Each thread exits after about so many operations, and is replaced.
    pub life: u64,
    /// Consumers that have a handle at a time.
    pub consumers: usize,
    /// The most blocks that a thread lets live.
    pub blocks: usize,
    /// The most bytes that a thread lets live.
    pub bytes: usize,
    /// The layouts.
    pub mix: Mix,
    /// What the run is drawn from.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            threads: 4,
            operations: 100_000,
            round: 20_000,
            life: 15_000,
            consumers: 40,
            blocks: 10_000,
            bytes: 32 << 20,
            mix: Mix::PROGRAM,
            seed: 1,
        }
    }
}

/// What was run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Operations.
    pub operations: u64,
    /// Comparisons at rest.
    pub comparisons: u64,
    /// Threads that lived.
    pub threads: u64,
    /// Consumers that were made.
    pub consumers: u64,
    /// Blocks handed over to another consumer.
    pub transfers: u64,
    /// Consumers seen without a handle and with live bytes, over all comparisons.
    pub departed: u64,
    /// Snapshots that the reader took.
    pub snapshots: u64,
}

/// Where the books and their shadow are apart.
#[derive(Debug)]
pub struct Difference(pub String);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Difference {}

type Found = Result<(), Difference>;

/// Whose a block is: a consumer's by its id, or nobody's.
type Owner = Option<u64>;

/// An error unless two figures are the same.
fn same<T: PartialEq + fmt::Debug>(what: impl fmt::Display, books: T, shadow: T) -> Found {
    if books == shadow {
        Ok(())
    } else {
        Err(Difference(format!(
            "{what}: {books:?} on the books, {shadow:?} in the shadow"
        )))
    }
}

/// An error unless something holds.
fn holds(what: impl FnOnce() -> String, truth: bool) -> Found {
    if truth {
        Ok(())
    } else {
        Err(Difference(what()))
    }
}

/// A lock whose holder may have panicked: that is reported elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the threads of a run share.
struct Field {
    heap: &'static Heap,
    plan: Plan,
    cast: Cast,
    desks: Vec<Mutex<Desk>>,
    mailboxes: Vec<Mutex<Vec<Piece>>>,
    /// All threads and the judge meet here twice a round.
    rest: Barrier,
    /// The reader holds it while it reads, the judge while it judges.
    gaze: Mutex<()>,
    /// The judge waits for that, or has it: the reader steps aside.
    judging: AtomicBool,
    over: AtomicBool,
    first: Mutex<Option<Difference>>,
    /// Bytes of the run's blocks, counted before each is made and after each is freed.
    alive: AtomicU64,
    most_alive: AtomicU64,
    /// Bytes ever allocated or handed over, counted before that happens.
    allocated: AtomicU64,
    lives: AtomicU64,
    transfers: AtomicU64,
    snapshots: AtomicU64,
}

impl Field {
    /// Runs a part of the work; what is wrong, a panic included, ends the run.
    fn noting(&self, work: impl FnOnce() -> Found) {
        let found = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(Difference(text.unwrap_or_else(|| "a panic".to_owned())))
        });
        if let Err(difference) = found {
            locked(&self.first).get_or_insert(difference);
        }
    }

    fn has_failed(&self) -> bool {
        locked(&self.first).is_some()
    }

    /// Waits until the judge has judged.
    fn pause(&self) {
        self.rest.wait();
        self.rest.wait();
    }

    fn count_alive(&self, more: u64) {
        let now = self.alive.fetch_add(more, Ordering::SeqCst) + more;
        self.most_alive.fetch_max(now, Ordering::SeqCst);
        self.allocated.fetch_add(more, Ordering::SeqCst);
    }

    fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::SeqCst)
    }

    fn count_dead(&self, less: u64) {
        self.alive.fetch_sub(less, Ordering::SeqCst);
    }
}

/// Runs the plan on `heap`, which must be bursar and not installed. At the end
/// of each round, and of the run, the books are compared with the shadow.
/// Returns with everything freed.
///
/// # Errors
/// The first difference.
///
/// # Panics
/// If a thread cannot be made.
pub fn run(
    heap: &'static Heap,
    plan: &Plan,
    mut progress: impl FnMut(&Outcome),
) -> Result<Outcome, Difference> {
    let mut judge = Judge::new();
    let field = Arc::new(Field {
        heap,
        plan: *plan,
        cast: Cast::new(plan.consumers),
        // The last is that of the consumer to whom nothing happens.
        desks: (0..=plan.threads).map(|_| Mutex::default()).collect(),
        mailboxes: (0..=plan.threads).map(|_| Mutex::default()).collect(),
        rest: Barrier::new(plan.threads + 1),
        gaze: Mutex::new(()),
        judging: AtomicBool::new(false),
        over: AtomicBool::new(false),
        first: Mutex::new(None),
        alive: AtomicU64::new(0),
        most_alive: AtomicU64::new(0),
        allocated: AtomicU64::new(0),
        lives: AtomicU64::new(0),
        transfers: AtomicU64::new(0),
        snapshots: AtomicU64::new(0),
    });
    lay_out(&field)?;
    let rounds = plan.operations.div_ceil(plan.round).max(1);
    let watcher = spawn(&field, watch::watch);
    let keepers: Vec<_> = (0..plan.threads)
        .map(|slot| spawn(&field, move |field| worker::keep(field, slot, rounds)))
        .collect();
    let mut outcome = Outcome::default();
    for round in 1..=rounds {
        field.rest.wait();
        field.judging.store(true, Ordering::Relaxed);
        field.noting(|| judge.compare(&field));
        field.judging.store(false, Ordering::Relaxed);
        outcome = judge.outcome(&field, round * plan.round);
        progress(&outcome);
        field.rest.wait();
    }
    keepers.into_iter().for_each(join);
    field.over.store(true, Ordering::Relaxed);
    join(watcher);
    field.noting(|| clear(&field, &mut judge));
    match locked(&field.first).take() {
        Some(difference) => Err(difference),
        None => Ok(outcome),
    }
}

/// Blocks of the consumer to whom nothing happens.
fn lay_out(field: &Field) -> Found {
    let mut desk = locked(&field.desks[field.plan.threads]);
    let Some(consumer) = field.cast.lasting() else {
        return Ok(());
    };
    let sizes = (1..400).map(|number| number * 8).chain([300_000, 1 << 20]);
    let layouts = sizes.map(|size| crate::blocks::layout(size, 8));
    layouts.into_iter().try_for_each(|layout| {
        let owner = Some(consumer.id());
        consumer.run(|| desk.allocate(field, layout, false, owner))
    })
}

fn spawn(field: &Arc<Field>, work: impl FnOnce(&Arc<Field>) + Send + 'static) -> JoinHandle<()> {
    let field = Arc::clone(field);
    thread::spawn(move || work(&field))
}

fn join(thread: JoinHandle<()>) {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic));
}

/// Drops all handles, compares, frees everything, and compares again.
fn clear(field: &Arc<Field>, judge: &mut Judge) -> Found {
    if field.has_failed() {
        return Ok(());
    }
    field.cast.dismiss();
    judge.compare(field)?;
    for (desk, mailbox) in field.desks.iter().zip(&field.mailboxes) {
        let mut desk = locked(desk);
        desk.receive(std::mem::take(&mut *locked(mailbox)));
        desk.clear(field)?;
    }
    judge.compare(field)?;
    // A report lets all accounts leave that can.
    let report = bursar::report();
    let left = report.consumers().iter().filter(|one| one.id != u64::MAX);
    same("consumers that are left", left.count(), 0)
}
