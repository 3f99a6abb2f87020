//! The comparison of the books with their shadow while all threads rest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::Ordering;

use bursar::{Consumer, ConsumerSnapshot, Consumers, Usage};

use super::desk::Tally;
use super::{Field, Found, Outcome, Owner, holds, locked, same};

/// What an owner holds: blocks and bytes, and blocks by their bytes.
#[derive(Default)]
struct Held {
    blocks: u64,
    bytes: u64,
    classes: BTreeMap<u64, u64>,
}

/// The shadow as a whole.
struct Shadow {
    held: HashMap<Owner, Held>,
    tallies: HashMap<Owner, Tally>,
    unsure: HashSet<Owner>,
}

impl Shadow {
    fn of(field: &Field) -> Self {
        let mut shadow = Self {
            held: HashMap::new(),
            tallies: HashMap::new(),
            unsure: HashSet::new(),
        };
        for (desk, mailbox) in field.desks.iter().zip(&field.mailboxes) {
            let (desk, mailbox) = (locked(desk), locked(mailbox));
            for piece in desk.pieces().iter().chain(mailbox.iter()) {
                let held = shadow.held.entry(piece.owner()).or_default();
                held.blocks += 1;
                held.bytes += piece.bytes();
                *held.classes.entry(piece.bytes()).or_default() += 1;
            }
            for (&owner, tally) in &desk.tallies {
                shadow.tallies.entry(owner).or_default().add(tally);
            }
            shadow.unsure.extend(&desk.unsure);
        }
        shadow
    }

    fn bytes(&self, owner: Owner) -> u64 {
        self.held.get(&owner).map_or(0, |held| held.bytes)
    }

    /// Compares what the books say of one owner.
    fn compare(&self, owner: Owner, usage: &Usage) -> Found {
        let held = self.held.get(&owner);
        let live = held.map_or([0; 2], |held| [held.blocks, held.bytes]);
        same(
            format_args!("live blocks and bytes of {owner:?}"),
            [usage.live_blocks, usage.live_bytes],
            live,
        )?;
        let tally = self.tallies.get(&owner).copied().unwrap_or_default();
        let books = Tally {
            allocated: [usage.allocated_blocks, usage.allocated_bytes],
            freed: [usage.freed_blocks, usage.freed_bytes],
        };
        if !self.unsure.contains(&owner) {
            same(format_args!("totals of {owner:?}"), books, tally)?;
        }
        holds(
            || format!("{owner:?}: more was freed remotely than at all: {usage:?}"),
            usage.freed_remotely_blocks <= usage.freed_blocks,
        )
    }

    /// Compares a consumer's blocks by class; those larger than any are one row.
    fn compare_classes(&self, consumer: &Consumer) -> Found {
        let mut shadow: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        let held = self.held.get(&Some(consumer.id()));
        for (&bytes, &blocks) in held.iter().flat_map(|held| &held.classes) {
            // A block at a wide alignment has as many bytes as one of a class, perhaps.
            let class = if bytes > 256 << 10 { 0 } else { bytes };
            let row = shadow.entry(class).or_default();
            *row = [row[0] + blocks, row[1] + blocks * bytes];
        }
        let mut books: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
        for row in consumer.classes() {
            books.insert(row.size, [row.live_blocks, row.live_bytes]);
        }
        let wide = |rows: &BTreeMap<u64, [u64; 2]>| rows.values().map(|row| row[1]).sum::<u64>();
        same("bytes of all classes", wide(&books), wide(&shadow))?;
        // Pages are classes of their own for blocks at wide alignments: rows up
        // to the smallest of them are told apart with certainty.
        books.retain(|&size, _| size != 0 && size < 4096);
        shadow.retain(|&size, _| size != 0 && size < 4096);
        same(format_args!("classes of {}", consumer.id()), books, shadow)
    }
}

/// Compares, and remembers what must not be forgotten between.
pub(super) struct Judge {
    comparisons: u64,
    departed: u64,
    /// The most live bytes seen of each consumer, alone and with all below.
    most: HashMap<u64, [u64; 2]>,
    /// What nobody claimed before the run began.
    before: Usage,
}

impl Judge {
    /// Before anything is made.
    pub(super) fn new() -> Self {
        Self {
            comparisons: 0,
            departed: 0,
            most: HashMap::new(),
            before: bursar::unattributed(),
        }
    }

    pub(super) fn outcome(&self, field: &Field, operations: u64) -> Outcome {
        Outcome {
            operations,
            comparisons: self.comparisons,
            threads: field.lives.load(Ordering::Relaxed),
            consumers: field.cast.made(),
            transfers: field.transfers.load(Ordering::Relaxed),
            departed: self.departed,
            snapshots: field.snapshots.load(Ordering::Relaxed),
        }
    }

