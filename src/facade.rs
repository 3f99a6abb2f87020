//! The allocator as programs install it: `GlobalAlloc` over arenas and large blocks.

use crate::arena::bins::Bin;
use crate::arena::slow::{self, Few};
use crate::arena::{fast, large, owner, requested, sites};
use crate::class::{LOOKUP_MAX, class_of_layout, looked_up_of_layout};
use crate::config::{self, AtExit, Form, Settings};
use crate::extent::fit::Zeroing;
use crate::pool::router::{self, Wanted};
use crate::pool::{Backing, PoolSpec, Router};
use crate::units::{ClassIndex, OwnerTag};
use core::alloc::{GlobalAlloc, Layout};

/// The allocator.
///
/// ```
/// #[global_allocator]
/// static GLOBAL: bursar::Bursar = bursar::Bursar::new();
///
/// fn main() {
///     let numbers: Vec<u64> = (0..1000).collect();
///     assert!(bursar::stats().allocated_bytes >= 8 * numbers.len() as u64);
/// }
/// ```
///
/// All values of this type are the same allocator: there is one to a process. Settings are taken
/// from the value whose first request comes first; those in the environment variable
/// `BURSAR_CONF` go before them.
///
/// Allocating and freeing never panic and never abort: where memory cannot be had, the result is
/// null, and [`last_failure`](crate::last_failure) says why.
#[derive(Debug)]
pub struct Bursar {
    settings: Settings,
}

impl Default for Bursar {
    fn default() -> Self {
        Bursar::new()
    }
}

impl Bursar {
    /// The allocator with its default settings.
    pub const fn new() -> Self {
        Bursar {
            settings: Settings::new(),
        }
    }

    /// Sets the decay time: how many milliseconds after it was freed memory has been given back
    /// to the system, as long as some thread allocates or the background thread runs. 500 by
    /// default. While the bytes in use go up and down, by 8 MiB or more within half of that time,
    /// memory is kept up to 9/8 of their peak of the last four times that.
    #[must_use]
    pub const fn decay_ms(mut self, millis: u64) -> Self {
        self.settings.decay_ms = millis;
        self
    }

    /// Starts the background thread with the first allocation. Off by default; see
    /// [`start_background`](crate::start_background).
    #[must_use]
    pub const fn background(mut self, on: bool) -> Self {
        self.settings.background = on;
        self
    }

    /// Asks the kernel for transparent huge pages. Off by default: on a sparse heap they cost
    /// more than they save.
    #[must_use]
    pub const fn huge_pages(mut self, on: bool) -> Self {
        self.settings.huge_pages = on;
        self
    }

    /// Fills small blocks with 0xa5 when they are allocated and with 0x5a when they are freed, so
    /// that uses of either show. Off by default; each request then takes the slow path.
    #[must_use]
    pub const fn junk(mut self, on: bool) -> Self {
        self.settings.junk = on;
        self
    }

    /// Chooses the secure profile: links between free slots are encoded with a key of each run's,
    /// slots are handed out in an order that nobody can foresee, what is freed is cleared and held
    /// back for a while, large blocks lie between guard pages, as do chunks, and a block that is
    /// freed twice or as one of another size ends the process with a message. Off by default; each
    /// request then takes the slow path.
    #[must_use]
    pub const fn secure(mut self, on: bool) -> Self {
        self.settings.secure = on;
        self
    }

    /// Prints the stats table on standard error at exit, that of pools if there are any, and the
    /// report of consumers if there were any. Off by default. The environment can have it as JSON,
    /// and in a file.
    #[must_use]
    pub const fn stats_at_exit(mut self, on: bool) -> Self {
        self.settings.at_exit = AtExit {
            form: if on { Form::Text } else { Form::None },
            file: None,
        };
        self
    }

    /// Sets how many bytes of address space a region reserves; the largest single block is a
    /// little smaller. By default as much as an address allows: 1 TiB on x86-64.
    #[must_use]
    pub const fn region_bytes(mut self, bytes: usize) -> Self {
        self.settings.region_bytes = bytes;
        self
    }

