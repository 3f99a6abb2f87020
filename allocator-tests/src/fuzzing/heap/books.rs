//! Consumers, and what each holds.

use bursar::{Consumer, Limits, Scope, Usage};

use super::steps::Size;
use super::{Found, holds, same};

/// Consumers with a handle at a time.
const PLACES: usize = 8;
/// Scopes of a thread at a time.
const DEEPEST: usize = 16;

/// Which account, of those that were ever made.
pub(super) type Owner = Option<usize>;

/// The scopes of one thread.
#[derive(Default)]
pub(super) struct Seat {
    /// A scope that was forgotten is none, and lasts.
    scopes: Vec<(usize, Option<Scope>)>,
}

impl Seat {
    /// Whose blocks are allocated now.
    pub(super) fn owner(&self) -> Owner {
        self.scopes.last().map(|scope| scope.0)
    }

    pub(super) fn enter(&mut self, account: usize, scope: impl FnOnce() -> Scope) {
        if self.scopes.len() < DEEPEST {
            self.scopes.push((account, Some(scope())));
        }
    }

    /// Which scope is meant, counted from the innermost.
    fn place(&self, from_innermost: u8) -> Option<usize> {
        let back = usize::from(from_innermost).checked_rem(self.scopes.len())?;
        Some(self.scopes.len() - 1 - back)
    }

    pub(super) fn leave(&mut self, from_innermost: u8) {
        if let Some(place) = self.place(from_innermost)
            && self.scopes[place].1.is_some()
        {
            self.scopes.remove(place);
        }
    }

    pub(super) fn forget(&mut self, from_innermost: u8) {
        if let Some(place) = self.place(from_innermost) {
            std::mem::forget(self.scopes[place].1.take());
        }
    }
}

/// One consumer.
struct Account {
    id: u64,
    parent: Owner,
    blocks: u64,
    bytes: u64,
    /// Its bytes and those of all below it.
    below: u64,
    most: u64,
    most_below: u64,
    declared: u64,
    soft: Option<u64>,
    hard: Option<u64>,
}

/// All consumers of a sequence.
#[derive(Default)]
pub(super) struct Books {
    accounts: Vec<Account>,
    places: [Option<(usize, Consumer)>; PLACES],
    /// What is nobody's: blocks and bytes.
    unattributed: [u64; 2],
}

impl Books {
    fn place(&mut self, place: u8) -> &mut Option<(usize, Consumer)> {
        &mut self.places[usize::from(place) % PLACES]
    }

    /// The consumer in a place.
    pub(super) fn get(&self, place: u8) -> Option<(usize, &Consumer)> {
        let held = self.places[usize::from(place) % PLACES].as_ref();
        held.map(|(account, consumer)| (*account, consumer))
    }

    pub(super) fn open(&mut self, place: u8, parent: Option<u8>) -> Found {
        let parent = parent.and_then(|place| self.get(place));
        let (consumer, parent) = match parent {
            Some((account, parent)) => (parent.child("child"), Some(account)),
            None => (Consumer::new("root"), None),
        };
        let account = self.accounts.len();
        let before = self.accounts.last().map(|last| last.id);
        holds(before < Some(consumer.id()), || {
            format!("the id {} after {before:?}", consumer.id())
        })?;
        self.accounts.push(Account {
            id: consumer.id(),
            parent,
            blocks: 0,
            bytes: 0,
            below: 0,
            most: 0,
            most_below: 0,
            declared: 0,
            soft: None,
            hard: None,
        });
        *self.place(place) = Some((account, consumer));
        Ok(())
    }

    pub(super) fn close(&mut self, place: u8) {
        *self.place(place) = None;
    }

    pub(super) fn close_all(&mut self) {
        self.places = Default::default();
    }

    pub(super) fn enter(&self, place: u8, seat: &mut Seat) {
        if let Some((account, consumer)) = self.get(place) {
            seat.enter(account, || consumer.enter());
        }
    }

    /// Books a block to an owner.
    pub(super) fn allocated(&mut self, owner: Owner, bytes: u64) {
        let Some(account) = owner else {
            self.unattributed[0] += 1;
            self.unattributed[1] += bytes;
            return;
        };
        let one = &mut self.accounts[account];
        one.blocks += 1;
        one.bytes += bytes;
        one.most = one.most.max(one.bytes);
        self.above(account, |one| {
            one.below += bytes;
            one.most_below = one.most_below.max(one.below);
        });
    }

