//! Blocks and pools, whose they are, and how a step is taken.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

use bursar::{AllocFailure, Bursar, Pool, PoolError};

use super::books::{Books, Owner, Seat};
use super::declared::Declared;
use super::steps::{Align, Size, Step};
use super::{Found, holds, same};
use crate::shadow::{self, Shadow};

const POOLS: usize = 4;
/// Bytes that may be alive; beyond it, what would allocate frees.
const MOST_BYTES: usize = 48 << 20;

/// All that the threads of a sequence share.
pub(super) struct World {
    heap: &'static Bursar,
    shadow: Shadow<'static, Bursar>,
    /// Of the shadow's blocks, in their order.
    owners: Vec<Owner>,
    books: Books,
    declared: Declared,
    pools: [Option<Pool>; POOLS],
}

impl World {
    pub(super) fn new(heap: &'static Bursar, budget: Option<u16>) -> Self {
        Self {
            heap,
            shadow: Shadow::new(heap, 1, Vec::new()),
            owners: Vec::new(),
            books: Books::default(),
            declared: Declared::new(budget),
            pools: Default::default(),
        }
    }

    /// Takes a step of the thread with these scopes.
    pub(super) fn take(&mut self, step: Step, seat: &mut Seat) -> Found {
        let found = self.apply(step, seat);
        found.map_err(|what| format!("{step:?}: {what}"))
    }

    fn apply(&mut self, step: Step, seat: &mut Seat) -> Found {
        match step {
            Step::Turn(_) | Step::Exit(_) => Ok(()),
            Step::Allocate(size, align, zeroed) => self.allocate(size.at(align), zeroed, seat),
            Step::AllocateMany(size, count) => {
                (0..count).try_for_each(|_| self.allocate(size.plain(), false, seat))
            }
            Step::Free(pick) => self.free(pick),
            Step::FreeMany(pick, count) => (0..count).try_for_each(|_| self.free(pick)),
            Step::Reallocate(pick, size) => self.reallocate(pick, size),
            Step::Impossible(kind, align) => self.impossible(kind, align),
            Step::Open(place, parent) => self.books.open(place, parent),
            Step::Close(place) => {
                self.books.close(place);
                Ok(())
            }
            Step::Enter(place) => {
                self.books.enter(place, seat);
                Ok(())
            }
            Step::Leave(place) => {
                seat.leave(place);
                Ok(())
            }
            Step::Forget(place) => {
                seat.forget(place);
                Ok(())
            }
            Step::Transfer(pick, to) => self.transfer(pick, to),
            Step::Limit(place, soft, hard) => {
                self.books.limit(place, soft, hard);
                self.look_at_limit(place)
            }
            Step::Try(place, size, zeroed) => self.try_allocate(place, size, zeroed),
            Step::SafePoint(place) => self.books.safe_point(place),
            Step::Register(place, consumer) => {
                self.declared.register(place, consumer, &mut self.books);
                Ok(())
            }
            Step::Reserve(place, change) => self.declared.change(place, change, &mut self.books),
            Step::EnterReserved(place) => {
                self.declared.enter(place, seat);
                Ok(())
            }
            Step::OpenPool(place, size, limit) => self.open_pool(place, size, limit),
            Step::ClosePool(place) => {
                self.pools[usize::from(place) % POOLS] = None;
                Ok(())
            }
            Step::Bind(place, consumer) => {
                self.bind(place, consumer);
                Ok(())
            }
            Step::AllocateIn(place, size, align, zeroed) => {
                self.allocate_in(place, size.at(align), zeroed, seat)
            }
            Step::Purge => {
                bursar::purge();
                Ok(())
            }
            Step::Compare => self.compare(),
        }
    }

