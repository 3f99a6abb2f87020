//! Pools as programs see them: handles to them, what each holds, and blocks from a chosen one.

use crate::arena::{large, life, slow};
use crate::class::class_of_layout;
use crate::extent::decay::DECAY;
use crate::extent::fit::Zeroing;
use crate::extent::survey::survey;
use crate::facade::note_allocated;
use crate::os::sync::Ordering::Relaxed;
use crate::pool::fixed::{self, Plan};
use crate::pool::router::{self, Wanted};
use crate::pool::{Backing, Pool as Record, PoolError, PoolId};
use crate::stats::Size;
use core::alloc::Layout;
use core::fmt;
use core::iter::FusedIterator;

/// A pool of memory of a set size: a range of addresses of its own, whose pages become memory only
/// when they are touched.
///
/// This is a handle; its clones are handles to the same pool. A pool whose last handle is dropped
/// serves nobody any more, and ends when the last block in it has been freed: then its memory and
/// its addresses are given up. Configured pools never end.
///
/// ```
/// let pool = bursar::Pool::new(64 << 20)?;
/// assert_eq!(pool.stats().size, 64 << 20);
/// assert_eq!(pool.stats().used_bytes, 0);
/// # Ok::<(), bursar::PoolError>(())
/// ```
pub struct Pool(&'static Record);

impl Pool {
    /// A pool of `size` bytes, which may be no multiple of anything, of ordinary memory and without
    /// a limit. Two system calls at least; no memory but a record of some hundred bytes.
    ///
    /// # Errors
    /// If the size is not from 1024 to 274877906944, or the kernel has no address space left.
    pub fn new(size: u64) -> Result<Pool, PoolError> {
        Pool::builder(size).build()
    }

    /// A pool of `size` bytes with more to say about it.
    pub const fn builder(size: u64) -> PoolBuilder<'static> {
        PoolBuilder {
            plan: Plan {
                size,
                limit: u64::MAX,
                backing: Backing::Memory,
            },
        }
    }

    /// A handle to the configured pool at `index`, from 0 in the order of the specification.
    pub fn configured(index: usize) -> Option<Pool> {
        life::with_arena(|_| ());
        let count = router::configured_count();
        fixed::fixed()
            .find(|pool| index < count && pool.id() as usize == index)
            .map(Pool::another)
    }

    fn another(record: &'static Record) -> Pool {
        record.retain();
        Pool(record)
    }

    /// Which pool it is; what a [`Router`](crate::Router) says.
    pub fn id(&self) -> PoolId {
        PoolId(self.0.id())
    }

    /// What it holds. Reads a record of 64 bytes for each 8 MiB of it that were ever used.
    pub fn stats(&self) -> PoolStats {
        PoolStats::of(self.0)
    }

    /// Has what `consumer` needs come from this pool from now on, as long as the pool serves
    /// requests; then from where it comes for others. Not for consumers below it. Runs that the
    /// consumer has already go on serving it, so that this is best done before it allocates. A
    /// consumer that is bound shares no runs with others. Where the program has a router of its
    /// own that one decides; [`ByOwner`](crate::ByOwner) is this.
    ///
    /// ```
    /// let cache = bursar::Consumer::new("cache");
    /// let pool = bursar::Pool::new(16 << 20)?;
    /// pool.bind(&cache);
    /// # Ok::<(), bursar::PoolError>(())
    /// ```
    #[cfg(feature = "accounts")]
    pub fn bind(&self, consumer: &crate::Consumer) {
        crate::pool::bound::bind(consumer.owner_tag(), Some(self.0.id()));
    }

    /// The descriptor of the file or shared memory that the pool is made of, if it is. It is the
    /// pool's: not to be closed, and not to be written to.
    pub fn raw_fd(&self) -> Option<i32> {
        self.0.object().map(|object| object.0)
    }

    /// A block from this pool and no other; null if it has no room, or its limit is below the
    /// size. It is charged to the current consumer like all others, and is freed like all others
    /// too: by [`dealloc`](core::alloc::GlobalAlloc::dealloc) of any [`Bursar`](crate::Bursar).
    ///
    /// # Safety
    /// The size of the layout is not 0, as for [`GlobalAlloc::alloc`](core::alloc::GlobalAlloc).
    pub unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout, Zeroing::None)
    }

    /// The same, filled with zeros.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout, Zeroing::Whole)
    }

    fn take(&self, layout: Layout, zeroing: Zeroing) -> *mut u8 {
        let wanted = Wanted::new(layout).only_in(self.0);
        let block = match (class_of_layout(layout), zeroing) {
            (Some(class), Zeroing::None) => slow::allocate(class, &wanted),
            (Some(class), Zeroing::Whole) => slow::allocate_zeroed(class, &wanted),
            (None, _) => large::allocate(&wanted, zeroing),
        };
        note_allocated(block, layout);
        block
    }

    /// An allocator that takes its blocks from this pool and no other.
    ///
    /// ```
    /// use allocator_api2::vec::Vec;
    ///
    /// let pool = bursar::Pool::new(1 << 30)?;
    /// let mut numbers = Vec::new_in(pool.allocator());
    /// numbers.extend(0..100_000_u64);
    /// assert!(pool.stats().used_bytes >= 800_000);
    /// drop(numbers);
    /// assert_eq!(pool.stats().used_bytes, 0);
    /// # Ok::<(), bursar::PoolError>(())
    /// ```
    #[cfg(feature = "allocator-api2")]
    pub fn allocator(&self) -> PoolAllocator {
        PoolAllocator(self.clone())
    }
}