    /// Compares everything.
    pub(super) fn compare(&mut self, field: &Field) -> Found {
        if field.has_failed() {
            return Ok(());
        }
        // The reader has accounts in its hands.
        let _gaze = locked(&field.gaze);
        self.comparisons += 1;
        let shadow = Shadow::of(field);
        let all = bursar::consumers();
        self.compare_whole(&shadow, &all)?;
        let ids: HashSet<u64> = all.iter().map(|consumer| consumer.id).collect();
        for (owner, held) in &shadow.held {
            let listed = owner.is_none_or(|id| ids.contains(&id));
            holds(
                || format!("{owner:?} is not listed, with {} bytes alive", held.bytes),
                listed,
            )?;
        }
        let subtrees = subtrees(&shadow, field);
        let handles = field.cast.handles();
        let handled: HashSet<u64> = handles.iter().map(Consumer::id).collect();
        let above: HashSet<u64> = all.iter().filter_map(|consumer| consumer.parent).collect();
        for consumer in all.iter().filter(|consumer| consumer.id != u64::MAX) {
            let subtree = subtrees.get(&consumer.id).copied().unwrap_or(0);
            self.compare_consumer(field, &shadow, consumer, subtree)?;
            let departed = !handled.contains(&consumer.id) && !above.contains(&consumer.id);
            same(
                format_args!("whether {} has departed", consumer.id),
                consumer.departed,
                departed,
            )?;
            self.departed += u64::from(departed && consumer.usage.live_bytes > 0);
        }
        let declared = field.cast.declared();
        for handle in &handles {
            same(
                format_args!("declared bytes of {}", handle.id()),
                handle.usage().reserved_bytes,
                declared.get(&handle.id()).copied().unwrap_or(0),
            )?;
            compare_handle(&shadow, handle, &all)?;
        }
        Ok(())
    }

    /// The sums: of the snapshot, of the allocator, and of a walk over everything.
    fn compare_whole(&self, shadow: &Shadow, all: &Consumers) -> Found {
        let held: u64 = shadow.held.values().map(|held| held.bytes).sum();
        let parts: u64 = all.iter().map(|consumer| consumer.usage.live_bytes).sum();
        let nobodys = all.unattributed().live_bytes;
        same(
            "bytes of all consumers and of nobody",
            parts + nobodys,
            held,
        )?;
        same("bytes in all, as the snapshot says", all.heap_bytes(), held)?;
        same(
            "stats().allocated_bytes",
            bursar::stats().allocated_bytes,
            held,
        )?;
        match bursar::check() {
            Ok(report) => same("bytes that check() counts", report.live_bytes, held)?,
            Err(violation) => holds(|| format!("check(): {violation}"), false)?,
        }
        for mut usage in [*all.unattributed(), bursar::unattributed()] {
            usage.allocated_blocks -= self.before.allocated_blocks;
            usage.allocated_bytes -= self.before.allocated_bytes;
            usage.freed_blocks -= self.before.freed_blocks;
            usage.freed_bytes -= self.before.freed_bytes;
            usage.freed_remotely_blocks -= self.before.freed_remotely_blocks;
            shadow.compare(None, &usage)?;
        }
        // bursar is not installed: what it allocates for itself is not on the books.
        shadow.compare(Some(u64::MAX), &internal(all))
    }

    fn compare_consumer(
        &mut self,
        field: &Field,
        shadow: &Shadow,
        consumer: &ConsumerSnapshot,
        subtree: u64,
    ) -> Found {
        let (id, usage) = (consumer.id, &consumer.usage);
        shadow.compare(Some(id), usage)?;
        same(
            format_args!("the parent of {id}"),
            consumer.parent,
            field.cast.parent(id),
        )?;
        same(
            format_args!("live bytes of {id} and all below"),
            usage.subtree_live_bytes,
            subtree,
        )?;
        let most = self.most.entry(id).or_default();
        *most = [most[0].max(usage.live_bytes), most[1].max(subtree)];
        let peaks = [usage.peak_bytes, usage.subtree_peak_bytes];
        holds(
            || format!("peaks of {id} are {peaks:?}, below {most:?}"),
            peaks[0] >= most[0] && peaks[1] >= most[1],
        )
    }
}

fn internal(all: &Consumers) -> Usage {
    let found = all.iter().find(|consumer| consumer.id == u64::MAX);
    found.map(|consumer| consumer.usage).unwrap_or_default()
}

/// Live bytes of consumers and all below them.
fn subtrees(shadow: &Shadow, field: &Field) -> HashMap<u64, u64> {
    let mut sums = HashMap::new();
    for (owner, held) in &shadow.held {
        let mut next = *owner;
        while let Some(id) = next {
            *sums.entry(id).or_default() += held.bytes;
            next = field.cast.parent(id);
        }
    }
    sums
}

/// What a handle says is what the snapshot says of its consumer.
fn compare_handle(shadow: &Shadow, handle: &Consumer, all: &Consumers) -> Found {
    let listed = all.iter().find(|consumer| consumer.id == handle.id());
    let usage = handle.usage();
    same(
        format_args!("the usage of {}", handle.id()),
        Some(usage),
        listed.map(|consumer| consumer.usage),
    )?;
    same(
        format_args!("the name of {}", handle.id()),
        Some(handle.name()),
        listed.map(|consumer| &*consumer.name),
    )?;
    same(
        "whether it can spill",
        Some(handle.can_spill()),
        listed.map(|c| c.can_spill),
    )?;
    same(
        "its bytes",
        usage.live_bytes,
        shadow.bytes(Some(handle.id())),
    )?;
    shadow.compare_classes(handle)
}
