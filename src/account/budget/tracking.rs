//! Who held how much of a budget, and the most of it at once.

use super::error::Bytes;
use super::{Budget, BudgetError, Claim, Holder, Reclaim};
use crate::account::consumer::Consumer;
use crate::account::registry::internally;
use core::cmp::Reverse;
use core::fmt;
use std::boxed::Box;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::vec::Vec;

/// A budget around another: the other decides, this one keeps current and peak bytes by consumer
/// and reservation, refusals, and a number of finished consumers.
///
/// ```
/// use bursar::{Budget, Consumer, Greedy, Tracking};
/// use std::sync::Arc;
///
/// let tracking = Arc::new(Tracking::new(Arc::new(Greedy::new(1000))));
/// let budget: Arc<dyn Budget> = tracking.clone();
/// let sort = Consumer::new("sort").register(&budget);
/// sort.try_grow(800)?;
/// sort.shrink(700);
/// println!("{}", tracking.report());
///
/// let largest = &tracking.report().consumers[0];
/// assert_eq!((largest.declared_bytes, largest.peak_declared_bytes), (100, 800));
/// drop(sort);
/// assert_eq!(tracking.report().finished[0].peak_declared_bytes, 800);
/// # Ok::<(), bursar::BudgetError>(())
/// ```
#[derive(Debug)]
pub struct Tracking {
    inner: Arc<dyn Budget>,
    keep: usize,
    tracks: Mutex<Tracks>,
}

#[derive(Debug, Default)]
struct Tracks {
    declared: u64,
    peak_declared: u64,
    open: HashMap<u64, Track>,
    finished: VecDeque<Tracked>,
    forgotten: u64,
}

/// A consumer that is registered, or whose claims still hold something.
#[derive(Debug)]
struct Track {
    consumer: Consumer,
    registrations: usize,
    bytes: Peaked,
    refusals: u64,
    reservations: BTreeMap<u64, Peaked>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peaked {
    now: u64,
    peak: u64,
}

impl Peaked {
    fn add(&mut self, bytes: u64) {
        self.now = self.now.saturating_add(bytes);
        self.peak = self.peak.max(self.now);
    }

    fn subtract(&mut self, bytes: u64) {
        self.now = self.now.saturating_sub(bytes);
    }
}

impl Tracks {
    fn track(&mut self, consumer: &Consumer) -> &mut Track {
        self.open.entry(consumer.id()).or_insert_with(|| Track {
            consumer: consumer.clone(),
            registrations: 0,
            bytes: Peaked::default(),
            refusals: 0,
            reservations: BTreeMap::new(),
        })
    }

    fn add(&mut self, claim: &Claim<'_>, bytes: u64) {
        let track = self.track(claim.consumer());
        track.bytes.add(bytes);
        track
            .reservations
            .entry(claim.reservation())
            .or_default()
            .add(bytes);
        self.declared = self.declared.saturating_add(bytes);
        self.peak_declared = self.peak_declared.max(self.declared);
    }

    fn subtract(&mut self, claim: &Claim<'_>, bytes: u64) {
        let track = self.track(claim.consumer());
        track.bytes.subtract(bytes);
        if let Some(of_reservation) = track.reservations.get_mut(&claim.reservation()) {
            of_reservation.subtract(bytes);
        }
        self.declared = self.declared.saturating_sub(bytes);
    }

    fn note_refusal(&mut self, consumer: &Consumer) {
        if let Some(track) = self.open.get_mut(&consumer.id()) {
            track.refusals += 1;
        }
    }

    fn finish(&mut self, finished: Tracked, keep: usize) {
        self.finished.push_front(finished);
        while self.finished.len() > keep {
            self.finished.pop_back();
            self.forgotten += 1;
        }
    }
}

impl Track {
    /// With real bytes of now: call it without a lock.
    fn tracked(&self) -> Tracked {
        let usage = self.consumer.usage();
        let reservation = |(&id, bytes): (&u64, &Peaked)| TrackedReservation {
            reservation_id: id,
            declared_bytes: bytes.now,
            peak_declared_bytes: bytes.peak,
        };
        Tracked {
            name: self.consumer.name().into(),
            consumer_id: self.consumer.id(),
            can_spill: self.consumer.can_spill(),
            declared_bytes: self.bytes.now,
            peak_declared_bytes: self.bytes.peak,
            real_bytes: usage.live_bytes,
            peak_real_bytes: usage.peak_bytes,
            refusals: self.refusals,
            reservations: self.reservations.iter().map(reservation).collect(),
        }
    }

