//! Handing allocations over to another consumer.

use super::consumer::Consumer;
use crate::arena::owner;
use crate::extent::large;
use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use std::boxed::Box;
use std::rc::Rc;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// A value that stands for one allocation of the global allocator.
///
/// # Safety
/// If [`charged`](Charged::charged) returns a pointer and a layout, the block there was allocated
/// by the global allocator with exactly this layout, is alive as long as the value is borrowed,
/// and is not freed or moved meanwhile by another thread.
pub unsafe trait Charged {
    /// The allocation; `None` if the value has none (an empty `Vec`, a `Box` of a type without
    /// size).
    fn charged(&self) -> Option<(NonNull<u8>, Layout)>;
}

fn block<T: ?Sized>(start: *const T, layout: Layout) -> Option<(NonNull<u8>, Layout)> {
    let start = NonNull::new(start.cast::<u8>().cast_mut())?;
    (layout.size() != 0).then_some((start, layout))
}

// SAFETY: a box that is not empty is one allocation with its value's layout.
unsafe impl<T: ?Sized> Charged for Box<T> {
    fn charged(&self) -> Option<(NonNull<u8>, Layout)> {
        block(&raw const **self, Layout::for_value::<T>(self))
    }
}

// SAFETY: a vector's buffer is one allocation for an array of its capacity.
unsafe impl<T> Charged for Vec<T> {
    fn charged(&self) -> Option<(NonNull<u8>, Layout)> {
        block(self.as_ptr(), Layout::array::<T>(self.capacity()).ok()?)
    }
}

// SAFETY: a string is a vector of bytes.
unsafe impl Charged for String {
    fn charged(&self) -> Option<(NonNull<u8>, Layout)> {
        block(self.as_ptr(), Layout::array::<u8>(self.capacity()).ok()?)
    }
}

/// The head of the allocation that a reference-counted pointer shares: two counts, then the value.
fn counted<T: ?Sized>(value: &T) -> Option<(NonNull<u8>, Layout)> {
    let counts = Layout::new::<[usize; 2]>();
    let (layout, offset) = counts.extend(Layout::for_value(value)).ok()?;
    let start = core::ptr::from_ref(value).cast::<u8>().wrapping_sub(offset);
    block(start, layout.pad_to_align())
}

// SAFETY: `Arc` allocates two counts followed by the value, as one C structure; tests compare the
// layout with what the allocator was asked for.
unsafe impl<T: ?Sized> Charged for Arc<T> {
    fn charged(&self) -> Option<(NonNull<u8>, Layout)> {
        counted(&**self)
    }
}

// SAFETY: as for `Arc`.
unsafe impl<T: ?Sized> Charged for Rc<T> {
    fn charged(&self) -> Option<(NonNull<u8>, Layout)> {
        counted(&**self)
    }
}

/// Why an allocation could not be handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TransferError {
    /// It does not come from bursar, which then is not this program's global allocator.
    Foreign,
    /// There is no memory for the book or the tags that are needed.
    NoMemory,
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransferError::Foreign => "the allocation does not come from bursar",
            TransferError::NoMemory => "no memory for the books of a hand-over",
        })
    }
}

impl core::error::Error for TransferError {}

/// Charges one allocation to another consumer from now on. The bytes that moved, 0 if the value has
/// no allocation.
///
/// O(1) for blocks of more than 256 KiB. The first time for a smaller one, its run gets a tag for
/// each of its slots (4 bytes each, at most 64 KiB); from then on frees in that run take the slow
/// path, some 10 ns more. A hard limit of the receiver does not stop it.
///
/// # Errors
/// If the allocation is not bursar's, or there is no memory for the books; nothing has changed
/// then.
///
/// ```
/// let (reader, sort) = (bursar::Consumer::new("reader"), bursar::Consumer::new("sort"));
/// let rows = reader.run(|| vec![0u64; 1000]);
/// let _ = bursar::transfer(&rows, &sort);
/// ```
pub fn transfer<T: Charged + ?Sized>(allocation: &T, to: &Consumer) -> Result<u64, TransferError> {
    match allocation.charged() {
        // SAFETY: the promise of `Charged`.
        Some((block, layout)) => unsafe { transfer_block(block, layout, to) },
        None => Ok(0),
    }
}

/// [`transfer`] for a pointer and a layout.
///
/// # Errors
/// As there.
///
/// # Safety
/// The block was allocated by the global allocator with this layout, and nobody frees or
/// reallocates it meanwhile.
pub unsafe fn transfer_block(
    block: NonNull<u8>,
    layout: Layout,
    to: &Consumer,
) -> Result<u64, TransferError> {
    let block = block.as_ptr();
    if !owner::is_ours(block) {
        return Err(TransferError::Foreign);
    }
    // SAFETY: the caller's promise; the block is bursar's.
    if unsafe { owner::retag(block, layout, to.account().tag()) } {
        Ok(large::block_size(layout) as u64)
    } else {
        Err(TransferError::NoMemory)
    }
}

/// A value that can hand over all allocations that it owns.
///
/// Types of one's own implement it by handing over their fields. Maps of the standard library do
/// not, since where their tables lie is nobody else's to know.
pub trait Transfer {
    /// Hands everything over. The bytes that moved.
    ///
    /// # Errors
    /// At the first allocation that cannot be handed over; those before it are.
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError>;
}

/// Charges all allocations of a value to another consumer.
///
/// # Errors
/// At the first allocation that cannot be handed over; those before it are.
pub fn transfer_all<T: Transfer + ?Sized>(
    value: &mut T,
    to: &Consumer,
) -> Result<u64, TransferError> {
    value.transfer_to(to)
}

macro_rules! without_allocations {
    ($($type:ty)*) => {$(
        impl Transfer for $type {
            fn transfer_to(&mut self, _to: &Consumer) -> Result<u64, TransferError> {
                Ok(0)
            }
        }
    )*};
}

without_allocations!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char);

impl Transfer for String {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        transfer(self, to)
    }
}

impl<T: Transfer> Transfer for [T] {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        self.iter_mut()
            .try_fold(0, |sum, item| Ok(sum + item.transfer_to(to)?))
    }
}

impl<T: Transfer> Transfer for Vec<T> {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        Ok(transfer(self, to)? + self.as_mut_slice().transfer_to(to)?)
    }
}

impl<T: Transfer + ?Sized> Transfer for Box<T> {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        Ok(transfer(self, to)? + (**self).transfer_to(to)?)
    }
}

impl<T: Transfer, const N: usize> Transfer for [T; N] {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        self.as_mut_slice().transfer_to(to)
    }
}

impl<T: Transfer> Transfer for Option<T> {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        self.as_mut().map_or(Ok(0), |value| value.transfer_to(to))
    }
}

impl<A: Transfer, B: Transfer> Transfer for (A, B) {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        Ok(self.0.transfer_to(to)? + self.1.transfer_to(to)?)
    }
}

impl<A: Transfer, B: Transfer, C: Transfer> Transfer for (A, B, C) {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        Ok(self.0.transfer_to(to)? + self.1.transfer_to(to)? + self.2.transfer_to(to)?)
    }
}
