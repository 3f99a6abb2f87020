//! skeleton
use std::alloc::{GlobalAlloc, Layout, System};
/// The allocator.
pub struct Bursar(());
impl Bursar { /// The allocator with its default settings.
 pub const fn new() -> Self { Bursar(()) } }
// SAFETY: forwards.
unsafe impl GlobalAlloc for Bursar {
 // SAFETY: forwards.
 unsafe fn alloc(&self, l: Layout) -> *mut u8 { unsafe { System.alloc(l) } }
 // SAFETY: forwards.
 unsafe fn dealloc(&self, p: *mut u8, l: Layout) { unsafe { System.dealloc(p, l) } }
}
