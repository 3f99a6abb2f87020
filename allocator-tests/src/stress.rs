//! The stress test: many threads that allocate, free, reallocate, hand blocks
//! to each other, exit with live memory and are replaced, under the shadow.

use std::alloc::{GlobalAlloc, Layout};
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::shadow::{self, Block, Fault, Shadow};
use crate::sizes::Mix;

/// A thread's pull at the common budget of operations.
const BATCH: u64 = 256;
/// The most blocks handed to another thread at once.
const HANDED_AT_ONCE: usize = 64;

/// What to run.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Threads at a time.
    pub threads: usize,
    /// The run ends after so many operations,
    pub operations: u64,
    /// or after so long.
    pub time: Duration,
    /// After so many operations the threads are joined and the heap is
    /// compared with the shadow; then the next round begins.
    pub round: u64,
    /// Each thread exits after about so many operations, and is replaced.
    pub life: u64,
    /// The most blocks that a thread lets live.
    pub blocks: usize,
    /// The most bytes that a thread lets live.
    pub bytes: usize,
    /// The layouts.
    pub mix: Mix,
    /// Whether null is an answer (under limits, and with failing system calls).
    pub null_allowed: bool,
    /// What the run is drawn from.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            threads: 4,
            operations: 100_000,
            time: Duration::MAX,
            round: 25_000,
            life: 20_000,
            blocks: 20_000,
            bytes: 64 << 20,
            mix: Mix::PROGRAM,
            null_allowed: false,
            seed: 1,
        }
    }
}

/// What was run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Allocations, frees, reallocations and hand-overs.
    pub operations: u64,
    /// How many were answered with null.
    pub nulls: u64,
    /// Threads that lived.
    pub threads: u64,
    /// The most blocks seen live at the end of a round.
    pub peak_blocks: usize,
}

/// One step of a thread.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Allocate a block, zeroed or not.
    Allocate(Layout, bool),
    /// Free the block at this place of the shadow, modulo their number.
    Free(usize),
    /// Reallocate such a block to this many bytes.
    Reallocate(usize, usize),
}

impl Operation {
    /// Applies the step. `Ok(false)` if it was answered with null.
    ///
    /// # Errors
    /// How the contract was broken.
    pub fn apply<A: GlobalAlloc + ?Sized>(self, shadow: &mut Shadow<'_, A>) -> Result<bool, Fault> {
        match self {
            Self::Allocate(layout, zeroed) => shadow.allocate(layout, zeroed),
            _ if shadow.is_empty() => Ok(true),
            Self::Free(pick) => shadow.free(pick % shadow.len()).map(|()| true),
            Self::Reallocate(pick, size) => shadow.reallocate(pick % shadow.len(), size),
        }
    }
}

/// Draws steps that let the number of live blocks wander: up and down towards
/// a target that is drawn anew now and then, so that runs fill, empty and mix.
pub struct Generator {
    rng: SmallRng,
    mix: Mix,
    most: usize,
    target: usize,
    steps_left: u32,
}

impl Generator {
    /// A generator that lets up to `most` blocks live.
    pub fn new(seed: u64, mix: Mix, most: usize) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            mix,
            most,
            target: 0,
            steps_left: 0,
        }
    }

    /// The next step for a shadow that holds `live` blocks.
    pub fn next(&mut self, live: usize) -> Operation {
        if self.steps_left == 0 {
            self.target = self.rng.random_range(0..=self.most);
            self.steps_left = self.rng.random_range(1..=30_000);
        }
        self.steps_left -= 1;
        let growing = if live < self.target { 62 } else { 28 };
        let draw = self.rng.random_range(0..100);
        let pick = self.rng.random::<u32>() as usize;
        if draw < growing {
            Operation::Allocate(self.mix.layout(&mut self.rng), draw % 4 == 0)
        } else if draw < 90 {
            Operation::Free(pick)
        } else {
            Operation::Reallocate(pick, self.mix.size(&mut self.rng))
        }
    }
}

/// What the threads of a run share.
struct Field<'a, A: ?Sized> {
    heap: &'a A,
    plan: Plan,
    deadline: Option<Instant>,
    mailboxes: Vec<Mutex<Vec<Block>>>,
    operations: AtomicU64,
    nulls: AtomicU64,
    lives: AtomicU64,
}

/// Runs the plan on `heap`, which must be bursar or forward to it. At the end
/// of each round the heap is compared with the shadow; `books` tells from the
/// bytes of the run's blocks how many the allocator should have on its books.
/// Returns with everything freed.
///
/// # Errors
/// The first breach of contract.
pub fn run<A: GlobalAlloc + Sync + ?Sized>(
    heap: &A,
    plan: &Plan,
    books: impl Fn(u64) -> u64,
    mut progress: impl FnMut(&Outcome),
) -> Result<Outcome, Fault> {
    let field = Field {
        heap,
        plan: *plan,
        deadline: Instant::now().checked_add(plan.time),
        mailboxes: (0..plan.threads).map(|_| Mutex::default()).collect(),
        operations: AtomicU64::new(0),
        nulls: AtomicU64::new(0),
        lives: AtomicU64::new(0),
    };
    let mut outcome = Outcome::default();
    while !field.is_over(plan.operations) {
        field.round(
            plan.operations
                .min(outcome.operations.saturating_add(plan.round)),
        )?;
        outcome = field.compared(outcome, &books)?;
        progress(&outcome);
    }
    let left = field
        .mailboxes
        .into_iter()
        .flat_map(|m| m.into_inner().expect("no thread panicked"));
    Shadow::new(heap, 0, left.collect()).clear()?;
    shadow::at_rest(&[], books)?;
    Ok(outcome)
}

