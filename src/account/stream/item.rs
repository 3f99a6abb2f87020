//! Items: values with what is declared for them.

use super::super::transfer::TransferError;
use super::charge::Charge;
use super::meter;
use crate::units::OwnerTag;
use core::fmt;
use core::mem::take;
use core::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A value on its way, and what is declared for it, which ends with it.
///
/// It is charged to the producer until it is handed over, then to the receiver, and to nobody when
/// it is dropped or [taken apart](Item::into_inner). It derefs to the value.
pub struct Item<T> {
    // Dropped in this order: what is declared is there as long as the value.
    value: T,
    held: Held,
}

/// What is declared for a value.
struct Held {
    bytes: u64,
    charge: Arc<Charge>,
    /// Whose its blocks are, and how much of them, as far as that is known.
    owner: OwnerTag,
    real: u64,
    /// Whether `real` are the bytes that changed hands when it was handed over last.
    moved: Moved,
    /// The value was taken out.
    is_empty: bool,
}

/// How the last hand-over of an item's blocks went.
#[derive(Clone, Copy)]
enum Moved {
    /// They were not to be handed over.
    Not,
    All,
    Failed(TransferError),
}

/// An item in a queue, which is charged to the queue's producer.
pub(super) struct Parcel<T> {
    value: T,
    owner: OwnerTag,
    real: u64,
}

/// Hands the blocks of a value over.
pub(super) type MoveBlocks<T> = fn(&mut T, &Charge) -> Result<u64, TransferError>;

/// Who gets items.
pub(super) struct Recipient<T> {
    pub(super) charge: Arc<Charge>,
    pub(super) move_blocks: Option<MoveBlocks<T>>,
}

impl<T> Item<T> {
    /// One that is made now, declared.
    pub(super) fn new(charge: Arc<Charge>, value: T, bytes: u64) -> Item<T> {
        let (bytes, parcel) = Parcel::declare(&charge, value, bytes);
        parcel.into_item(bytes, charge)
    }

    /// What is declared for it, in bytes: what its construction left live, or the hint that was
    /// given in place of that.
    pub fn bytes(&self) -> u64 {
        self.held.bytes
    }

    /// Who is charged.
    pub fn charge(&self) -> &Charge {
        &self.held.charge
    }

    /// How many real bytes changed hands when it was last handed over to a receiver that takes
    /// them.
    ///
    /// # Errors
    /// Why its blocks, or some of them, stayed the producer's.
    pub fn moved_bytes(&self) -> Result<u64, TransferError> {
        match self.held.moved {
            Moved::Not => Ok(0),
            Moved::All => Ok(self.held.real),
            Moved::Failed(error) => Err(error),
        }
    }

    /// The value. What was declared for it ends here.
    pub fn into_inner(self) -> T {
        let Item { value, mut held } = self;
        held.is_empty = true;
        value
    }

    /// Hands it over.
    pub(super) fn hand_to(&mut self, to: &Recipient<T>) {
        let held = &mut self.held;
        if !Arc::ptr_eq(&held.charge, &to.charge) {
            held.charge.lower(held.bytes);
            to.charge.raise(held.bytes);
            held.charge = Arc::clone(&to.charge);
        }
        if let Some(move_blocks) = to.move_blocks {
            let moved = move_blocks(&mut self.value, &to.charge);
            held.note_moved(moved);
        }
    }

    /// For a queue whose producer is charged as `charge` says.
    pub(super) fn into_parcel(self, charge: &Arc<Charge>) -> (u64, Parcel<T>) {
        let mut item = self;
        item.hand_to(&Recipient {
            charge: Arc::clone(charge),
            move_blocks: None,
        });
        let Item { value, mut held } = item;
        // What is declared stays so, for the parcel, and its blocks are not gone.
        let (bytes, real) = (take(&mut held.bytes), take(&mut held.real));
        let owner = held.owner;
        (bytes, Parcel { value, owner, real })
    }
}

impl<T> Parcel<T> {
    /// Of a value that `bytes` are declared for from now on.
    #[inline]
    fn declare(charge: &Charge, value: T, bytes: u64) -> (u64, Parcel<T>) {
        // Books count in signed numbers.
        let real = bytes.min(i64::MAX as u64);
        let owner = charge.owner();
        charge.raise(real);
        meter::made(owner, real);
        (real, Parcel { value, owner, real })
    }

    /// Makes a value, measures it, and declares that.
    #[inline]
    pub(super) fn make(charge: &Charge, make: impl FnOnce() -> T) -> (u64, Parcel<T>) {
        let (value, bytes) = charge.weigh(make);
        Parcel::declare(charge, value, bytes)
    }

    /// Nobody took it out of its queue.
    pub(super) fn discard(self, bytes: u64, charge: &Arc<Charge>) {
        drop(self.into_item(bytes, Arc::clone(charge)));
    }

    /// As an item of who is charged for it already.
    #[inline(always)]
    pub(super) fn into_item(self, bytes: u64, charge: Arc<Charge>) -> Item<T> {
        Item {
            value: self.value,
            held: Held {
                bytes,
                charge,
                owner: self.owner,
                real: self.real,
                moved: Moved::Not,
                is_empty: false,
            },
        }
    }

    /// Out of its queue, to who gets it.
    #[inline(always)]
    pub(super) fn hand_over(self, bytes: u64, from: &Arc<Charge>, to: &Recipient<T>) -> Item<T> {
        if !Arc::ptr_eq(from, &to.charge) {
            from.lower(bytes);
            to.charge.raise(bytes);
        }
        let mut item = self.into_item(bytes, Arc::clone(&to.charge));
        if let Some(move_blocks) = to.move_blocks {
            let moved = move_blocks(&mut item.value, &to.charge);
            item.held.note_moved(moved);
        }
        item
    }
}

impl Held {
    /// Its blocks were handed over to who is charged.
    fn note_moved(&mut self, moved: Result<u64, TransferError>) {
        self.moved = match moved {
            Ok(bytes) => {
                meter::gone(self.owner, bytes);
                // A reservation's blocks are handed over to its consumer.
                self.owner = self.charge.consumer().account().tag();
                self.real = bytes;
                meter::made(self.owner, bytes);
                Moved::All
            }
            Err(error) => Moved::Failed(error),
        };
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        if self.is_empty {
            meter::taken_out(self.owner, self.real);
        } else {
            meter::gone(self.owner, self.real);
        }
        self.charge.lower(self.bytes);
    }
}

impl<T> Deref for Item<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Item<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Item<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("value", &self.value)
            .field("bytes", &self.held.bytes)
            .field("charge", &self.held.charge)
            .finish()
    }
}
