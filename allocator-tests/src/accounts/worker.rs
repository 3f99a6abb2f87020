//! The threads of a run.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use bursar::Scope;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::desk::{Desk, Piece};
use super::{Field, Found, Owner, locked, same};

/// Operations between looks at the mail and at the clock.
const BATCH: u64 = 64;
/// The most scopes that a thread is in: more than fit without a record.
const DEEPEST: usize = 24;

/// What is left of a slot's work.
struct Turn {
    rounds: u64,
    quota: u64,
}

/// Keeps a slot of the run at work: thread after thread.
pub(super) fn keep(field: &Arc<Field>, slot: usize, rounds: u64) {
    let quota = field.plan.round / field.plan.threads as u64;
    let mut turn = Turn { rounds, quota };
    while turn.rounds > 0 {
        let field = Arc::clone(field);
        let life = thread::spawn(move || {
            live(&field, slot, &mut turn);
            turn
        });
        // Returns when the thread's thread-locals are gone, too.
        turn = life.join().expect("a thread notes its panics");
    }
}

/// One thread's life, through any number of rounds.
fn live(field: &Arc<Field>, slot: usize, turn: &mut Turn) {
    let life = field.lives.fetch_add(1, Ordering::Relaxed);
    let mut worker = Worker::new(field, slot, life);
    let most = field.plan.life;
    let mut steps = worker.rng.random_range(most / 4..=most + most / 2);
    while steps > 0 {
        if turn.quota == 0 {
            field.pause();
            turn.rounds -= 1;
            turn.quota = field.plan.round / field.plan.threads as u64;
            if turn.rounds == 0 {
                break;
            }
        }
        let batch = BATCH.min(turn.quota);
        turn.quota -= batch;
        steps = steps.saturating_sub(batch);
        if !field.has_failed() {
            field.noting(|| worker.batch(batch));
        }
    }
    worker.exit();
}

/// A scope that the thread is in; none if its guard was forgotten.
struct Entry {
    owner: u64,
    scope: Option<Scope>,
}

struct Worker<'f> {
    field: &'f Arc<Field>,
    slot: usize,
    rng: SmallRng,
    scopes: Vec<Entry>,
    /// Of a thousand operations, those that enter or leave a scope.
    restless: u32,
    /// Of a thousand allocations, those in a scope of their own.
    aside: u32,
    /// Blocks that the thread tends towards.
    target: usize,
}

impl<'f> Worker<'f> {
    fn new(field: &'f Arc<Field>, slot: usize, life: u64) -> Self {
        let seed = field.plan.seed ^ life.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut rng = SmallRng::seed_from_u64(seed);
        let restless = [0, 2, 20, 200][rng.random_range(0..4)];
        let aside = [0, 10, 300, 1000][rng.random_range(0..4)];
        Self {
            field,
            slot,
            rng,
            scopes: Vec::new(),
            restless,
            aside,
            target: 0,
        }
    }

    /// Whose scope the thread is in.
    fn current(&self) -> Owner {
        self.scopes.last().map(|entry| entry.owner)
    }

    fn batch(&mut self, operations: u64) -> Found {
        let field = self.field;
        let mut desk = locked(&field.desks[self.slot]);
        desk.receive(std::mem::take(&mut *locked(&field.mailboxes[self.slot])));
        self.target = match self.rng.random_range(0..40) {
            0 => self.rng.random_range(0..=field.plan.blocks),
            _ => self.target,
        };
        if self.restless > 0 && self.scopes.is_empty() {
            self.enter();
        }
        for _ in 0..operations {
            self.step(&mut desk)?;
        }
        let current = bursar::current().map(|consumer| consumer.id());
        same("the consumer whose scope it is", current, self.current())?;
        self.hand_over(&mut desk);
        if self.rng.random_range(0..8) == 0 {
            field.cast.renew(&mut self.rng);
        }
        if self.rng.random_range(0..4) == 0 {
            field.cast.reserve(&mut self.rng);
        }
        Ok(())
    }

