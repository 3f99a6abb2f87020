//! Accounts for C: consumers, scopes, budgets and reservations, figures. `bursar.h` declares them.
//!
//! Pointers that functions here return are owned by the caller, until they are given to the function
//! that drops them. Null is no value of any of these types, but where a function says so.

use crate::text;
use allocator::{Budget, Fair, Greedy, RealBytes, Unbounded};
use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;
use std::sync::Arc;

/// Somebody who is charged for memory.
pub struct Consumer(allocator::Consumer);
/// While there is one, what its thread allocates is a consumer's.
pub struct Scope(#[expect(dead_code, reason = "it is there to be dropped")] allocator::Scope);
/// Admits or refuses what reservations declare.
pub struct SharedBudget(Arc<dyn Budget>);
/// Bytes that a consumer declares.
pub struct Reservation(allocator::Reservation);

/// All went well.
pub const BURSAR_OK: c_int = 0;
/// The budget does not admit it, or so much is not reserved.
pub const BURSAR_REFUSED: c_int = 1;
/// The task has ended.
pub const BURSAR_ENDED: c_int = 2;
/// A release of the task failed; all others were done.
pub const BURSAR_RELEASE_FAILED: c_int = 3;

/// What a consumer holds. Exact while no thread allocates or frees.
#[repr(C)]
pub struct Usage {
    /// Bytes alive.
    pub live_bytes: u64,
    /// Blocks alive.
    pub live_blocks: u64,
    /// The most bytes that were alive at once, from above.
    pub peak_bytes: u64,
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Bytes ever freed.
    pub freed_bytes: u64,
    /// Bytes that reservations declare now.
    pub reserved_bytes: u64,
    /// Bytes alive of the consumer and all below it.
    pub subtree_live_bytes: u64,
}

impl From<allocator::Usage> for Usage {
    fn from(usage: allocator::Usage) -> Usage {
        Usage {
            live_bytes: usage.live_bytes,
            live_blocks: usage.live_blocks,
            peak_bytes: usage.peak_bytes,
            allocated_bytes: usage.allocated_bytes,
            freed_bytes: usage.freed_bytes,
            reserved_bytes: usage.reserved_bytes,
            subtree_live_bytes: usage.subtree_live_bytes,
        }
    }
}

/// A name that C hands in; what is not UTF-8 in it is replaced.
///
/// # Safety
/// The name is terminated.
pub(crate) unsafe fn name_of(name: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Drops what C gives back, unless it is null.
///
/// # Safety
/// Null, or given out by [`give`] and not used any more.
unsafe fn drop_given<T>(value: *mut T) {
    if !value.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(value) });
    }
}

/// A scope in a block that was allocated before it begins, so that it is not in itself.
fn enter(begin: impl FnOnce() -> allocator::Scope) -> *mut Scope {
    let place = Box::<MaybeUninit<Scope>>::new(MaybeUninit::uninit());
    Box::into_raw(Box::write(place, Scope(begin())))
}

/// A consumer of a name; below `parent`, or at the top if that is null.
///
/// # Safety
/// The name is terminated, and the parent null or alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_consumer_new(
    name: *const c_char,
    parent: *const Consumer,
) -> *mut Consumer {
    // SAFETY: the caller's promise.
    let (name, parent) = unsafe { (name_of(name), parent.as_ref()) };
    give(Consumer(match parent {
        Some(parent) => parent.0.child(name),
        None => allocator::Consumer::new(name),
    }))
}

/// Gives a consumer up. It stays on the books while bytes of it are alive.
///
/// # Safety
/// The consumer is null, or alive and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_consumer_drop(consumer: *mut Consumer) {
    // SAFETY: the caller's promise.
    unsafe { drop_given(consumer) };
}

/// The consumer's id, which no other consumer of the process ever has.
///
/// # Safety
/// The consumer is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_consumer_id(consumer: *const Consumer) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*consumer).0.id() }
}

/// What a consumer holds, whichever threads allocated it.
///
/// # Safety
/// The consumer is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_consumer_usage(consumer: *const Consumer) -> Usage {
    // SAFETY: the caller's promise.
    unsafe { (*consumer).0.usage().into() }
}

/// What no consumer has.
#[unsafe(no_mangle)]
pub extern "C" fn bursar_unattributed() -> Usage {
    allocator::unattributed().into()
}

/// Has what this thread allocates be the consumer's until the scope is left.
///
/// # Safety
/// The consumer is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_consumer_enter(consumer: *const Consumer) -> *mut Scope {
    // SAFETY: the caller's promise.
    enter(|| unsafe { (*consumer).0.enter() })
}