    /// Looks at an account and all above it.
    fn above(&mut self, account: usize, mut look: impl FnMut(&mut Account)) {
        let mut next = Some(account);
        while let Some(account) = next {
            let one = &mut self.accounts[account];
            look(one);
            next = one.parent;
        }
    }

    pub(super) fn freed(&mut self, owner: Owner, bytes: u64) {
        let Some(account) = owner else {
            self.unattributed[0] -= 1;
            self.unattributed[1] -= bytes;
            return;
        };
        let one = &mut self.accounts[account];
        one.blocks -= 1;
        one.bytes -= bytes;
        self.above(account, |one| one.below -= bytes);
    }

    pub(super) fn declare(&mut self, account: usize, more: u64, less: u64) {
        let declared = &mut self.accounts[account].declared;
        *declared = *declared + more - less;
    }

    pub(super) fn limit(&mut self, place: u8, soft: Option<Size>, hard: Option<Size>) {
        let Some((account, consumer)) = self.get(place) else {
            return;
        };
        let [soft, hard] = [soft, hard].map(|limit| limit.map(|size| size.0 as u64));
        let mut limits = Limits::none();
        (limits.soft, limits.hard) = (soft, hard);
        consumer.set_limits(limits);
        let one = &mut self.accounts[account];
        (one.soft, one.hard) = (soft, hard);
    }

    /// Whether a request of a consumer may be refused by a limit, and whether
    /// it must be if it is so large that it has a span of its own.
    pub(super) fn refusal(&mut self, account: usize, bytes: u64) -> (bool, bool) {
        let (mut may, mut must) = (false, false);
        self.above(account, |one| {
            may |= one.hard.is_some();
            must |= one.hard.is_some_and(|hard| one.below + bytes > hard);
        });
        (may, must)
    }

    /// How many bytes its own hard limit leaves a consumer.
    pub(super) fn left(&self, account: usize) -> Option<u64> {
        let one = &self.accounts[account];
        one.hard.map(|hard| hard.saturating_sub(one.below))
    }

    /// After a safe point there is pressure if there should be.
    pub(super) fn safe_point(&self, place: u8) -> Found {
        let Some((account, consumer)) = self.get(place) else {
            return Ok(());
        };
        consumer.safe_point();
        let one = &self.accounts[account];
        let limit = one.soft.into_iter().chain(one.hard).min();
        let pressed = limit.is_some_and(|limit| one.below > limit);
        same(
            format_args!("pressure on {}", one.id),
            consumer.is_pressed(),
            pressed,
        )
    }

    /// Compares all consumers, those without a handle too.
    pub(super) fn compare(&self) -> Found {
        let all = bursar::consumers();
        let mut seen = 0;
        for found in all.iter().filter(|found| found.id != u64::MAX) {
            let account = self.accounts.binary_search_by_key(&found.id, |one| one.id);
            let account = account.map_err(|_| format!("a consumer of no sequence: {found:?}"))?;
            let parent = self.accounts[account].parent;
            same(
                "a parent",
                found.parent,
                parent.map(|parent| self.accounts[parent].id),
            )?;
            self.compare_one(account, &found.usage)?;
            seen += found.usage.live_bytes;
        }
        let held: u64 = self.accounts.iter().map(|one| one.bytes).sum();
        same("bytes of all consumers", seen, held)?;
        for (account, consumer) in self.places.iter().flatten() {
            self.compare_one(*account, &consumer.usage())?;
        }
        let nobody = bursar::unattributed();
        same(
            "what is nobody's",
            [nobody.live_blocks, nobody.live_bytes],
            self.unattributed,
        )
    }

    fn compare_one(&self, account: usize, usage: &Usage) -> Found {
        let one = &self.accounts[account];
        same(
            format_args!("blocks, bytes, bytes below and declared of {}", one.id),
            [
                usage.live_blocks,
                usage.live_bytes,
                usage.subtree_live_bytes,
                usage.reserved_bytes,
            ],
            [one.blocks, one.bytes, one.below, one.declared],
        )?;
        holds(
            usage.peak_bytes >= one.most && usage.subtree_peak_bytes >= one.most_below,
            || {
                let most = [one.most, one.most_below];
                format!("peaks below the most that was alive, {most:?}: {usage:?}")
            },
        )
    }
}