    /// Books the answer to a request; whether it was a block.
    fn accept(
        &mut self,
        block: *mut u8,
        layout: Layout,
        zeroed: bool,
        owner: Owner,
    ) -> Result<bool, String> {
        // SAFETY: the answer to a request for this layout.
        let accepted = unsafe { self.shadow.accept(block, layout, zeroed) };
        let accepted = accepted.map_err(|fault| fault.to_string())?;
        if accepted {
            self.owners.push(owner);
            self.books
                .allocated(owner, bursar::block_size(layout) as u64);
        }
        Ok(accepted)
    }

    fn allocate(&mut self, layout: Layout, zeroed: bool, seat: &Seat) -> Found {
        if self.shadow.bytes() + layout.size() > MOST_BYTES {
            return self.free(0);
        }
        let block = request(self.heap, layout, zeroed);
        let accepted = self.accept(block, layout, zeroed, seat.owner())?;
        holds(accepted, || format!("null: {:?}", bursar::last_failure()))
    }

    fn pick(&self, pick: u16) -> Option<usize> {
        usize::from(pick).checked_rem(self.shadow.len())
    }

    fn booked(&self, place: usize) -> u64 {
        self.shadow.blocks()[place].booked()
    }

    fn free(&mut self, pick: u16) -> Found {
        let Some(place) = self.pick(pick) else {
            return Ok(());
        };
        let (owner, bytes) = (self.owners.swap_remove(place), self.booked(place));
        self.books.freed(owner, bytes);
        self.shadow.free(place).map_err(|fault| fault.to_string())
    }

    fn reallocate(&mut self, pick: u16, size: Size) -> Found {
        let Some(place) = self.pick(pick) else {
            return Ok(());
        };
        let before = self.booked(place);
        // The shadow puts the block at its end.
        let owner = self.owners.swap_remove(place);
        self.owners.push(owner);
        let resized = self.shadow.reallocate(place, size.0);
        let resized = resized.map_err(|fault| fault.to_string())?;
        holds(resized, || format!("null: {:?}", bursar::last_failure()))?;
        self.books.freed(owner, before);
        self.books
            .allocated(owner, self.booked(self.shadow.len() - 1));
        Ok(())
    }

    /// Requests that no machine can serve are answered with null.
    fn impossible(&mut self, kind: u8, align: Align) -> Found {
        let most = isize::MAX as usize - (align.bytes() - 1);
        let size = [most, most - 1, most / 2, 1 << 47, 1 << 46][usize::from(kind % 5)];
        let layout = Layout::from_size_align(size, align.bytes()).map_err(|why| why.to_string())?;
        let block = request(self.heap, layout, kind >= 128);
        holds(block.is_null(), || format!("{block:?} for {layout:?}"))?;
        let why = bursar::last_failure();
        holds(why.is_some(), || "null without a reason".to_owned())
    }

    fn transfer(&mut self, pick: u16, to: u8) -> Found {
        let (Some(place), Some((account, consumer))) = (self.pick(pick), self.books.get(to)) else {
            return Ok(());
        };
        let block = &self.shadow.blocks()[place];
        let address = NonNull::new(block.address() as *mut u8).ok_or("null in the shadow")?;
        // SAFETY: the block is alive, of this layout, and used by nobody else.
        let moved = unsafe { bursar::transfer_block(address, block.layout(), consumer) };
        let bytes = self.booked(place);
        same("bytes handed over", moved, Ok(bytes))?;
        let from = self.owners[place].replace(account);
        self.books.freed(from, bytes);
        self.books.allocated(Some(account), bytes);
        Ok(())
    }

    fn try_allocate(&mut self, place: u8, size: Size, zeroed: bool) -> Found {
        let layout = size.plain();
        let Some((account, consumer)) = self.books.get(place) else {
            return Ok(());
        };
        let consumer = consumer.clone();
        let bytes = bursar::block_size(layout) as u64;
        let (may, must) = self.books.refusal(account, bytes);
        let block = consumer.try_run(|| request(self.heap, layout, zeroed));
        if !self.accept(block, layout, zeroed, Some(account))? {
            let why = bursar::last_failure();
            return holds(
                may && matches!(why, Some(AllocFailure::Limit { .. })),
                || format!("null where there is no limit: {why:?}"),
            );
        }
        let is_large = layout.size() > 256 << 10;
        holds(!(must && is_large), || "beyond the hard limit".to_owned())
    }

