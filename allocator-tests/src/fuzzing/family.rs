//! Sequences of calls of the C interface, beside a shadow of its blocks.
//!
//! The functions are those that the linker finds: where this runs for bursar,
//! the crate of `libbursar.so` is linked in, and serves all of the process.

use std::hint::black_box;
use std::ptr::{null, null_mut};
use std::thread;

use arbitrary::Arbitrary;
use libc::{c_int, c_void};

use super::heap::{Align, Size};
use super::{Found, holds, same};
use crate::pattern::{Pattern, verify_zero};

/// What every block is aligned to.
const ALIGN: usize = 16;
const PAGE: usize = 4096;
/// What `errno` is before each call.
const UNTOUCHED: c_int = 0;
const MOST_BYTES: usize = 48 << 20;

macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        /// The compiler knows these names, and leaves calls out.
        unsafe fn $name($($argument: $type),*) $(-> $result)? {
            unsafe extern "C" {
                fn $name($($argument: $type),*) $(-> $result)?;
            }
            let function = $name as unsafe extern "C" fn($($type),*) $(-> $result)?;
            // SAFETY: the caller's promise.
            unsafe { black_box(function)($($argument),*) }
        }
    )*};
}

functions! {
    malloc(size: usize) -> *mut c_void;
    calloc(count: usize, size: usize) -> *mut c_void;
    realloc(block: *mut c_void, size: usize) -> *mut c_void;
    reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void;
    free(block: *mut c_void);
    memalign(align: usize, size: usize) -> *mut c_void;
    aligned_alloc(align: usize, size: usize) -> *mut c_void;
    posix_memalign(place: *mut *mut c_void, align: usize, size: usize) -> c_int;
    valloc(size: usize) -> *mut c_void;
    pvalloc(size: usize) -> *mut c_void;
    malloc_usable_size(block: *mut c_void) -> usize;
    malloc_trim(pad: usize) -> c_int;
}

/// One call. Blocks are taken modulo how many there are.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Call {
    /// `malloc`
    Malloc(Size),
    /// `malloc`, so many times
    MallocMany(Size, u8),
    /// `malloc(0)`, `calloc(0, n)`, and the like
    Nothing(u8),
    /// `calloc`
    Calloc(u8, Size),
    /// `realloc`
    Realloc(u16, Size),
    /// `realloc` of null
    ReallocNull(Size),
    /// `realloc` to nothing, which frees
    ReallocToNothing(u16),
    /// `reallocarray`
    ReallocArray(u16, u8, Size),
    /// `free`
    Free(u16),
    /// `free`, so many times
    FreeMany(u16, u8),
    /// `free(NULL)`
    FreeNull,
    /// `aligned_alloc`, `memalign` or `posix_memalign`
    Aligned(u8, Align, Size),
    /// The same at what is no alignment.
    Misaligned(u8, u16, Size),
    /// `valloc` or `pvalloc`
    Pages(bool, Size),
    /// `malloc_usable_size`
    UsableSize(u16),
    /// What nobody can have: of which function, and how.
    Impossible(u8, u8, u16),
    /// `malloc_trim`
    Trim,
    /// The calls so far were one thread's, which ends.
    Exit,
    /// All blocks are looked at.
    Verify,
}

/// A block, filled over all that may be used of it.
struct Block {
    start: *mut c_void,
    usable: usize,
    pattern: Pattern,
}

// SAFETY: a block is owned memory, and the C interface lets any thread free it.
unsafe impl Send for Block {}

impl Block {
    fn verify(&self, at: *const c_void, kept: usize) -> Found {
        // SAFETY: the block is alive and was filled.
        let found = unsafe { self.pattern.verify(at.cast(), self.usable, kept) };
        found.map_err(|mismatch| format!("{:?}+{} {mismatch}", self.start, self.usable))
    }
}

fn set_errno(value: c_int) {
    // SAFETY: every thread has its errno.
    unsafe { *libc::__errno_location() = value };
}

fn errno_is(expected: c_int) -> Found {
    // SAFETY: as above.
    same("errno", unsafe { *libc::__errno_location() }, expected)
}

/// All blocks of a sequence.
#[derive(Default)]
struct Heap {
    blocks: Vec<Block>,
    bytes: usize,
    next: u64,
}

impl Heap {
    /// Takes a block on, which must be there, aligned, and as large as asked.
    fn accept(&mut self, start: *mut c_void, size: usize, align: usize) -> Found {
        errno_is(UNTOUCHED)?;
        holds(!start.is_null(), || format!("null for {size} bytes"))?;
        holds(start.addr().is_multiple_of(align), || {
            format!("{start:?} is no multiple of {align}")
        })?;
        // SAFETY: the block was given out just now.
        let usable = unsafe { malloc_usable_size(start) };
        holds(usable >= size, || format!("{usable} bytes for {size}"))?;
        self.next += 1;
        let pattern = Pattern::new(start.cast(), self.next);
        // SAFETY: as many bytes as may be used.
        unsafe { pattern.fill(start.cast(), usable) };
        self.bytes += usable;
        self.blocks.push(Block {
            start,
            usable,
            pattern,
        });
        Ok(())
    }