impl<A: GlobalAlloc + Sync + ?Sized> Field<'_, A> {
    /// Lets threads run until `quota` operations are done in all, each slot's
    /// thread replaced when it exits.
    fn round(&self, quota: u64) -> Result<(), Fault> {
        thread::scope(|scope| {
            let keepers: Vec<_> = (0..self.plan.threads)
                .map(|slot| {
                    scope.spawn(move || {
                        while !self.is_over(quota) {
                            let life = self.lives.fetch_add(1, Ordering::Relaxed);
                            joined(thread::scope(|s| {
                                s.spawn(|| self.life(slot, life, quota)).join()
                            }))?;
                        }
                        Ok(())
                    })
                })
                .collect();
            keepers
                .into_iter()
                .try_for_each(|keeper| joined(keeper.join()))
        })
    }

    fn is_over(&self, quota: u64) -> bool {
        self.operations.load(Ordering::Relaxed) >= quota
            || self
                .deadline
                .is_some_and(|deadline| Instant::now() > deadline)
    }

    /// One thread's life: takes what lies in its mailbox, works, leaves what
    /// is alive to itself or to another thread.
    fn life(&self, slot: usize, life: u64, quota: u64) -> Result<(), Fault> {
        let Plan {
            seed,
            mix,
            life: steps,
            blocks,
            ..
        } = self.plan;
        let mut rng = SmallRng::seed_from_u64(seed ^ life.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut generator = Generator::new(rng.random(), mix, blocks);
        let mut shadow = Shadow::new(self.heap, life + 1, self.letters(slot));
        let steps = rng.random_range(steps / 4..=steps + steps / 2);
        let mut done = 0;
        while done < steps && !self.is_over(quota) {
            for _ in 0..BATCH {
                self.step(&mut generator, &mut shadow)?;
            }
            done += BATCH;
            self.operations.fetch_add(BATCH, Ordering::Relaxed);
            self.hand_over(&mut rng, &mut shadow);
            self.open_mail(slot, &mut shadow)?;
        }
        let heir = rng.random_range(0..self.mailboxes.len());
        self.send(heir, shadow.into_blocks());
        Ok(())
    }

    fn step(&self, generator: &mut Generator, shadow: &mut Shadow<'_, A>) -> Result<(), Fault> {
        let mut operation = generator.next(shadow.len());
        if shadow.bytes() > self.plan.bytes {
            operation = Operation::Free(shadow.len() / 2);
        }
        if operation.apply(shadow)? {
            return Ok(());
        }
        let layout = match operation {
            Operation::Allocate(layout, _) => layout,
            Operation::Reallocate(_, size) | Operation::Free(size) => {
                Layout::from_size_align(size, 1).expect("a size that was asked for")
            }
        };
        let reason = bursar::last_failure();
        if reason.is_none() || !self.plan.null_allowed {
            return Err(Fault::Null(layout, reason));
        }
        self.nulls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn hand_over(&self, rng: &mut SmallRng, shadow: &mut Shadow<'_, A>) {
        let count = rng.random_range(0..=HANDED_AT_ONCE).min(shadow.len());
        let to = rng.random_range(0..self.mailboxes.len());
        let handed = (0..count)
            .map(|_| shadow.take(rng.random_range(0..shadow.len())))
            .collect();
        self.send(to, handed);
    }

    /// Verifies and frees every other block that came in, and keeps the rest.
    fn open_mail(&self, slot: usize, shadow: &mut Shadow<'_, A>) -> Result<(), Fault> {
        for (i, block) in self.letters(slot).into_iter().enumerate() {
            shadow.receive(block);
            if i % 2 == 0 {
                shadow.free(shadow.len() - 1)?;
            }
        }
        Ok(())
    }

    fn letters(&self, slot: usize) -> Vec<Block> {
        std::mem::take(
            &mut *self.mailboxes[slot]
                .lock()
                .expect("no thread panics with the lock"),
        )
    }

    fn send(&self, slot: usize, blocks: Vec<Block>) {
        self.mailboxes[slot]
            .lock()
            .expect("no thread panics with the lock")
            .extend(blocks);
    }

    /// Compares the heap with the shadow; all threads are joined.
    fn compared(&self, before: Outcome, books: impl Fn(u64) -> u64) -> Result<Outcome, Fault> {
        let boxes: Vec<_> = self
            .mailboxes
            .iter()
            .map(|m| m.lock().expect("no thread panicked"))
            .collect();
        let blocks = boxes.iter().flat_map(|b| b.iter());
        shadow::at_rest(blocks.clone(), books)?;
        Ok(Outcome {
            operations: self.operations.load(Ordering::Relaxed),
            nulls: self.nulls.load(Ordering::Relaxed),
            threads: self.lives.load(Ordering::Relaxed),
            peak_blocks: before.peak_blocks.max(blocks.count()),
        })
    }
}

fn joined(result: thread::Result<Result<(), Fault>>) -> Result<(), Fault> {
    result.unwrap_or_else(|panic| resume_unwind(panic))
}