    /// The allocator with all memory from pools of a set size, `SIZE[:LIMIT](,SIZE[:LIMIT])*` as
    /// [`PoolSpec::parse`](crate::PoolSpec::parse) reads it, instead of one that grows; all other
    /// settings are the default ones. Gives way to the environment variable `BURSAR_POOLS`.
    ///
    /// ```
    /// // Requests of up to 2 MiB prefer the second pool.
    /// #[global_allocator]
    /// static GLOBAL: bursar::Bursar =
    ///     bursar::Bursar::with_pools("10737418240,2147483648:2097152").decay_ms(200);
    /// # fn main() {}
    /// ```
    ///
    /// ```compile_fail
    /// // The limit of pool 1, at byte 5, is 9000: expected 0 for none, or 1024 to 8192.
    /// #[global_allocator]
    /// static GLOBAL: bursar::Bursar = bursar::Bursar::with_pools("8192:9000");
    /// # fn main() {}
    /// ```
    ///
    /// # Panics
    /// If the text is no specification; in a `static` that is an error of the compiler, which says
    /// what is wrong.
    #[must_use]
    #[track_caller]
    pub const fn with_pools(pools: &'static str) -> Self {
        let _ = PoolSpec::must_parse(pools);
        let mut bursar = Bursar::new();
        bursar.settings.pools = Some(pools);
        bursar
    }

