//! Tests the equations that a pool's records state (see `pool.rs`), and nothing else.

use super::error::MbufError;
use super::layout::counts;
use super::locked::Locked;
use super::set::MbufPools;
use crate::os::sync::Ordering::Relaxed;

impl Locked<'_> {
    fn is_in_order(&self) -> bool {
        let (space, layout) = (self.space(), self.layout);
        let (mut at, mut used_bytes, mut buffers) = (0, 0, 0);
        for start in self.buffers() {
            let Some(span) = self.span(start).filter(|_| start >= at) else {
                return false;
            };
            let is_apart = space.is_free(at, start - at) && space.is_used(start, span);
            if !is_apart || !self.has_holders(start) {
                return false;
            }
            at = start + span;
            used_bytes += layout.bytes_of(start, span);
            buffers += 1;
        }
        let counted = [counts::USED_BYTES, counts::BUFFERS];
        let counted = counted.map(|index| self.counts()[index].load(Relaxed));
        let top = self.counts()[counts::TOP].load(Relaxed).max(at);
        let top = top.min(layout.granules);
        space.is_free(at, top - at) && space.is_summarised(top) && counted == [used_bytes, buffers]
    }
}

impl MbufPools {
    /// Verifies that the records of all pools are in order. A pass over all buffers and maps.
    ///
    /// # Errors
    /// [`Damaged`](MbufError::Damaged) if those of a pool are not, or
    /// [`Stalled`](MbufError::Stalled).
    pub fn check(&self) -> Result<(), MbufError> {
        for pool in 0..self.0.layout.pools.len() {
            if !Locked::new(&self.0, pool)?.is_in_order() {
                return Err(MbufError::Damaged { pool });
            }
        }
        Ok(())
    }
}
