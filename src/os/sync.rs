//! Atomics, cells, shared pointers and locks: those of `core` and `std`, or loom's when the
//! concurrent structures are model-checked.

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::{Arc, Mutex};

#[cfg(all(not(loom), feature = "accounts"))]
pub(crate) use cell::UnsafeCell;
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize,
    Ordering, fence,
};
#[cfg(all(not(loom), feature = "accounts"))]
pub(crate) use std::sync::{Arc, Mutex};

#[cfg(all(not(loom), feature = "accounts"))]
mod cell {
    /// `core`'s cell with loom's interface.
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(core::cell::UnsafeCell::new(value))
        }

        /// Calls `work` with a pointer to the value. Whoever writes through it must be alone.
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
            work(self.0.get())
        }
    }
}
