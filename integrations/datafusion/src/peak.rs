//! A number of bytes and the most it ever was.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that are added and taken away by many threads, with their peak.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    now: AtomicU64,
    most: AtomicU64,
}

impl Peak {
    pub(crate) fn add(&self, bytes: u64) {
        let now = self.now.fetch_add(bytes, Relaxed).saturating_add(bytes);
        self.most.fetch_max(now, Relaxed);
    }

    /// Takes away what was added before.
    pub(crate) fn subtract(&self, bytes: u64) {
        self.now.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    pub(crate) fn most(&self) -> u64 {
        self.most.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::Peak;

    #[test]
    fn the_peak_is_the_most_at_once() {
        let peak = Peak::default();
        peak.add(10);
        peak.subtract(4);
        peak.add(3);
        assert_eq!((peak.now(), peak.most()), (9, 10));
    }
}
