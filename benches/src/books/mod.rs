//! Who can say what a part of a program holds: bursar's consumers, and the
//! published wrappers that count what another allocator gives out. The same
//! programs run under each, and the same scenario asks each for its figures.

#[cfg(feature = "accounts")]
pub mod consumers;
#[cfg(feature = "wrappers")]
pub mod differences;
pub mod exact;
#[cfg(feature = "wrappers")]
pub mod groups;

use std::alloc::Layout;
use std::sync::OnceLock;

/// Somebody to book to: a program needs one, the scenario two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The first.
    One,
    /// The second.
    Other,
}

impl Holder {
    /// Both.
    pub const ALL: [Holder; 2] = [Holder::One, Holder::Other];
}

/// The books of the allocator that this program was built with.
pub trait Books: Sync {
    /// The name for tables.
    fn name(&self) -> &'static str;

    /// Runs `work`, with what this thread allocates in it booked to `holder`.
    fn within(&self, holder: Holder, work: &mut dyn FnMut());

    /// Bytes that `holder` has alive, as the books say.
    fn live_bytes(&self, holder: Holder) -> i64;

    /// Bytes that a block of this layout counts for.
    fn charge(&self, layout: Layout) -> i64 {
        layout.size() as i64
    }
}

static KEPT: OnceLock<&'static dyn Books> = OnceLock::new();

/// From now on [`attributed`] books to the first holder of these.
pub fn keep(books: &'static dyn Books) {
    // A second call would change nothing, and there is none.
    let _ = KEPT.set(books);
}

/// Runs `work`, booked to the first holder if books are kept.
pub fn attributed<T>(work: impl FnOnce() -> T) -> T {
    let Some(books) = KEPT.get() else {
        return work();
    };
    let (mut work, mut result) = (Some(work), None);
    books.within(Holder::One, &mut || {
        result = work.take().map(|work| work());
    });
    result.expect("the work was run once")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::{Books, Holder, attributed, keep};

    /// Counts how often it was entered.
    struct Entered(AtomicUsize);

    impl Books for Entered {
        fn name(&self) -> &'static str {
            "entered"
        }

        fn within(&self, _: Holder, work: &mut dyn FnMut()) {
            self.0.fetch_add(1, Relaxed);
            work();
        }

        fn live_bytes(&self, _: Holder) -> i64 {
            0
        }
    }

    #[test]
    fn work_is_done_once_and_booked_once_books_are_kept() {
        static ENTERED: Entered = Entered(AtomicUsize::new(0));
        assert_eq!(attributed(|| 7), 7);
        assert_eq!(ENTERED.0.load(Relaxed), 0);
        keep(&ENTERED);
        assert_eq!(attributed(|| "done"), "done");
        assert_eq!(ENTERED.0.load(Relaxed), 1);
    }
}
