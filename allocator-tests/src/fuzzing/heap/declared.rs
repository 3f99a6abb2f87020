//! Reservations, and the budget that they share.

use std::sync::Arc;

use bursar::{Budget, Greedy, Reservation, Unbounded};

use super::books::{Books, Seat};
use super::steps::Change;
use super::{Found, same};

const PLACES: usize = 8;

struct Held {
    account: usize,
    reservation: Reservation,
    size: u64,
}

/// All reservations of a sequence.
pub(super) struct Declared {
    budget: Arc<dyn Budget>,
    limit: Option<u64>,
    places: [Option<Held>; PLACES],
}

impl Declared {
    pub(super) fn new(limit: Option<u16>) -> Self {
        let limit = limit.map(u64::from);
        Self {
            budget: match limit {
                Some(limit) => Arc::new(Greedy::new(limit)),
                None => Arc::new(Unbounded::new()),
            },
            limit,
            places: Default::default(),
        }
    }

    /// Puts a reservation in a place; what was there is dropped.
    fn put(&mut self, place: u8, held: Option<Held>, books: &mut Books) {
        if let Some(held) = &held {
            books.declare(held.account, held.size, 0);
        }
        let before = std::mem::replace(&mut self.places[usize::from(place) % PLACES], held);
        if let Some(before) = before {
            books.declare(before.account, 0, before.size);
        }
    }

    pub(super) fn register(&mut self, place: u8, consumer: u8, books: &mut Books) {
        if let Some((account, consumer)) = books.get(consumer) {
            let reservation = consumer.register(&self.budget);
            let size = 0;
            let held = Held {
                account,
                reservation,
                size,
            };
            self.put(place, Some(held), books);
        }
    }

    pub(super) fn enter(&self, place: u8, seat: &mut Seat) {
        if let Some(held) = &self.places[usize::from(place) % PLACES] {
            seat.enter(held.account, || held.reservation.enter());
        }
    }

    fn total(&self) -> u64 {
        self.places.iter().flatten().map(|held| held.size).sum()
    }

    /// Changes a reservation, and compares its size and the budget's.
    pub(super) fn change(&mut self, place: u8, change: Change, books: &mut Books) -> Found {
        let before = self.total();
        let Some(held) = &mut self.places[usize::from(place) % PLACES] else {
            return Ok(());
        };
        let (account, old) = (held.account, held.size);
        let admits = |more: u64| self.limit.is_none_or(|limit| before + more <= limit);
        let mut other = None;
        let (expected, found) = match change {
            Change::Grow(more) => {
                held.reservation.grow(more.into());
                held.size += u64::from(more);
                (true, true)
            }
            Change::TryGrow(more) => {
                let found = held.reservation.try_grow(more.into()).is_ok();
                held.size += if found { u64::from(more) } else { 0 };
                (admits(more.into()), found)
            }
            Change::Shrink(less) => {
                let found = held.reservation.try_shrink(less.into()).is_ok();
                held.size -= if found { u64::from(less) } else { 0 };
                (u64::from(less) <= old, found)
            }
            Change::Resize(size) => {
                held.reservation.resize(size.into());
                held.size = size.into();
                (true, true)
            }
            Change::TryResize(size) => {
                let found = held.reservation.try_resize(size.into()).is_ok();
                let more = u64::from(size).saturating_sub(old);
                held.size = if found { size.into() } else { old };
                (more == 0 || admits(more), found)
            }
            Change::Split(bytes, to) => {
                let bytes = u64::from(bytes);
                let split = held.reservation.try_split(bytes);
                let found = split.is_ok();
                held.size -= if found { bytes } else { 0 };
                other = split.ok().map(|split| (to, split, bytes));
                (bytes <= old, found)
            }
            Change::Take(to) => {
                other = Some((to, held.reservation.take(), old));
                held.size = 0;
                (true, true)
            }
            Change::NewEmpty(to) => {
                other = Some((to, held.reservation.new_empty(), 0));
                (true, true)
            }
            Change::Free => {
                held.size = 0;
                same("what was given back", held.reservation.free(), old)?;
                (true, true)
            }
            Change::Drop => {
                self.put(place, None, books);
                return Ok(());
            }
        };
        same(
            format_args!("whether {change:?} of {old} is admitted"),
            found,
            expected,
        )?;
        let size = held.size;
        same("a reservation's size", held.reservation.size(), size)?;
        books.declare(account, size, old);
        if let Some((to, reservation, size)) = other {
            same("a new reservation's size", reservation.size(), size)?;
            let held = Held {
                account,
                reservation,
                size,
            };
            self.put(to, Some(held), books);
        }
        same("what the budget has", self.budget.reserved(), self.total())?;
        self.look_at_edge(place)
    }

    /// What is left of the budget can be had, and not a byte more.
    fn look_at_edge(&self, place: u8) -> Found {
        let held = &self.places[usize::from(place) % PLACES];
        let (Some(held), Some(limit)) = (held, self.limit) else {
            return Ok(());
        };
        let left = limit.saturating_sub(self.total());
        let more = held.reservation.try_grow(left + 1).is_ok();
        same("whether a byte too many is admitted", more, false)?;
        let all = held.reservation.try_grow(left).is_ok();
        let fits = self.total() + left <= limit || left == 0;
        same("whether what is left is admitted", all, fits)?;
        if all {
            held.reservation.shrink(left);
        }
        same("a reservation's size", held.reservation.size(), held.size)
    }

    pub(super) fn close_all(&mut self, books: &mut Books) {
        (0..PLACES as u8).for_each(|place| self.put(place, None, books));
    }
}