impl Clone for Pool {
    fn clone(&self) -> Pool {
        Pool::another(self.0)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.0.let_go()
            && let Some(_held) = DECAY.try_hold()
        {
            // Otherwise whoever looks after memory next does it.
            self.0.end_if_over();
        }
    }
}

impl PartialEq for Pool {
    fn eq(&self, other: &Pool) -> bool {
        core::ptr::eq(self.0, other.0)
    }
}

impl Eq for Pool {}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

/// What a [`Pool`] is to be.
///
/// ```
/// use bursar::{Backing, Pool};
///
/// let messages = Pool::builder(1 << 30)
///     .limit(2 << 20)
///     .backing(Backing::Shared)
///     .build()?;
/// assert_eq!(messages.stats().limit, 2 << 20);
/// # Ok::<(), bursar::PoolError>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PoolBuilder<'a> {
    plan: Plan<'a>,
}

impl<'a> PoolBuilder<'a> {
    /// Sets the largest request that the pool serves, in bytes; 0 for any.
    pub const fn limit(mut self, bytes: u64) -> PoolBuilder<'a> {
        self.plan.limit = if bytes == 0 { u64::MAX } else { bytes };
        self
    }

    /// Says what the pool is made of.
    pub const fn backing<'b>(self, backing: Backing<'b>) -> PoolBuilder<'b> {
        PoolBuilder {
            plan: Plan {
                size: self.plan.size,
                limit: self.plan.limit,
                backing,
            },
        }
    }

    /// Makes the pool.
    ///
    /// # Errors
    /// If a number is out of range, or the system has no address space, no huge pages, no such
    /// file or no shared memory for it.
    pub fn build(self) -> Result<Pool, PoolError> {
        // The process may have to be set up; configured pools are made first.
        life::with_arena(|_| ());
        self.plan.verify()?;
        fixed::make(&self.plan).map(Pool)
    }
}

/// What a pool holds, in bytes, and what it was asked for. With threads at work what it was when it
/// was looked at.
///
/// ```text
/// size     = used_bytes + free_bytes
/// requests = spans acquired + fall_throughs + failures
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PoolStats {
    /// Which pool it is.
    pub id: PoolId,
    /// Bytes of the pool. Of the growing one, those of the addresses that it has reserved.
    pub size: u64,
    /// The largest request that it serves; 0 for any.
    pub limit: u64,
    /// Runs and spans that are in use.
    pub used_bytes: u64,
    /// What is left.
    pub free_bytes: u64,
    /// The longest free range.
    pub largest_free_span: u64,
    /// Runs and spans that it was asked for.
    pub requests: u64,
    /// Of those, the ones that it had no room for and the next pool was asked for.
    pub fall_throughs: u64,
    /// And those that no pool had room for, of which this one was asked last.
    pub failures: u64,
    /// What it is made of.
    pub backing: &'static str,
}

impl PoolStats {
    fn of(pool: &Record) -> PoolStats {
        let survey = survey(pool);
        let used = match pool.size() {
            Some(size) => size.saturating_sub(survey.free),
            None => pool.used_bytes(),
        };
        PoolStats {
            id: PoolId(pool.id()),
            size: pool.size().unwrap_or(used + survey.free),
            limit: Some(pool.limit())
                .filter(|&limit| limit != u64::MAX)
                .unwrap_or(0),
            used_bytes: used,
            free_bytes: survey.free,
            largest_free_span: survey.longest,
            requests: pool.counts.requests.load(Relaxed),
            fall_throughs: pool.counts.fall_throughs.load(Relaxed),
            failures: pool.counts.failures.load(Relaxed),
            backing: pool.kind().name(),
        }
    }