    fn take(&mut self, pick: u16) -> Option<Block> {
        let place = usize::from(pick).checked_rem(self.blocks.len())?;
        let block = self.blocks.swap_remove(place);
        self.bytes -= block.usable;
        Some(block)
    }

    fn free(&mut self, pick: u16) -> Found {
        let Some(block) = self.take(pick) else {
            return Ok(());
        };
        block.verify(block.start, block.usable)?;
        set_errno(libc::EDOM);
        // SAFETY: the block is alive, and nobody else's.
        unsafe { free(block.start) };
        errno_is(libc::EDOM)
    }

    /// What a block became that was to have `size` bytes.
    fn resized(&mut self, old: &Block, new: *mut c_void, size: usize) -> Found {
        holds(!new.is_null(), || format!("null for {size} bytes"))?;
        old.verify(new, old.usable.min(size))?;
        self.accept(new, size, ALIGN)
    }

    fn zeroed(&mut self, start: *mut c_void, size: usize) -> Found {
        if !start.is_null() {
            // SAFETY: the block was given out for that many bytes.
            let found = unsafe { verify_zero(start.cast(), size) };
            found.map_err(|mismatch| format!("of calloc {mismatch}"))?;
        }
        self.accept(start, size, ALIGN)
    }

    fn nothing(&mut self, kind: u8) -> Found {
        // SAFETY: no block is handed in.
        let start = unsafe {
            match kind % 6 {
                0 => malloc(0),
                1 => calloc(0, usize::from(kind)),
                2 => calloc(usize::MAX, 0),
                3 => realloc(null_mut(), 0),
                4 => reallocarray(null_mut(), usize::from(kind), 0),
                _ => memalign(ALIGN, 0),
            }
        };
        self.accept(start, 0, ALIGN)
    }

    fn aligned(&mut self, kind: u8, align: usize, size: usize) -> Found {
        let mut place = null_mut();
        // SAFETY: `place` may be written.
        let (start, align) = unsafe {
            match kind % 3 {
                0 => (aligned_alloc(align, size), align),
                1 => (memalign(align, size), align),
                _ => {
                    let align = align.max(8);
                    same("an error", posix_memalign(&mut place, align, size), 0)?;
                    (place, align)
                }
            }
        };
        self.accept(start, size, align.max(ALIGN))
    }

    /// Alignments that are no power of two, or less than that of a pointer.
    fn misaligned(&mut self, kind: u8, align: usize, size: usize) -> Found {
        if align.is_power_of_two() {
            return Ok(());
        }
        let untouched = std::ptr::without_provenance_mut(7);
        let mut place = untouched;
        // SAFETY: `place` may be written.
        unsafe {
            match kind % 3 {
                0 => refused(aligned_alloc(align, size), libc::EINVAL),
                1 => {
                    let align = align.next_power_of_two();
                    let start = memalign(align - usize::from(align > 2), size);
                    self.accept(start, size, align)
                }
                _ => {
                    let align = if align > 64 { align } else { align % 8 };
                    let error = posix_memalign(&mut place, align, size);
                    same("an error", error, libc::EINVAL)?;
                    same("what was to be written", place, untouched)
                }
            }
        }
    }

    /// Sizes that overflow, or are larger than anything.
    fn impossible(&mut self, kind: u8, how: u8, pick: u16) -> Found {
        const SIZES: [usize; 6] = [
            usize::MAX,
            usize::MAX - 15,
            isize::MAX as usize,
            isize::MAX as usize + 1,
            1 << 62,
            1 << 47,
        ];
        const FACTORS: [(usize, usize); 4] = [
            (usize::MAX, 2),
            (1 << 32, 1 << 32),
            (3, usize::MAX / 3 + 1),
            (usize::MAX, usize::MAX),
        ];
        let size = SIZES[usize::from(how) % SIZES.len()];
        let (count, each) = FACTORS[usize::from(how) % FACTORS.len()];
        let align = 1 << (how % 24);
        let victim = usize::from(pick)
            .checked_rem(self.blocks.len())
            .map(|place| &self.blocks[place]);
        let start = victim.map_or(null_mut(), |block| block.start);
        let mut place = null_mut();
        // SAFETY: blocks that are alive; what is refused leaves them as they are.
        unsafe {
            match kind % 9 {
                0 => refused(malloc(size), libc::ENOMEM)?,
                1 => refused(calloc(count, each), libc::ENOMEM)?,
                2 => refused(calloc(1, size), libc::ENOMEM)?,
                3 => refused(realloc(start, size), libc::ENOMEM)?,
                4 => refused(reallocarray(start, count, each), libc::ENOMEM)?,
                5 => refused(memalign(align, size), libc::ENOMEM)?,
                6 => refused(aligned_alloc(align, size), libc::ENOMEM)?,
                7 => refused(
                    if how > 127 {
                        valloc(size)
                    } else {
                        pvalloc(size)
                    },
                    libc::ENOMEM,
                )?,
                _ => {
                    let error = posix_memalign(&mut place, align.max(8), size);
                    same("an error", error, libc::ENOMEM)?;
                    holds(place.is_null(), || "it was written".to_owned())?;
                }
            }
        }
        victim.map_or(Ok(()), |block| block.verify(block.start, block.usable))
    }

