//! tracking-allocator: a header on every block names the group it was
//! allocated in, and a tracker, which is the program's own, hears of every
//! allocation and free.

use std::sync::Once;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

use tracking_allocator::{
    AllocationGroupId, AllocationGroupToken, AllocationRegistry, AllocationTracker,
};

use super::{Books, Holder};

/// Groups of tracking-allocator.
pub struct Groups;

/// A token is entered by `&mut`, by one thread at a time: each entry of a
/// scope takes a group of its own, and a holder has the sum of its groups.
const GROUPS: usize = 4096;
static LIVE: [AtomicI64; GROUPS] = [const { AtomicI64::new(0) }; GROUPS];
/// Whose group it is: 0 for nobody's, else one more than the holder.
static HOLDER: [AtomicUsize; GROUPS] = [const { AtomicUsize::new(0) }; GROUPS];

/// The least that a tracker can do: one addition, as its own example does.
struct Tracker;

impl AllocationTracker for Tracker {
    fn allocated(&self, _: usize, size: usize, _: usize, group: AllocationGroupId) {
        LIVE[group.as_usize().get() % GROUPS].fetch_add(size as i64, Relaxed);
    }

    fn deallocated(
        &self,
        _: usize,
        size: usize,
        _: usize,
        source: AllocationGroupId,
        _: AllocationGroupId,
    ) {
        LIVE[source.as_usize().get() % GROUPS].fetch_sub(size as i64, Relaxed);
    }
}

impl Books for Groups {
    fn name(&self) -> &'static str {
        "tracking-allocator"
    }

    fn within(&self, holder: Holder, work: &mut dyn FnMut()) {
        static START: Once = Once::new();
        START.call_once(|| {
            AllocationRegistry::set_global_tracker(Tracker).expect("there is no other tracker");
            AllocationRegistry::enable_tracking();
        });
        let mut token = AllocationGroupToken::register().expect("ids are not used up");
        let id = token.id().as_usize().get();
        assert!(id < GROUPS, "as many groups as threads were entered");
        HOLDER[id].store(holder as usize + 1, Relaxed);
        let guard = token.enter();
        work();
        drop(guard);
    }

    fn live_bytes(&self, holder: Holder) -> i64 {
        let of_holder = |id: &usize| HOLDER[*id].load(Relaxed) == holder as usize + 1;
        let live = |id: usize| LIVE[id].load(Relaxed);
        (0..GROUPS).filter(of_holder).map(live).sum()
    }
}
