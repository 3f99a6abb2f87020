//! A reader that runs while the threads are at work.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use bursar::Usage;

use super::{Field, Found, Owner, holds, locked, same};

/// Reads all the while. What it reads is bounded: a figure is one that was true
/// at a moment of the call, give or take what was allocated during the call.
pub(super) fn watch(field: &Arc<Field>) {
    let lasting = field
        .cast
        .lasting()
        .map(|consumer| (consumer.usage(), consumer));
    let mut seen = Seen::default();
    // Once at least, also if the thread comes late.
    while !field.over.load(Ordering::Relaxed) || field.snapshots.load(Ordering::Relaxed) == 0 {
        if field.judging.load(Ordering::Relaxed) {
            // A lock that is taken again at once is hardly ever had by who waits for it.
            thread::sleep(Duration::from_micros(100));
            continue;
        }
        let _gaze = locked(&field.gaze);
        if field.has_failed() {
            break;
        }
        field.noting(|| {
            field
                .cast
                .handles()
                .iter()
                .try_for_each(|one| seen.read(field, Some(one.id()), || one.usage()))?;
            seen.read(field, None, bursar::unattributed)?;
            seen.read_all(field)?;
            lasting.iter().try_for_each(|(before, consumer)| {
                same(
                    "a consumer to whom nothing happens",
                    consumer.usage(),
                    *before,
                )
            })
        });
        field.snapshots.fetch_add(1, Ordering::Relaxed);
    }
}

/// Allocated and freed bytes as they were read last.
#[derive(Default)]
struct Seen {
    totals: HashMap<Owner, [u64; 2]>,
}

impl Seen {
    /// Three readings of one owner: totals only grow, and what is alive is at
    /// most what was alive in the whole run at a time, and what was allocated
    /// between the readings before and after.
    fn read(&mut self, field: &Field, owner: Owner, read: impl Fn() -> Usage) -> Found {
        let [before, usage, after] = [0; 3].map(|_| read());
        let most = field.most_alive.load(Ordering::SeqCst);
        let meanwhile = after.allocated_bytes - before.allocated_bytes;
        for usage in [&before, &usage, &after] {
            self.grows(owner, usage)?;
        }
        holds(
            || format!("{usage:?} of {owner:?}: {most} and {meanwhile} at most"),
            usage.live_bytes <= most + meanwhile,
        )
    }

    fn grows(&mut self, owner: Owner, usage: &Usage) -> Found {
        let now = [usage.allocated_bytes, usage.freed_bytes];
        let before = self.totals.insert(owner, now).unwrap_or_default();
        holds(
            || format!("totals of {owner:?} went from {before:?} to {now:?}"),
            now[0] >= before[0] && now[1] >= before[1],
        )?;
        holds(
            || format!("{owner:?}: {usage:?} does not add up"),
            usage.allocated_bytes - usage.freed_bytes == usage.live_bytes
                && usage.allocated_blocks - usage.freed_blocks == usage.live_blocks
                && usage.live_bytes <= usage.peak_bytes
                && usage.live_bytes <= usage.subtree_live_bytes
                && usage.subtree_live_bytes <= usage.subtree_peak_bytes,
        )
    }

    /// A snapshot of all: the parts are the whole, and the whole is bounded.
    fn read_all(&mut self, field: &Field) -> Found {
        // What is on its way has been counted as alive already.
        let before = field.allocated();
        let all = bursar::consumers();
        let meanwhile = field.allocated() - before;
        let most = field.most_alive.load(Ordering::SeqCst);
        let parts: u64 = all.iter().map(|consumer| consumer.usage.live_bytes).sum();
        let whole = parts + all.unattributed().live_bytes;
        holds(
            || format!("the parts are {whole}, the whole is {}", all.heap_bytes()),
            whole == all.heap_bytes(),
        )?;
        holds(
            || format!("{whole} bytes at once, {most} and {meanwhile} at most"),
            whole <= most + meanwhile,
        )?;
        self.grows(None, all.unattributed())?;
        let mut last = None;
        for consumer in &all {
            holds(
                || format!("{} after {last:?}", consumer.id),
                last < Some(consumer.id),
            )?;
            last = Some(consumer.id);
            self.grows(Some(consumer.id), &consumer.usage)?;
        }
        Ok(())
    }
}