    fn call(&mut self, call: Call) -> Found {
        let allocates = !matches!(call, Call::Free(_) | Call::FreeMany(..));
        if allocates && self.bytes > MOST_BYTES {
            return self.free(0);
        }
        set_errno(UNTOUCHED);
        // SAFETY: blocks are alive when they are handed in, and struck off the books before.
        unsafe {
            match call {
                Call::Malloc(Size(size)) => self.accept(malloc(size), size, ALIGN),
                Call::MallocMany(Size(size), count) => (0..count)
                    .take_while(|_| size < PAGE)
                    .try_for_each(|_| self.accept(malloc(size), size, ALIGN)),
                Call::Nothing(kind) => self.nothing(kind),
                Call::Calloc(count, Size(size)) => {
                    let count = usize::from(count) % (1 + (1 << 20) / size) + 1;
                    self.zeroed(calloc(count, size), count * size)
                }
                Call::Realloc(pick, Size(size)) => match self.take(pick) {
                    Some(old) => self.resized(&old, realloc(old.start, size), size),
                    None => Ok(()),
                },
                Call::ReallocNull(Size(size)) => {
                    self.accept(realloc(null_mut(), size), size, ALIGN)
                }
                Call::ReallocToNothing(pick) => match self.take(pick) {
                    Some(old) => {
                        old.verify(old.start, old.usable)?;
                        let left = realloc(old.start, 0);
                        holds(left.is_null(), || format!("{left:?} for nothing"))
                    }
                    None => Ok(()),
                },
                Call::ReallocArray(pick, count, Size(size)) => match self.take(pick) {
                    Some(old) => {
                        let count = usize::from(count) % (1 + (1 << 20) / size) + 1;
                        let new = reallocarray(old.start, count, size);
                        self.resized(&old, new, count * size)
                    }
                    None => Ok(()),
                },
                Call::Free(pick) => self.free(pick),
                Call::FreeMany(pick, count) => (0..count).try_for_each(|_| self.free(pick)),
                Call::FreeNull => {
                    free(null_mut());
                    same("usable bytes", malloc_usable_size(null_mut()), 0)?;
                    errno_is(UNTOUCHED)
                }
                Call::Aligned(kind, align, Size(size)) => self.aligned(kind, align.bytes(), size),
                Call::Misaligned(kind, align, Size(size)) => {
                    self.misaligned(kind, align.into(), size)
                }
                Call::Pages(false, Size(size)) => self.accept(valloc(size), size, PAGE),
                Call::Pages(true, Size(size)) => {
                    let start = pvalloc(size);
                    self.accept(start, size.next_multiple_of(PAGE), PAGE)
                }
                Call::UsableSize(pick) => {
                    let place = usize::from(pick).checked_rem(self.blocks.len());
                    place.map_or(Ok(()), |place| {
                        let block = &self.blocks[place];
                        let usable = malloc_usable_size(block.start);
                        same("usable bytes", usable, block.usable)
                    })
                }
                Call::Impossible(kind, how, pick) => self.impossible(kind, how, pick),
                Call::Trim => {
                    malloc_trim(0);
                    Ok(())
                }
                Call::Verify => self
                    .blocks
                    .iter()
                    .try_for_each(|block| block.verify(block.start, block.usable)),
                Call::Exit => Ok(()),
            }
        }
    }
}

/// The answer is null, for that reason.
fn refused(start: *mut c_void, error: c_int) -> Found {
    same("what cannot be had", start.cast_const(), null())?;
    errno_is(error)
}

/// Makes all calls, each thread's in its turn, and frees everything.
///
/// # Errors
/// The first difference between what should be and what is.
pub fn run(calls: &[Call]) -> Found {
    let mut heap = Heap::default();
    for life in calls.chunk_by(|one, _| !matches!(one, Call::Exit)) {
        let take = |heap: &mut Heap| {
            life.iter().try_for_each(|&call| {
                let found = heap.call(call);
                found.map_err(|what| format!("{call:?}: {what}"))
            })
        };
        // The last thread is the caller's.
        match life.last() {
            Some(Call::Exit) => {
                let ended = thread::scope(|scope| scope.spawn(|| take(&mut heap)).join());
                ended.map_err(|_| "a panic".to_owned())??;
            }
            _ => take(&mut heap)?,
        }
    }
    while !heap.blocks.is_empty() {
        heap.free(0)?;
    }
    Ok(())
}