    /// Says what the configured pools are made of, in the order of the specification, whether it
    /// is in code or in the environment. Pools beyond the end are of ordinary memory. Where it
    /// cannot be had the process ends at its first allocation, and says why.
    #[must_use]
    pub const fn with_backings(mut self, backings: &'static [Backing<'static>]) -> Self {
        self.settings.backings = backings;
        self
    }

    /// Has a router decide which pools serve a request. By default those are the one that the
    /// owner is bound to, then the configured ones by size, or the growing one if there are none.
    #[must_use]
    pub const fn with_router(mut self, router: &'static dyn Router) -> Self {
        self.settings.router = Some(router);
        self
    }

    /// Sets how many bytes are allocated for each block whose call path is kept, on average; 0 for
    /// none. 512 KiB by default. Fewer bytes make what [`sites`](crate::sites) says more exact, and
    /// cost more: some microseconds and 384 bytes for each. Feature `sites`.
    #[cfg(feature = "sites")]
    #[must_use]
    pub const fn sample_bytes(mut self, mean: u64) -> Self {
        self.settings.sample_bytes = mean;
        self
    }

    /// Refuses what the first pool that admits it does not serve, instead of trying the next. Off
    /// by default.
    #[must_use]
    pub const fn strict_pools(mut self, on: bool) -> Self {
        self.settings.strict_pools = on;
        self
    }

    /// These settings with a text over them as if `BURSAR_CONF` had it, for tests of its parser.
    /// `told` is given the line that would be printed for each fault in it.
    ///
    /// ```
    /// let mut lines = Vec::new();
    /// let text = b"junk,decay_ms=soon";
    /// let bursar = bursar::Bursar::new().with_conf(text, |line| lines.push(line.to_owned()));
    /// assert_eq!(format!("{bursar:?}"), format!("{:?}", bursar::Bursar::new().junk(true)));
    /// assert_eq!(lines.len(), 1);
    /// ```
    #[cfg(feature = "check")]
    #[must_use]
    pub fn with_conf(self, text: &'static [u8], told: impl FnMut(&str)) -> Self {
        Bursar {
            settings: config::parsed(text, self.settings, told),
        }
    }

    // Settings in code count until the first request has been served, which is one of these three.

    /// Has these settings count.
    #[inline]
    pub(crate) fn offer(&self) {
        config::offer(&self.settings);
    }

    /// A block that the fast path does not have. Pools are chosen by what was asked for.
    #[cold]
    #[inline(never)]
    pub(crate) fn refill(&self, layout: Layout, bin: *const Bin) -> *mut u8 {
        // SAFETY: the fast path took it from the current bins just now.
        let class = unsafe { fast::class_of_bin(bin) };
        match slow::allocate_few(class) {
            Few::Taken(block) => block,
            Few::Uncharged => self.refill_charged(class, layout),
            Few::Elsewhere => self.refill_slowly(class, layout),
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_charged(&self, class: ClassIndex, layout: Layout) -> *mut u8 {
        match slow::allocate_few_charged(class) {
            Some(block) => block,
            None => self.refill_slowly(class, layout),
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_slowly(&self, class: ClassIndex, layout: Layout) -> *mut u8 {
        self.offer();
        let wanted = Wanted::new(layout);
        slow::allocate(class, &wanted)
    }

    #[cold]
    #[inline(never)]
    fn refill_zeroed(&self, class: ClassIndex, layout: Layout) -> *mut u8 {
        self.offer();
        let wanted = Wanted::new(layout);
        slow::allocate_zeroed(class, &wanted)
    }

    #[cold]
    #[inline(never)]
    fn large(&self, layout: Layout, zeroing: Zeroing) -> *mut u8 {
        self.offer();
        large::allocate(&Wanted::new(layout), zeroing)
    }
}

/// Counts what was asked for of a block that was allocated just now, and samples it.
#[inline(always)]
pub(crate) fn note_allocated(block: *mut u8, layout: Layout) {
    if requested::COUNTED && !block.is_null() {
        requested::allocated(layout.size());
    }
    sites::allocated(block, layout);
}

/// Takes a block back whose class is not looked up: apart from those whose class is, whose runs have
/// one slice each.
///
/// # Safety
/// The block is of that layout, alive, and not used any more.
#[inline]
unsafe fn deallocate_beyond(block: *mut u8, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe {
        match class_of_layout(layout) {
            Some(class) => fast::deallocate(block, class),
            None => large::deallocate(block, layout.size()),
        }
    }
}

/// Blocks of more bytes than this are cleared through the slow path, which knows what is zero.
const CLEAR_HERE_MAX: usize = LOOKUP_MAX;

// SAFETY: blocks are slots of runs or spans of their own, which overlap no other block, have the
// size and alignment of their layout, and stay until they are freed. Nothing here unwinds.
unsafe impl GlobalAlloc for Bursar {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = match class_of_layout(layout) {
            Some(class) => fast::allocate(class, |bin| self.refill(layout, bin)),
            None => self.large(layout, Zeroing::None),
        };
        note_allocated(block, layout);
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: the block is alive and of this layout.
        unsafe {
            requested::freed(block, layout);
            sites::freed(block);
            match looked_up_of_layout(layout) {
                Some(class) => fast::deallocate(block, class),
                None => deallocate_beyond(block, layout),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        let block = match class_of_layout(layout) {
            Some(class) if size <= CLEAR_HERE_MAX => {
                let block = fast::allocate(class, |bin| self.refill(layout, bin));
                if !block.is_null() {
                    // SAFETY: a new block of at least `size` bytes.
                    unsafe { block.write_bytes(0, size) };
                }
                block
            }
            Some(class) => self.refill_zeroed(class, layout),
            None => self.large(layout, Zeroing::Whole),
        };
        note_allocated(block, layout);
        block
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise: `new_size` with this alignment is a layout.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let class = class_of_layout(layout);
        // SAFETY: the caller's promise.
        let stays =
            |class| !router::is_cut(class) || unsafe { owner::admits(block, class, new_size) };
        if class.is_some() && class == class_of_layout(new) && class.is_none_or(stays) {
            // SAFETY: the caller's promise.
            unsafe { requested::changed(block, layout, layout.size(), new_size) };
            sites::resized_in_place(block, layout, new_size);
            return block;
        }
        // SAFETY: the caller's promise.
        unsafe { self.resize(block, layout, new) }
    }
}

impl Bursar {
    /// Makes a block one of another class or size; its owner and its sample stay.
    ///
    /// # Safety
    /// The block is alive and of layout `old`; both layouts have the same alignment.
    #[cold]
    #[inline(never)]
    unsafe fn resize(&self, block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
        let sampled = sites::lift(block);
        // SAFETY: the caller's promise.
        let resized = unsafe { self.resize_block(block, old, new) };
        if resized.is_null() {
            sampled.put(block, old, old);
        } else {
            sampled.put(resized, old, new);
        }
        resized
    }

    /// A block for the owner of one of `class` that is about to move: that is nearly always the
    /// current one, for which the short way allocates.
    ///
    /// # Safety
    /// The block is alive and of that class, or large if there is none.
    #[inline(always)]
    pub(crate) unsafe fn allocate_beside(
        &self,
        block: *mut u8,
        class: Option<ClassIndex>,
        tag: impl FnOnce() -> OwnerTag,
        new: Layout,
    ) -> *mut u8 {
        match (class, class_of_layout(new)) {
            // SAFETY: the caller's promise.
            (Some(old), Some(class)) if unsafe { fast::is_current_owners(block, old) } => {
                fast::allocate(class, |bin| self.refill(new, bin))
            }
            _ => owner::allocate_for(tag(), new),
        }
    }

    /// [`resize`](Self::resize) without the block's sample.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn resize_block(&self, block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
        // SAFETY: the caller's promise; the two blocks do not overlap.
        unsafe {
            if class_of_layout(old).is_none() && class_of_layout(new).is_none() {
                let resized = large::resize(block, new.size(), new.align());
                if !resized.is_null() {
                    requested::changed(resized, new, old.size(), new.size());
                    return resized;
                }
            }
            let class = class_of_layout(old);
            let moved = self.allocate_beside(block, class, || owner::tag_of(block, old), new);
            if !moved.is_null() {
                core::ptr::copy_nonoverlapping(block, moved, old.size().min(new.size()));
                requested::changed(moved, new, 0, new.size());
                self.dealloc(block, old);
            }
            moved
        }
    }
}
