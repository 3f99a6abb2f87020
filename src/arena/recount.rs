//! Room at each owner for a recount of what it holds, which `check` makes from runs and spans.

use crate::os::sync::{AtomicU64, Ordering::Relaxed};

/// What was counted of one owner.
pub(crate) struct Recount {
    pub(crate) blocks: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// What its bound should be.
    pub(crate) charge: AtomicU64,
    /// With all owners below.
    pub(crate) tree_charge: AtomicU64,
}

impl Recount {
    pub(crate) const fn new() -> Recount {
        Recount {
            blocks: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            charge: AtomicU64::new(0),
            tree_charge: AtomicU64::new(0),
        }
    }

    /// Begins again.
    pub(crate) fn reset(&self) {
        for count in [&self.blocks, &self.bytes, &self.charge, &self.tree_charge] {
            count.store(0, Relaxed);
        }
    }

    /// Counts a block.
    pub(crate) fn add(&self, bytes: u64) {
        self.blocks.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Takes back that a block was counted.
    pub(crate) fn sub(&self, bytes: u64) {
        self.blocks.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}
