//! The addresses of sampled blocks: a hash table with linear probing that is searched without a
//! lock, since every free asks it, and changed under one.
//!
//! Invariant: from a key's home to its place no place is empty, for as long as the key is there. A
//! key that is taken out leaves a mark in its place, unless the next place is empty, when nothing
//! lies behind it; then the marks before it are cleared too. So a search for a key that is there
//! cannot end too early, whatever others put in or take out meanwhile.
//!
//! Relaxed orderings suffice: who frees a block was told of it by who allocated it, after the key
//! was put in.

use crate::os::sync::{AtomicU64, Ordering::Relaxed};

/// Nothing was here, and nothing that is beyond belongs before it.
const EMPTY: u64 = 0;
/// Something was here. No block has this address.
const GONE: u64 = 1;

/// The table. `PLACES` is a power of two.
pub(super) struct Table<const PLACES: usize> {
    keys: [AtomicU64; PLACES],
    /// Places that are not empty. Only under the lock.
    filled: AtomicU64,
}

impl<const PLACES: usize> Table<PLACES> {
    /// Places that are not empty, at most: never all, so that a search ends.
    const MOST: u64 = PLACES as u64 / 4 * 3;

    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Table {
            keys: [const { AtomicU64::new(EMPTY) }; PLACES],
            filled: AtomicU64::new(0),
        }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Table {
            keys: core::array::from_fn(|_| AtomicU64::new(EMPTY)),
            filled: AtomicU64::new(0),
        }
    }

    /// Where the search for a key begins.
    #[inline(always)]
    fn home(key: u64) -> usize {
        // Blocks are multiples of eight bytes apart: the product's upper half has all their bits.
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize & (PLACES - 1)
    }

    /// The places of a search.
    fn places(key: u64) -> impl Iterator<Item = usize> {
        let home = Self::home(key);
        (0..PLACES).map(move |step| (home + step) & (PLACES - 1))
    }

    #[inline(always)]
    pub(super) fn key(&self, place: usize) -> u64 {
        self.keys[place & (PLACES - 1)].load(Relaxed)
    }

    fn set(&self, place: usize, key: u64) {
        self.keys[place & (PLACES - 1)].store(key, Relaxed);
    }

    /// Whether there may be something to [`find`](Self::find) for a key: one look.
    #[inline(always)]
    pub(super) fn may_have(&self, key: u64) -> bool {
        self.key(Self::home(key)) != EMPTY
    }

    /// The place of a key. By anybody, if the key is the caller's to take out; else under the lock.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        for place in Self::places(key) {
            match self.key(place) {
                EMPTY => return None,
                found if found == key => return Some(place),
                _ => {}
            }
        }
        None
    }

    /// Puts in a key that is not there. Its place; `None` if too few are empty. Under the lock.
    pub(super) fn insert(&self, key: u64) -> Option<usize> {
        let free = Self::places(key).find(|&place| !self.is_taken(place))?;
        if self.key(free) == EMPTY {
            let filled = self.filled.load(Relaxed);
            if filled >= Self::MOST {
                return None;
            }
            self.filled.store(filled + 1, Relaxed);
        }
        self.set(free, key);
        Some(free)
    }

    /// Takes out what is in a place. Under the lock.
    pub(super) fn remove(&self, place: usize) {
        self.set(place, GONE);
        if self.key(place + 1) != EMPTY {
            return;
        }
        let mut last = place;
        while self.key(last) == GONE {
            self.set(last, EMPTY);
            self.filled.store(self.filled.load(Relaxed) - 1, Relaxed);
            last = last.wrapping_sub(1) & (PLACES - 1);
        }
    }

    /// Whether a place is neither empty nor marked.
    pub(super) fn is_taken(&self, place: usize) -> bool {
        !matches!(self.key(place), EMPTY | GONE)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::collections::BTreeSet;

    proptest! {
        /// Few places and many steps: long paths, marks, and their end.
        #[test]
        fn what_was_put_in_is_found_until_it_is_taken_out(
            steps in prop::collection::vec((0_u64..40, any::<bool>()), 1..400)
        ) {
            let table = Box::new(Table::<16>::new());
            let mut model = BTreeSet::new();
            for (number, put) in steps {
                let key = (number + 2) * 8;
                if put && !model.contains(&key) {
                    match table.insert(key) {
                        Some(_) => prop_assert!(model.insert(key)),
                        None => prop_assert_eq!(table.filled.load(Relaxed), 12),
                    }
                } else if !put && model.remove(&key) {
                    table.remove(table.find(key).unwrap());
                }
                for number in 0..40 {
                    let key = (number + 2) * 8;
                    let found = table.find(key);
                    prop_assert_eq!(found.is_some(), model.contains(&key));
                    prop_assert!(found.is_none_or(|at| table.key(at) == key && table.is_taken(at)));
                    let filled = (0..16).filter(|&place| table.key(place) != EMPTY).count();
                    prop_assert_eq!(filled as u64, table.filled.load(Relaxed));
                    prop_assert!(found.is_none() || table.may_have(key));
                }
            }
            for key in model {
                table.remove(table.find(key).unwrap());
            }
            prop_assert_eq!(table.filled.load(Relaxed), 0);
            prop_assert!((0..16).all(|place| table.key(place) == EMPTY), "no mark is left");
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// Keys of one home.
    fn keys() -> [u64; 3] {
        let mut same = (2_u64..).map(|number| number * 8);
        let first = same.next().unwrap();
        let mut same = same.filter(|&key| Table::<4>::home(key) == Table::<4>::home(first));
        [first, same.next().unwrap(), same.next().unwrap()]
    }

    /// One thread puts a key in and passes its block on, another searches for it and takes it out,
    /// while others before and behind it on the same path come and go: it is found.
    #[test]
    fn who_frees_a_block_finds_its_key() {
        loom::model(|| {
            let [before, own, behind] = keys();
            let table = Arc::new((Table::<4>::new(), Mutex::new(())));
            let remove = |table: &(Table<4>, Mutex<()>), key| {
                let place = table.0.find(key).expect("the key is there");
                let _guard = table.1.lock().unwrap();
                assert_eq!(table.0.find(key), Some(place));
                table.0.remove(place);
            };
            table.0.insert(before).unwrap();
            table.0.insert(own).unwrap();
            let (coming, going) = (Arc::clone(&table), Arc::clone(&table));
            let goes = thread::spawn(move || remove(&going, before));
            let comes = thread::spawn(move || {
                {
                    let _guard = coming.1.lock().unwrap();
                    coming.0.insert(behind).unwrap();
                }
                remove(&coming, behind);
            });
            remove(&table, own);
            goes.join().unwrap();
            comes.join().unwrap();
            assert!((0..4).all(|place| table.0.key(place) == EMPTY));
        });
    }
}
