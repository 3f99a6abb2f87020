//! Admission by what the whole process really holds, and the end of queries that hold too much.
//!
//! Most of what a query allocates is declared by nobody: batches that stream by, pages that are
//! decoded, hash tables between two declarations. So the process is looked at as a whole:
//!
//! ```text
//! used = allocated + declared since that was counted
//! ```
//! Much is declared when it is allocated already, and more is never allocated: batches that share
//! buffers are declared once each. So nothing is refused for what was declared before it was counted
//! again; what is allocated late is seen when it is.
//!
//! A request is admitted while `used` with it stays within the limit, or half of it for operators
//! that can spill, which do so when they are refused. What is allocated without asking is bounded at
//! poll boundaries, by resident pages: above the limit those that are free go back to the system at
//! once, and where those in use are above limit and slack the query that holds most ends with an
//! error.

use crate::books::Query;
use crate::history::History;
use bursar::{Books, Budget, Claim, Holdings, Policy, Room};
use datafusion::common::human_readable_size;
use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counting takes some dozen microseconds: a fiftieth of the time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// How long one query may take to end before another is ended too.
const BETWEEN_ENDS: Duration = Duration::from_millis(500);

/// Who holds less than this part of the limit holds next to nothing.
const BEGINNERS: u64 = 32;

/// A budget of bytes that the process holds, declared or not.
#[derive(Debug)]
pub(crate) struct ProcessBytes {
    limit: u64,
    slack: u64,
    books: Books,
    begun: Instant,
    /// When to look next, in nanoseconds since the beginning. Whoever moves it looks.
    next_look: AtomicU64,
    /// What was allocated when it was last counted, and what was declared then.
    used: AtomicU64,
    declared_then: AtomicU64,
    /// When another query may be ended.
    next_end: AtomicU64,
    /// Somebody gives pages back.
    purging: AtomicBool,
    history: Arc<History>,
}

impl ProcessBytes {
    /// A limit, and by how much it may be passed before a query is ended.
    pub(crate) fn new(limit: u64, slack: u64, history: &Arc<History>) -> Arc<ProcessBytes> {
        let process = ProcessBytes {
            limit,
            slack,
            books: Books::new(),
            begun: Instant::now(),
            next_look: AtomicU64::new(0),
            used: AtomicU64::new(0),
            declared_then: AtomicU64::new(0),
            next_end: AtomicU64::new(0),
            purging: AtomicBool::new(false),
            history: Arc::clone(history),
        };
        process.look();
        Arc::new(process)
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_nanos() as u64
    }

    /// Whether it is this thread's turn to do what is done at most once in `pause`.
    fn is_turn(&self, next: &AtomicU64, pause: Duration) -> bool {
        let (now, due) = (self.now(), next.load(Relaxed));
        let then = now + pause.as_nanos() as u64;
        now >= due && next.compare_exchange(due, then, Relaxed, Relaxed).is_ok()
    }

    /// Counts what the process holds if that was not done lately, and acts on it. Called before
    /// requests and after polls.
    pub(crate) fn look(&self) {
        if !self.is_turn(&self.next_look, BETWEEN_LOOKS) {
            return;
        }
        let stats = self.count();
        let in_use = stats.resident_bytes.saturating_sub(stats.dirty_bytes);
        if stats.resident_bytes > self.limit && stats.dirty_bytes > 0 {
            self.purge();
        }
        if in_use > self.limit.saturating_add(self.slack) {
            self.end_largest(in_use);
        }
    }

    /// Counts what is allocated, and begins anew to add up what is declared.
    pub(crate) fn count(&self) -> bursar::Stats {
        let declared = self.reserved();
        let stats = bursar::stats();
        // Relaxed: each is a number of its own, and at most a millisecond old either way.
        self.declared_then.store(declared, Relaxed);
        self.used.store(stats.allocated_bytes, Relaxed);
        stats
    }

    fn purge(&self) {
        if !self.purging.swap(true, Relaxed) {
            bursar::purge();
            self.purging.store(false, Relaxed);
        }
    }

    /// Has the query that holds most end.
    fn end_largest(&self, in_use: u64) {
        if !self.is_turn(&self.next_end, BETWEEN_ENDS) {
            return;
        }
        let mut queries: Vec<(u64, Arc<Query>)> =
            self.history.alive().into_iter().map(held).collect();
        queries.sort_by_key(|(live, query)| (Reverse(*live), query.id()));
        let largest = queries.iter().find(|(_, query)| !query.is_refused());
        if let Some((live, query)) = largest {
            query.refuse(format!(
                "query {} holds {}, more than any other, while the process holds {} of the {} \
                 that it may hold, and {} beyond them for what nobody asks for",
                query.id(),
                human_readable_size(*live as usize),
                human_readable_size(in_use as usize),
                human_readable_size(self.limit as usize),
                human_readable_size(self.slack as usize),
            ));
        }
    }
}

fn held(query: Arc<Query>) -> (u64, Arc<Query>) {
    (query.consumer().usage().subtree_live_bytes, query)
}

impl Policy for ProcessBytes {
    fn name(&self) -> &str {
        "process-bytes"
    }

    fn limit(&self) -> Option<u64> {
        Some(self.limit)
    }

    fn books(&self) -> &Books {
        &self.books
    }

    /// Spilling takes memory itself: what is held is merged before it is written, by what operators
    /// declare as unspillable. So who can spill is told to do so at half the limit. Half of the
    /// slack is for who holds next to nothing: first batches, and the beginning of merges.
    fn room(&self, holdings: &Holdings<'_>, claim: &Claim<'_>) -> Room {
        let declared = holdings.reserved();
        let since = declared.saturating_sub(self.declared_then.load(Relaxed));
        let used = self.used.load(Relaxed).saturating_add(since);
        let own = holdings.of(claim.consumer());
        let bound = if own.declared_bytes < self.limit / BEGINNERS {
            self.limit.saturating_add(self.slack / 2)
        } else if own.can_spill {
            self.limit / 2
        } else {
            self.limit
        };
        Room::beside(used, bound)
    }
}