    /// A block with a span of its own that is too large for a hard limit by a byte is refused.
    fn look_at_limit(&mut self, place: u8) -> Found {
        let Some((account, consumer)) = self.books.get(place) else {
            return Ok(());
        };
        let consumer = consumer.clone();
        let Some(left) = self.books.left(account) else {
            return Ok(());
        };
        let size = Size((left as usize).max(256 << 10) + 1);
        let block = consumer.try_run(|| request(self.heap, size.plain(), false));
        holds(block.is_null(), || {
            format!("{size:?} with {left} bytes left")
        })
    }

    fn open_pool(&mut self, place: u8, size: Size, limit: Option<Size>) -> Found {
        let size = (size.0 as u64 * 8).max(1024);
        let limit = limit.map_or(0, |limit| limit.0 as u64);
        let made = Pool::builder(size).limit(limit).build();
        let in_range = limit == 0 || (1024..=size).contains(&limit);
        match made {
            Ok(pool) => {
                same("the size of a pool", pool.stats().size, size)?;
                same("the limit of a pool", pool.stats().limit, limit)?;
                self.pools[usize::from(place) % POOLS] = Some(pool);
                holds(in_range, || format!("a limit of {limit} for {size}"))
            }
            Err(PoolError::Limit { .. }) if !in_range => Ok(()),
            Err(why) => Err(why.to_string()),
        }
    }

    fn bind(&mut self, place: u8, consumer: u8) {
        let pool = &self.pools[usize::from(place) % POOLS];
        if let (Some(pool), Some((_, consumer))) = (pool, self.books.get(consumer)) {
            pool.bind(consumer);
        }
    }

    fn allocate_in(&mut self, place: u8, layout: Layout, zeroed: bool, seat: &Seat) -> Found {
        let Some(pool) = &self.pools[usize::from(place) % POOLS] else {
            return Ok(());
        };
        // SAFETY: no size here is zero.
        let block = unsafe {
            if zeroed {
                pool.alloc_zeroed(layout)
            } else {
                pool.alloc(layout)
            }
        };
        let stats = pool.stats();
        let admits = stats.limit == 0 || layout.size() as u64 <= stats.limit;
        same(
            "size = used + free",
            stats.used_bytes + stats.free_bytes,
            stats.size,
        )?;
        if self.accept(block, layout, zeroed, seat.owner())? {
            return holds(admits, || format!("beyond the limit of {stats:?}"));
        }
        let why = bursar::last_failure();
        holds(why.is_some(), || "null without a reason".to_owned())
    }

    /// Everything that is on the books against the shadow.
    fn compare(&self) -> Found {
        shadow::at_rest(self.shadow.blocks(), |ours| ours).map_err(|fault| fault.to_string())?;
        self.books.compare()
    }

    /// Compares, frees everything, and compares again.
    pub(super) fn end(mut self, departs_first: bool) -> Found {
        self.compare()?;
        let depart = |world: &mut Self| {
            world.declared.close_all(&mut world.books);
            world.books.close_all();
            world.pools = Default::default();
        };
        if departs_first {
            depart(&mut self);
            self.compare()?;
        }
        while !self.owners.is_empty() {
            self.free(0)?;
        }
        depart(&mut self);
        // A report lets all accounts leave that can.
        drop(bursar::report());
        let all = bursar::consumers();
        let left: Vec<_> = all.iter().filter(|one| one.id != u64::MAX).collect();
        holds(left.is_empty(), || format!("consumers are left: {left:?}"))?;
        bursar::purge();
        self.compare()
    }
}

fn request(heap: &Bursar, layout: Layout, zeroed: bool) -> *mut u8 {
    // SAFETY: no size here is zero.
    unsafe {
        if zeroed {
            heap.alloc_zeroed(layout)
        } else {
            heap.alloc(layout)
        }
    }
}