/// Leaves a scope, on the thread that entered it.
///
/// # Safety
/// The scope is null, or this thread's and not left yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_scope_leave(scope: *mut Scope) {
    // SAFETY: the caller's promise.
    unsafe { drop_given(scope) };
}

/// A budget that admits everything, and counts it.
#[unsafe(no_mangle)]
pub extern "C" fn bursar_budget_unbounded() -> *mut SharedBudget {
    give(SharedBudget(Arc::new(Unbounded::new())))
}

/// A budget that admits what comes until `limit` bytes are declared.
#[unsafe(no_mangle)]
pub extern "C" fn bursar_budget_greedy(limit: u64) -> *mut SharedBudget {
    give(SharedBudget(Arc::new(Greedy::new(limit))))
}

/// A budget that shares `limit` bytes among the consumers that can spill.
#[unsafe(no_mangle)]
pub extern "C" fn bursar_budget_fair(limit: u64) -> *mut SharedBudget {
    give(SharedBudget(Arc::new(Fair::new(limit))))
}

/// A budget that admits by the bytes that are really alive.
#[unsafe(no_mangle)]
pub extern "C" fn bursar_budget_real_bytes(limit: u64) -> *mut SharedBudget {
    give(SharedBudget(Arc::new(RealBytes::new(limit))))
}

/// Gives a budget up; it lives as long as its reservations.
///
/// # Safety
/// The budget is null, or alive and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_budget_drop(budget: *mut SharedBudget) {
    // SAFETY: the caller's promise.
    unsafe { drop_given(budget) };
}

/// A reservation of no bytes of a consumer with a budget.
///
/// # Safety
/// Both are alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_new(
    consumer: *const Consumer,
    budget: *const SharedBudget,
) -> *mut Reservation {
    // SAFETY: the caller's promise.
    give(Reservation(unsafe { (*consumer).0.register(&(*budget).0) }))
}

/// Frees what is reserved, and gives the reservation up.
///
/// # Safety
/// The reservation is null, or alive and not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_drop(reservation: *mut Reservation) {
    // SAFETY: the caller's promise.
    unsafe { drop_given(reservation) };
}

/// The reservation's id, which no other of its consumer's has.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_id(reservation: *const Reservation) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*reservation).0.id() }
}

/// Bytes reserved.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_size(reservation: *const Reservation) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*reservation).0.size() }
}

/// Reserves more, also beyond the budget.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_grow(reservation: *const Reservation, bytes: u64) {
    // SAFETY: the caller's promise.
    unsafe { (*reservation).0.grow(bytes) };
}

/// Reserves more: `BURSAR_OK`, or `BURSAR_REFUSED` with nothing changed.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_try_grow(
    reservation: *const Reservation,
    bytes: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    ok_or_refused(unsafe { (*reservation).0.try_grow(bytes) })
}

/// Reserves less: `BURSAR_OK`, or `BURSAR_REFUSED`, with nothing changed, if less is reserved.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_try_shrink(
    reservation: *const Reservation,
    bytes: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    ok_or_refused(unsafe { (*reservation).0.try_shrink(bytes) })
}

/// Reserves so much: `BURSAR_OK`, or `BURSAR_REFUSED` with nothing changed.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_try_resize(
    reservation: *const Reservation,
    bytes: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    ok_or_refused(unsafe { (*reservation).0.try_resize(bytes) })
}

/// Reserves nothing any more; what it was.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_free(reservation: *const Reservation) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*reservation).0.free() }
}

/// Has what this thread allocates be the reservation's, and its consumer's, until the scope is left.
///
/// # Safety
/// The reservation is alive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_reservation_enter(reservation: *const Reservation) -> *mut Scope {
    // SAFETY: the caller's promise.
    enter(|| unsafe { (*reservation).0.enter() })
}

fn ok_or_refused<T, E>(result: Result<T, E>) -> c_int {
    match result {
        Ok(_) => BURSAR_OK,
        Err(_) => BURSAR_REFUSED,
    }
}

/// Gives all free memory back to the system; how many bytes.
#[unsafe(no_mangle)]
pub extern "C" fn bursar_purge() -> u64 {
    allocator::purge()
}

/// The allocator's figures as JSON, as `snprintf` would write them.
///
/// # Safety
/// `size` bytes may be written at `buffer`, which may be null if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_stats_json(buffer: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { text::json(buffer, size, &allocator::stats()) }
}

/// All consumers as JSON, as `snprintf` would write them.
///
/// # Safety
/// As for [`bursar_stats_json`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_report_json(buffer: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { text::json(buffer, size, &allocator::report()) }
}

/// All consumers as a tree for people to read, as `snprintf` would write it.
///
/// # Safety
/// As for [`bursar_stats_json`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bursar_report(buffer: *mut c_char, size: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { text::display(buffer, size, &allocator::report()) }
}
