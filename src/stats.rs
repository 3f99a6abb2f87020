//! A snapshot of what the allocator holds, taken without allocating.

use crate::arena::ledger::Ledger;
use crate::arena::{Arena, Life, bins::Bins, life};
use crate::class::{CLASSES, TABLE};
use crate::config;
use crate::extent::descriptor::{Head, Kind};
use crate::extent::{fit, large as spans};
use crate::pool::{DEFAULT, Pool, fixed, metadata, router};
use crate::run::descriptor::Run;
use core::fmt;

/// What the allocator holds, in bytes.
///
/// Counts are read one after the other while threads go on, so between threads at work the parts
/// may be apart from each other by what happened meanwhile; with all threads at rest they are
/// exact. The totals here are sums of the parts: [`allocated_bytes`](Self::allocated_bytes) is
/// that of [`arenas`](Self::arenas) and that of [`classes`](Self::classes).
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Address space reserved for slices and their tables.
    pub reserved_bytes: u64,
    /// Address space in use or usable: what is committed, and records.
    pub mapped_bytes: u64,
    /// Slices that are readable and writable.
    pub committed_bytes: u64,
    /// An estimate, from above, of the memory that the kernel has given: pages of living runs and
    /// blocks that were or may have been touched, free slices that were not purged yet, records.
    pub resident_bytes: u64,
    /// Blocks that are alive: each counts what it occupies, [`block_size`](crate::block_size).
    pub allocated_bytes: u64,
    /// The allocator's own records, without pages that free ones have given back.
    pub metadata_bytes: u64,
    /// Given back to the system since the start.
    pub purged_bytes: u64,
    /// Free, and not given back yet.
    pub dirty_bytes: u64,
    /// Blocks that are alive.
    pub allocated_blocks: u64,
    /// Requests that the program's [router](crate::Router) made while it was asked; the default
    /// router served them.
    pub router_reentries: u64,
    arenas: List<ArenaStats, ARENAS>,
    classes: List<ClassStats, { CLASSES + 1 }>,
}

/// A list without allocation.
#[derive(Clone, Debug)]
struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
}

impl<T, const N: usize> List<T, N> {
    fn as_slice(&self) -> &[T] {
        &self.items[..self.len]
    }
}

#[cfg(feature = "serde")]
impl<T: serde::Serialize, const N: usize> serde::Serialize for List<T, N> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

/// Arenas that are listed one by one; what further ones hold is added to the last.
const ARENAS: usize = 64;

/// What was allocated through one arena, less what was freed through it.
///
/// A block that one thread allocates and another frees adds to the first arena and is taken from
/// the second, which may fall below zero; the sum over all arenas never does.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ArenaStats {
    /// Bytes.
    pub allocated_bytes: i64,
    /// Blocks.
    pub allocated_blocks: i64,
    /// A thread has the arena.
    pub in_use: bool,
}

/// Blocks of one size class that are alive.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ClassStats {
    /// Bytes of a block; 0 for the last row, which has all blocks larger than any class.
    pub size: u64,
    /// Bytes of all.
    pub allocated_bytes: u64,
    /// How many.
    pub allocated_blocks: u64,
    /// Blocks allocated since the start.
    pub requests: u64,
}

impl Stats {
    /// Each arena; at most 64, the last of which holds the sum of all further ones.
    pub fn arenas(&self) -> &[ArenaStats] {
        self.arenas.as_slice()
    }

    /// Each size class, and in the last row all larger blocks.
    pub fn classes(&self) -> &[ClassStats] {
        self.classes.as_slice()
    }

    /// Takes the snapshot.
    pub(crate) fn take() -> Stats {
        let mut parts = Parts::new();
        // Everything freed in any arena is read before anything allocated: no class falls below
        // zero.
        life::arenas().for_each(|arena| parts.add_freed(arena));
        life::arenas().for_each(|arena| parts.add_allocated(arena));
        let mut stats = Stats {
            reserved_bytes: DEFAULT.reserved_bytes() + fixed::reserved_bytes(),
            mapped_bytes: 0,
            committed_bytes: fixed::all().map(Pool::committed_bytes).sum(),
            resident_bytes: 0,
            allocated_bytes: 0,
            metadata_bytes: metadata::mapped_bytes(),
            purged_bytes: fixed::purged_bytes(),
            dirty_bytes: fixed::all().map(Pool::dirty_bytes).sum(),
            allocated_blocks: 0,
            router_reentries: router::reentries(),
            arenas: List {
                items: parts.arenas,
                len: parts.arena_count,
            },
            classes: List {
                items: parts.classes,
                len: CLASSES + 1,
            },
        };
        for class in parts.classes {
            stats.allocated_bytes += class.allocated_bytes;
            stats.allocated_blocks += class.allocated_blocks;
        }
        stats.mapped_bytes = stats.committed_bytes + stats.metadata_bytes;
        let (touched, kept) = touched_bytes();
        stats.dirty_bytes += kept;
        stats.resident_bytes = touched + stats.dirty_bytes + stats.metadata_bytes;
        stats
    }
}

/// The snapshot's parts while they are put together. Each reading is booked to its arena and to
/// its class alike, so both sums are the same whatever happens meanwhile.
struct Parts {
    arenas: [ArenaStats; ARENAS],
    arena_count: usize,
    classes: [ClassStats; CLASSES + 1],
}

impl Parts {
    fn new() -> Parts {
        let mut classes = [ClassStats::default(); CLASSES + 1];
        for (class, row) in classes.iter_mut().zip(&TABLE) {
            class.size = u64::from(row.size);
        }
        Parts {
            arenas: [ArenaStats::default(); ARENAS],
            arena_count: 0,
            classes,
        }
    }