    fn step(&mut self, desk: &mut Desk) -> Found {
        let field = self.field;
        if self.rng.random_range(0..1000) < self.restless {
            self.move_scope();
        }
        let live = desk.pieces().len();
        let pick = self.rng.random_range(0..live.max(1));
        if desk.size() > field.plan.bytes {
            return desk.free(field, pick);
        }
        let growing = if live < self.target { 60 } else { 25 };
        match self.rng.random_range(0..100) {
            draw if draw < growing => self.allocate(desk),
            _ if live == 0 => Ok(()),
            90..95 => {
                let size = field.plan.mix.size(&mut self.rng);
                desk.reallocate(field, pick, size)
            }
            95.. => {
                let transfer = |to: &_| desk.transfer(field, pick, to);
                field
                    .cast
                    .with_any(&mut self.rng, transfer)
                    .unwrap_or(Ok(()))
            }
            _ => desk.free(field, pick),
        }
    }

    fn allocate(&mut self, desk: &mut Desk) -> Found {
        let field = self.field;
        let layout = field.plan.mix.layout(&mut self.rng);
        let zeroed = self.rng.random_range(0..4) == 0;
        if self.rng.random_range(0..1000) >= self.aside {
            return desk.allocate(field, layout, zeroed, self.current());
        }
        let Some((owner, scope)) = field.cast.enter_any(&mut self.rng) else {
            return Ok(());
        };
        let made = desk.allocate(field, layout, zeroed, Some(owner));
        drop(scope);
        made
    }

    fn enter(&mut self) {
        let entered = self.field.cast.enter_any(&mut self.rng);
        let entered = entered.map(|(owner, scope)| Entry {
            owner,
            scope: Some(scope),
        });
        self.scopes.extend(entered);
    }

    /// Enters a scope, leaves the innermost or any other, or forgets one.
    fn move_scope(&mut self) {
        let depth = self.scopes.len();
        let pick = self.rng.random_range(0..depth.max(1));
        match self.rng.random_range(0..20) {
            _ if depth == 0 => self.enter(),
            0..9 if depth < DEEPEST => self.enter(),
            0..14 => self.leave(depth - 1),
            14..19 => self.leave(pick),
            _ => std::mem::forget(self.scopes[pick].scope.take()),
        }
    }

    /// Leaves a scope, unless it was forgotten.
    fn leave(&mut self, place: usize) {
        if self.scopes[place].scope.is_some() {
            self.scopes.remove(place);
        }
    }

    /// Gives some blocks to another thread.
    fn hand_over(&mut self, desk: &mut Desk) {
        let count = self.rng.random_range(0..=16).min(desk.pieces().len());
        let to = self.rng.random_range(0..self.field.plan.threads);
        let mut mailbox = locked(&self.field.mailboxes[to]);
        for _ in 0..count {
            let pick = self.rng.random_range(0..desk.pieces().len());
            mailbox.push(desk.take(pick));
        }
    }

    /// Ends the thread's life: out of its scopes, in them, or leaving the rest
    /// to its thread-locals.
    fn exit(mut self) {
        match self.rng.random_range(0..4) {
            0 => while self.scopes.pop().is_some() {},
            1 => std::mem::forget(self.scopes),
            2 => self.scopes.drain(..).for_each(drop),
            _ => {
                let mut desk = locked(&self.field.desks[self.slot]);
                let count = desk.pieces().len().min(200);
                let pieces = (0..count).map(|_| desk.take(0)).collect();
                let late = Late {
                    field: Arc::clone(self.field),
                    slot: self.slot,
                    pieces,
                    scopes: self.scopes,
                };
                LATE.with(|place| *place.borrow_mut() = Some(late));
            }
        }
    }
}

/// What a thread's end frees and leaves.
struct Late {
    field: Arc<Field>,
    slot: usize,
    pieces: Vec<Piece>,
    scopes: Vec<Entry>,
}

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

impl Drop for Late {
    fn drop(&mut self) {
        let field = Arc::clone(&self.field);
        field.noting(|| {
            let layout = std::alloc::Layout::new::<[u64; 6]>();
            let mut desk = locked(&field.desks[self.slot]);
            let mut pieces = std::mem::take(&mut self.pieces);
            let rest = pieces.split_off(pieces.len() / 2);
            for piece in pieces {
                desk.release(&field, piece)?;
            }
            let owner = self.scopes.last().map(|entry| entry.owner);
            desk.allocate(&field, layout, false, owner)?;
            self.scopes.clear();
            rest.into_iter()
                .try_for_each(|piece| desk.release(&field, piece))
        });
    }
}