    /// The part of the free bytes that is of no use to a request as large as all of them: 0 where
    /// they are one range, near 1 where they are many small ones.
    pub fn external_fragmentation(&self) -> f64 {
        match self.free_bytes {
            0 => 0.0,
            free => 1.0 - self.largest_free_span as f64 / free as f64,
        }
    }
}

/// The columns of the table.
const COLUMNS: [&str; 8] = [
    "size", "limit", "used", "free", "longest", "requests", "fell on", "failed",
];

fn heading(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:>8}", "pool")?;
    COLUMNS
        .iter()
        .try_for_each(|name| write!(f, " {name:>11}"))?;
    writeln!(f, "  fragmented  backing")
}

/// A line of the table that [`Pools`] prints.
impl fmt::Display for PoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            PoolId::GROWING => write!(f, "{:>8}", "growing")?,
            PoolId(number) => write!(f, "{number:>8}")?,
        }
        write!(f, " {:>11}", Size(self.size))?;
        match self.limit {
            0 => write!(f, " {:>11}", "none")?,
            limit => write!(f, " {:>11}", Size(limit))?,
        }
        for bytes in [self.used_bytes, self.free_bytes, self.largest_free_span] {
            write!(f, " {:>11}", Size(bytes))?;
        }
        for count in [self.requests, self.fall_throughs, self.failures] {
            write!(f, " {count:>11}")?;
        }
        let percent = self.external_fragmentation() * 100.0;
        write!(f, " {percent:>9.1} %  {}", self.backing)
    }
}

/// What each pool holds: the growing one, if it is used, then the configured ones in the order of
/// the specification, then others. Prints as a table. Allocates nothing.
///
/// ```
/// for pool in bursar::pools() {
///     assert_eq!(pool.size, pool.used_bytes + pool.free_bytes);
/// }
/// print!("{}", bursar::pools());
/// ```
#[derive(Clone)]
pub struct Pools {
    left: fixed::All,
}

/// What each pool holds. The cost is that of [`Pool::stats`] for each.
pub fn pools() -> Pools {
    life::with_arena(|_| ());
    Pools { left: fixed::all() }
}

impl Iterator for Pools {
    type Item = PoolStats;

    fn next(&mut self) -> Option<PoolStats> {
        self.left
            .find(|pool| pool.is_fixed() || !pool.regions().is_empty() || !router::is_configured())
            .map(PoolStats::of)
    }
}

impl FusedIterator for Pools {}

impl fmt::Display for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        heading(f)?;
        self.clone().try_for_each(|pool| writeln!(f, "{pool}"))
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Pools {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.clone())
    }
}

/// Takes blocks from one [`Pool`] and no other, for containers that are told where to allocate.
///
/// A handle to the pool, like the pool itself: as long as one is there the pool serves requests.
/// Blocks are charged to the current consumer.
#[cfg(feature = "allocator-api2")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolAllocator(Pool);

#[cfg(feature = "allocator-api2")]
mod api {
    use super::{Layout, PoolAllocator, Zeroing};
    use allocator_api2::alloc::{AllocError, Allocator};
    use core::alloc::GlobalAlloc;
    use core::ptr::NonNull;

    impl PoolAllocator {
        /// The pool.
        pub fn pool(&self) -> &super::Pool {
            &self.0
        }

        fn take(&self, layout: Layout, zeroing: Zeroing) -> Result<NonNull<[u8]>, AllocError> {
            let block = match layout.size() {
                0 => Some(NonNull::without_provenance(
                    core::num::NonZero::new(layout.align()).ok_or(AllocError)?,
                )),
                _ => NonNull::new(self.0.take(layout, zeroing)),
            };
            let block = block.ok_or(AllocError)?;
            Ok(NonNull::slice_from_raw_parts(block, layout.size()))
        }
    }

    // SAFETY: blocks are those of the global allocator, which stay until they are freed, also when
    // the allocator is moved or dropped; clones are handles to the same pool.
    unsafe impl Allocator for PoolAllocator {
        fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            self.take(layout, Zeroing::None)
        }

        fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
            self.take(layout, Zeroing::Whole)
        }

        unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
            if layout.size() != 0 {
                // SAFETY: the caller's promise: the block is alive and of this layout. Where it is
                // from is found by its address.
                unsafe { crate::Bursar::new().dealloc(block.as_ptr(), layout) };
            }
        }
    }
}