    fn add_freed(&mut self, arena: &'static Arena) {
        for bins in all_bins(arena) {
            for (class, bin) in bins.bin.iter().enumerate() {
                let freed = bin.freed.get();
                self.book(
                    arena,
                    class,
                    freed.wrapping_neg(),
                    bytes_of(class, freed).wrapping_neg(),
                );
            }
        }
        let [blocks, bytes] = [0, 1].map(|index: usize| arena.large_freed[index].get());
        self.book(arena, CLASSES, blocks.wrapping_neg(), bytes.wrapping_neg());
    }

    fn add_allocated(&mut self, arena: &'static Arena) {
        for bins in all_bins(arena) {
            for (class, bin) in bins.bin.iter().enumerate() {
                let allocated = bin.allocated.get();
                self.classes[class].requests += allocated;
                self.book(arena, class, allocated, bytes_of(class, allocated));
            }
        }
        let [blocks, bytes] = [0, 1].map(|index: usize| arena.large_allocated[index].get());
        self.classes[CLASSES].requests += blocks;
        self.book(arena, CLASSES, blocks, bytes);
        self.arenas[place(arena)].in_use |= arena.life() == Life::Held;
    }

    fn book(&mut self, arena: &Arena, class: usize, blocks: u64, bytes: u64) {
        let place = place(arena);
        self.arena_count = self.arena_count.max(place + 1);
        let own = &mut self.arenas[place];
        own.allocated_blocks = own.allocated_blocks.wrapping_add_unsigned(blocks);
        own.allocated_bytes = own.allocated_bytes.wrapping_add_unsigned(bytes);
        let class = &mut self.classes[class];
        class.allocated_blocks = class.allocated_blocks.wrapping_add(blocks);
        class.allocated_bytes = class.allocated_bytes.wrapping_add(bytes);
    }
}

fn place(arena: &Arena) -> usize {
    arena.number().min(ARENAS - 1)
}

fn bytes_of(class: usize, blocks: u64) -> u64 {
    blocks * u64::from(TABLE[class].size)
}

fn all_bins(arena: &'static Arena) -> impl Iterator<Item = &'static Bins> {
    core::iter::once(&arena.base)
        .chain(arena.mixed())
        .chain(arena.ledgers.iter().filter_map(Ledger::bins))
}

/// Pages of runs that may be resident and large blocks whole; and spans that are kept for reuse.
fn touched_bytes() -> (u64, u64) {
    let (mut bytes, mut kept) = (0, 0);
    for pool in fixed::all() {
        pool.view(|regions| {
            for region in regions {
                fit::for_each_head(region, |head| touched_by(head, &mut bytes, &mut kept));
            }
        });
    }
    (bytes, kept)
}

fn touched_by(head: &Head, alive: &mut u64, kept: &mut u64) {
    match head.kind() {
        Kind::Run => {
            // SAFETY: the descriptor of a run; it may be changing hands, which only makes the
            // number an old one.
            *alive += unsafe { (*core::ptr::from_ref(head).cast::<Run>()).resident() as u64 };
        }
        Kind::Large => {
            // SAFETY: the descriptor of a large block.
            *alive += unsafe { spans::of(head.address()).bytes() as u64 };
        }
        // In the secure profile access to it was taken away, with all that it held.
        Kind::Kept if config::is_secure() => {}
        Kind::Kept => *kept += head.slices().bytes() as u64,
        Kind::None | Kind::Inner | Kind::Guard => {}
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bursar {}", env!("CARGO_PKG_VERSION"))?;
        let rows = [
            ("allocated", self.allocated_bytes),
            ("resident, at most", self.resident_bytes),
            ("dirty", self.dirty_bytes),
            ("metadata", self.metadata_bytes),
            ("committed", self.committed_bytes),
            ("mapped", self.mapped_bytes),
            ("reserved", self.reserved_bytes),
            ("purged so far", self.purged_bytes),
        ];
        for (name, bytes) in rows {
            writeln!(f, "  {name:<18}{:>14}", Size(bytes))?;
        }
        writeln!(f, "  {:<18}{:>14}", "blocks", self.allocated_blocks)?;
        writeln!(
            f,
            "{:>12} {:>12} {:>14} {:>16}",
            "size class", "blocks", "bytes", "requests"
        )?;
        for class in self.classes().iter().filter(|class| class.requests != 0) {
            let (blocks, bytes, requests) = (
                class.allocated_blocks,
                Size(class.allocated_bytes),
                class.requests,
            );
            match class.size {
                0 => write!(f, "{:>12}", "larger")?,
                size => write!(f, "{size:>12}")?,
            }
            writeln!(f, " {blocks:>12} {bytes:>14} {requests:>16}")?;
        }
        writeln!(f, "{:>12} {:>12} {:>14}", "arena", "blocks", "bytes")?;
        for (number, arena) in self.arenas().iter().enumerate() {
            let state = if arena.in_use { "" } else { "  no thread" };
            let (blocks, bytes) = (arena.allocated_blocks, arena.allocated_bytes);
            writeln!(f, "{number:>12} {blocks:>12} {bytes:>14}{state}")?;
        }
        Ok(())
    }
}

/// Bytes for people to read.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        let mut tenths = self.0 as u128 * 10;
        while tenths >= 10_240 && unit + 1 < UNITS.len() {
            tenths /= 1024;
            unit += 1;
        }
        let number = f.width().unwrap_or(0).saturating_sub(UNITS[unit].len() + 3);
        write!(
            f,
            "{:>number$}.{} {}",
            tenths / 10,
            tenths % 10,
            UNITS[unit]
        )
    }
}