    fn copy(&self) -> Track {
        Track {
            consumer: self.consumer.clone(),
            reservations: self.reservations.clone(),
            ..*self
        }
    }
}

impl Tracking {
    /// Around `inner`, keeping the last 100 consumers that finished.
    pub fn new(inner: Arc<dyn Budget>) -> Tracking {
        Tracking {
            inner,
            keep: 100,
            tracks: Mutex::new(Tracks::default()),
        }
    }

    /// How many finished consumers are kept.
    #[must_use]
    pub fn keeping(mut self, finished: usize) -> Tracking {
        self.keep = finished;
        self
    }

    /// The budget that decides.
    pub fn inner(&self) -> &Arc<dyn Budget> {
        &self.inner
    }

    fn with<T>(&self, work: impl FnOnce(&mut Tracks) -> T) -> T {
        internally(|| work(&mut self.tracks.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Notes that something of a consumer's has ended, and moves it to the finished ones if it has
    /// neither registrations nor bytes.
    fn leave(&self, consumer: &Consumer, end: impl FnOnce(&mut Track)) {
        let over = self.with(|tracks| {
            let track = tracks.open.get_mut(&consumer.id())?;
            end(track);
            let is_over = track.registrations == 0 && track.bytes.now == 0;
            is_over
                .then(|| tracks.open.remove(&consumer.id()))
                .flatten()
        });
        if let Some(track) = over {
            let finished = internally(|| track.tracked());
            self.with(|tracks| tracks.finish(finished, self.keep));
        }
    }

    /// All registered consumers, the largest first, and those that finished. Its `Display` is a
    /// table.
    ///
    /// Declared bytes are of one moment, and those of the consumers sum to the whole; real bytes
    /// are read after that.
    pub fn report(&self) -> TrackingReport {
        let (tracks, finished, forgotten, declared, peak) = self.with(|tracks| {
            (
                tracks.open.values().map(Track::copy).collect::<Vec<_>>(),
                tracks.finished.iter().cloned().collect(),
                tracks.forgotten,
                tracks.declared,
                tracks.peak_declared,
            )
        });
        let mut consumers: Vec<Tracked> = tracks.iter().map(Track::tracked).collect();
        consumers.sort_by_key(|consumer| (Reverse(consumer.declared_bytes), consumer.consumer_id));
        TrackingReport {
            budget: self.inner.name().into(),
            limit: self.inner.limit(),
            declared_bytes: declared,
            peak_declared_bytes: peak,
            consumers,
            finished,
            forgotten,
        }
    }

    /// The `count` consumers that declare most, as a table.
    pub fn top(&self, count: usize) -> TrackingReport {
        let mut report = self.report();
        report.consumers.truncate(count);
        report.finished.clear();
        report
    }
}

impl Budget for Tracking {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn reserved(&self) -> u64 {
        self.inner.reserved()
    }

    fn limit(&self) -> Option<u64> {
        self.inner.limit()
    }

    fn register(&self, consumer: &Consumer) {
        self.inner.register(consumer);
        self.with(|tracks| tracks.track(consumer).registrations += 1);
    }

    fn unregister(&self, consumer: &Consumer) {
        self.leave(consumer, |track| {
            track.registrations = track.registrations.saturating_sub(1);
        });
        self.inner.unregister(consumer);
    }

    // Its own sums are never above those of the inner budget: added to after it, subtracted from
    // before.

    fn grow(&self, claim: &Claim<'_>, bytes: u64) {
        self.inner.grow(claim, bytes);
        self.with(|tracks| tracks.add(claim, bytes));
    }

    fn try_grow(&self, claim: &Claim<'_>, bytes: u64) -> Result<(), BudgetError> {
        let admitted = self.inner.try_grow(claim, bytes);
        self.with(|tracks| match &admitted {
            Ok(()) => tracks.add(claim, bytes),
            Err(_) => tracks.note_refusal(claim.consumer()),
        });
        admitted
    }

    fn shrink(&self, claim: &Claim<'_>, bytes: u64) {
        self.with(|tracks| tracks.subtract(claim, bytes));
        self.inner.shrink(claim, bytes);
    }

    fn split(&self, from: &Claim<'_>, to: &Claim<'_>, bytes: u64) {
        self.with(|tracks| {
            let reservations = &mut tracks.track(from.consumer()).reservations;
            reservations
                .entry(from.reservation())
                .or_default()
                .subtract(bytes);
            reservations.entry(to.reservation()).or_default().add(bytes);
        });
        self.inner.split(from, to, bytes);
    }

    fn close(&self, claim: &Claim<'_>) {
        self.leave(claim.consumer(), |track| {
            track.reservations.remove(&claim.reservation());
        });
        self.inner.close(claim);
    }

    fn largest(&self, count: usize) -> Vec<Holder> {
        self.inner.largest(count)
    }

    fn add_reclaim(&self, consumer: &Consumer, reclaim: Weak<dyn Reclaim>) {
        self.inner.add_reclaim(consumer, reclaim);
    }
}

/// What [`Tracking`] saw; bytes throughout.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TrackingReport {
    /// The name of the budget.
    pub budget: Box<str>,
    /// What it admits in all.
    pub limit: Option<u64>,
    /// Declared by all.
    pub declared_bytes: u64,
    /// The most that was declared at once.
    pub peak_declared_bytes: u64,
    /// Consumers with reservations, the largest first.
    pub consumers: Vec<Tracked>,
    /// Those that have none any more, the last to finish first. Their bytes are those of the end.
    pub finished: Vec<Tracked>,
    /// Those that finished and are not kept any more.
    pub forgotten: u64,
}

/// What one consumer has and had of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Tracked {
    /// Its name.
    pub name: Box<str>,
    /// Its id.
    pub consumer_id: u64,
    /// Whether it can free memory when it is asked to.
    pub can_spill: bool,
    /// What its reservations declare.
    pub declared_bytes: u64,
    /// The most they declared at once.
    pub peak_declared_bytes: u64,
    /// What it really holds.
    pub real_bytes: u64,
    /// The most it really held at once: [`Usage::peak_bytes`](crate::Usage::peak_bytes).
    pub peak_real_bytes: u64,
    /// Requests that were refused.
    pub refusals: u64,
    /// Its reservations that have grown and are not gone.
    pub reservations: Vec<TrackedReservation>,
}

/// What one reservation has and had of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TrackedReservation {
    /// Its number among those of its consumer.
    pub reservation_id: u64,
    /// What it declares.
    pub declared_bytes: u64,
    /// The most it declared at once.
    pub peak_declared_bytes: u64,
}

impl fmt::Display for TrackingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} budget: {}", self.budget, Bytes(self.declared_bytes))?;
        if let Some(limit) = self.limit {
            write!(f, " of {}", Bytes(limit))?;
        }
        writeln!(f, " declared, at most {}", Bytes(self.peak_declared_bytes))?;
        writeln!(
            f,
            "{:>14} {:>14} {:>14} {:>14} {:>8}  consumer, bytes",
            "declared", "peak", "real", "peak", "refused"
        )?;
        for consumer in &self.consumers {
            writeln!(f, "{consumer}")?;
        }
        for consumer in &self.finished {
            writeln!(f, "{consumer}, finished")?;
        }
        if self.forgotten > 0 {
            writeln!(f, "and {} that finished before", self.forgotten)?;
        }
        Ok(())
    }
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>14} {:>14} {:>14} {:>14} {:>8}  {} (id {})",
            self.declared_bytes,
            self.peak_declared_bytes,
            self.real_bytes,
            self.peak_real_bytes,
            self.refusals,
            self.name,
            self.consumer_id
        )
    }
}
