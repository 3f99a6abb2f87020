//! What is done with a pool under its lock: buffers are allocated, held, handed over, freed; and
//! what the dead left is put in order.
//!
//! ```text
//! a buffer starts at g   <=>  the start bit of g is set
//! a granule is used      <=>  it is in [g, g + span(g)) for a buffer's g, or behind the end
//! used_bytes             =    sum of the spans, without what lies behind the end
//! a buffer               has a holder
//! ```
//! A process may die between any two stores. The start bits and the descriptors below them are
//! what counts: a descriptor is written before its start bit is set, and whoever takes the lock
//! over from the dead derives all the rest from them, and frees what has no holder.
//!
//! Other processes may write anything anywhere. What decides where this process reads and writes is
//! its own: the layout, and for each buffer that it holds the span, noted when it was opened and
//! apart from all others that it holds.
//!
//! A generation is two numbers: a count of the buffers that began at the place, by which holders
//! recognise theirs, and a random ticket, by which handles are recognised. Drawing a new ticket
//! revokes the handles that are about, and leaves the holders.

use super::error::MbufError;
use super::handle::MbufHandle;
use super::layout::{GRANULE, PoolLayout, counts, descriptor};
use super::locked::{Held, Locked, bit_of};
use super::members::{Member, slot_of};
use super::set::Set;
use super::space::Contradiction;
use crate::os::sync::{AtomicU64, Ordering, Ordering::Relaxed, fence};
use std::sync::PoisonError;
use std::vec::Vec;

/// A buffer as this process was given it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Granted {
    pub(super) start: u64,
    pub(super) span: u64,
    /// Bytes of data.
    pub(super) len: u64,
    pub(super) generation: u64,
}

/// The count in a generation.
pub(super) fn count_of(generation: u64) -> u32 {
    (generation >> 32) as u32
}

impl Locked<'_> {
    /// Gives out a buffer for a request of `bytes`, head included; `None` if there is no room.
    pub(super) fn allocate(&mut self, bytes: u64) -> Result<Option<Granted>, MbufError> {
        match self.try_allocate(bytes) {
            Err(Contradiction) => {
                self.rebuild();
                self.try_allocate(bytes)
                    .map_err(|Contradiction| self.damaged())
            }
            Ok(granted) => Ok(granted),
        }
    }

    fn try_allocate(&mut self, bytes: u64) -> Result<Option<Granted>, Contradiction> {
        let span = PoolLayout::span(bytes);
        let Some(start) = self.space().find(span)? else {
            return Ok(None);
        };
        if start >= self.layout.granules || self.private.overlaps(start, span) {
            return Err(Contradiction);
        }
        // The lowest fit ends in a granule that the pool's end cuts off: there is no other.
        if start * GRANULE + bytes > self.layout.size {
            return Ok(None);
        }
        let top = &self.counts()[counts::TOP];
        top.store(top.load(Relaxed).max(start + span), Relaxed);
        // What is marked lies below the top, whenever this process dies: no later store goes first.
        fence(Ordering::Release);
        self.space().claim(start, span)?;
        let fields = self.descriptor(start);
        let last = fields[descriptor::GENERATION].load(Relaxed);
        let count = count_of(last).wrapping_add(1);
        let granted = Granted {
            start,
            span,
            len: bytes - GRANULE,
            generation: u64::from(count) << 32 | u64::from(self.private.ticket()),
        };
        fields[descriptor::GENERATION].store(granted.generation, Relaxed);
        fields[descriptor::SPAN].store(span, Relaxed);
        fields[descriptor::LEN].store(granted.len, Relaxed);
        fields[descriptor::FLIGHT].store(0, Relaxed);
        self.holders(start)
            .iter()
            .for_each(|word| word.store(0, Relaxed));
        self.set_holder(start, self.set.member.slot(), true);
        self.set_start(start, true);
        self.add(counts::USED_BYTES, self.layout.bytes_of(start, span));
        self.add(counts::BUFFERS, 1);
        self.private.held.insert(
            start,
            Held {
                span,
                count,
                times: 1,
            },
        );
        Ok(Some(granted))
    }

    /// Ends the buffer at `start`, which nobody holds.
    fn free(&self, start: u64, span: u64) {
        self.set_start(start, false);
        self.space().release(start, span);
        let bytes = self.layout.bytes_of(start, span);
        self.add(counts::USED_BYTES, bytes.wrapping_neg());
        self.add(counts::BUFFERS, u64::MAX);
    }

    /// The buffer that a handle names, with its generation still the handle's.
    fn named(&mut self, handle: MbufHandle) -> Result<(u64, u64), MbufError> {
        let start = handle.offset / GRANULE;
        if !handle.offset.is_multiple_of(GRANULE) || start >= self.layout.granules {
            return Err(MbufError::Invalid { handle });
        }
        // Acquire pairs with the Release in `export`: what was written before is seen.
        let generation = self.descriptor(start)[descriptor::GENERATION].load(Ordering::Acquire);
        if !self.is_start(start) || generation != handle.generation {
            return Err(MbufError::Stale { handle });
        }
        match self.span(start) {
            Some(span) => Ok((start, span)),
            None => Err(self.damaged()),
        }
    }

    /// Makes this process a holder of the buffer that a handle names.
    pub(super) fn open(&mut self, handle: MbufHandle) -> Result<Granted, MbufError> {
        let (start, span) = self.named(handle)?;
        let me = self.set.member.slot();
        let fields = self.descriptor(start);
        let len = fields[descriptor::LEN].load(Relaxed);
        if len > self.layout.bytes_of(start, span).saturating_sub(GRANULE) {
            return Err(self.damaged());
        }
        let mut generation = handle.generation;
        let flight = fields[descriptor::FLIGHT].load(Relaxed);
        if handle.to == 0 && flight != 0 {
            // Handed over: not to be opened by a handle that is for anybody.
            return Err(MbufError::Stale { handle });
        }
        if handle.to != 0 {
            let is_here = flight != 0 && self.has_holder(start, me);
            if !is_here || self.private.held.contains_key(&start) {
                return Err(MbufError::Stale { handle });
            }
            generation = self.redraw(start, generation);
            fields[descriptor::FLIGHT].store(0, Relaxed);
        }
        self.note(start, span, count_of(generation))?;
        self.set_holder(start, me, true);
        Ok(Granted {
            start,
            span,
            len,
            generation,
        })
    }

    /// Notes a buffer as held once more, unless it lies across others that this process holds.
    fn note(&mut self, start: u64, span: u64, count: u32) -> Result<(), MbufError> {
        if let Some(held) = self.private.held.get_mut(&start)
            && held.span == span
            && held.count == count
        {
            held.times += 1;
            return Ok(());
        }
        if self.private.overlaps(start, span) {
            return Err(self.damaged());
        }
        let held = Held {
            span,
            count,
            times: 1,
        };
        self.private.held.insert(start, held);
        Ok(())
    }

    /// Revokes the handles of a buffer; its new generation.
    fn redraw(&mut self, start: u64, generation: u64) -> u64 {
        let old = generation as u32;
        let mut ticket = self.private.ticket();
        if ticket == old {
            ticket = !old;
        }
        let generation = u64::from(count_of(generation)) << 32 | u64::from(ticket);
        self.descriptor(start)[descriptor::GENERATION].store(generation, Relaxed);
        generation
    }

    /// Whether the records still say that this process holds the buffer that it has noted.
    fn is_ours(&self, start: u64, count: u32) -> bool {
        let generation = self.descriptor(start)[descriptor::GENERATION].load(Relaxed);
        self.is_start(start)
            && count_of(generation) == count
            && self.has_holder(start, self.set.member.slot())
    }

    /// Gives one hold of this process up, and the buffer if it was the last.
    pub(super) fn release(&mut self, start: u64, count: u32) {
        let noted = self.private.held.get_mut(&start);
        let Some(held) = noted.filter(|held| held.count == count) else {
            return;
        };
        held.times -= 1;
        if held.times > 0 {
            return;
        }
        let span = held.span;
        self.private.held.remove(&start);
        if self.is_ours(start, count) && self.span(start) == Some(span) {
            self.drop_holder(start, self.set.member.slot());
        } else {
            // Somebody wrote over the records; the buffer may be another's by now.
            self.private.is_suspect = true;
        }
    }

    /// Releases later: this process could not take the lock.
    pub(super) fn owe(set: &Set, index: usize, start: u64, count: u32) {
        if !set.member.is_forked() {
            let private = set.private[index].lock();
            let mut private = private.unwrap_or_else(PoisonError::into_inner);
            private.owed.push((start, count));
        }
    }

    /// Removes a holder; whether that freed the buffer.
    fn drop_holder(&self, start: u64, slot: u32) -> bool {
        self.set_holder(start, slot, false);
        if self.has_holders(start) {
            return false;
        }
        match self.span(start) {
            Some(span) => self.free(start, span),
            None => self.set_start(start, false),
        }
        true
    }

    fn is_sole_holder(&self, start: u64) -> bool {
        let (index, bit) = bit_of(self.set.member.slot());
        let is_ours = |(word, holders): (usize, &AtomicU64)| {
            holders.load(Relaxed) == if word == index { bit } else { 0 }
        };
        self.holders(start).iter().enumerate().all(is_ours)
    }

    /// Revokes the handles of a buffer that nobody else holds.
    pub(super) fn make_exclusive(&mut self, start: u64, count: u32) -> Result<(), MbufError> {
        if !self.is_ours(start, count) {
            return Err(self.damaged());
        }
        let times = self.private.held.get(&start).map_or(0, |held| held.times);
        if times != 1 || !self.is_sole_holder(start) {
            return Err(MbufError::Shared);
        }
        self.redraw(start, u64::from(count) << 32);
        Ok(())
    }

    /// Makes `to` the holder in place of this process, which is the only one; the generation for
    /// the handle.
    pub(super) fn hand_over(&mut self, start: u64, count: u32, to: u64) -> Result<u64, MbufError> {
        // Under the lock: a slot is reclaimed pool by pool under their locks, after its process
        // died, so that either it is seen here or the holder that is set here is seen there.
        if !Member::is_current(&self.set.memory, &self.set.layout, to) {
            return Err(MbufError::PeerGone);
        }
        self.make_exclusive(start, count)?;
        let me = self.set.member.id();
        self.descriptor(start)[descriptor::FLIGHT].store(me, Relaxed);
        // First its holder, then not ours: at no time nobody's.
        self.set_holder(start, slot_of(to), true);
        if to != me {
            self.set_holder(start, slot_of(me), false);
        }
        self.private.held.remove(&start);
        Ok(self.descriptor(start)[descriptor::GENERATION].load(Relaxed))
    }

    /// Removes a process from all holders; how many buffers that freed.
    pub(super) fn clean(&mut self, slot: u32) -> u64 {
        let mut freed = 0;
        for start in self.buffers() {
            if self.has_holder(start, slot) {
                freed += u64::from(self.drop_holder(start, slot));
            }
        }
        freed
    }

    /// Frees what `from` handed over to this process and this process has not opened; how many
    /// buffers that was.
    pub(super) fn settle(&mut self, from: u64) -> u64 {
        let (mut freed, me) = (0, self.set.member.slot());
        for start in self.buffers() {
            let flight = self.descriptor(start)[descriptor::FLIGHT].load(Relaxed);
            if flight == from
                && self.has_holder(start, me)
                && !self.private.held.contains_key(&start)
            {
                freed += u64::from(self.drop_holder(start, me));
            }
        }
        freed
    }

    /// Derives all maps and counts from the descriptors of the buffers that there are.
    pub(super) fn rebuild(&mut self) {
        let space = self.space();
        let top = self.counts()[counts::TOP].load(Relaxed);
        space.clear(top);
        let (mut used_bytes, mut buffers) = (0, 0);
        for start in self.buffers() {
            match self.span(start) {
                Some(span) if self.has_holders(start) && space.claim(start, span).is_ok() => {
                    used_bytes += self.layout.bytes_of(start, span);
                    buffers += 1;
                }
                // Nobody's, or written over.
                _ => self.set_start(start, false),
            }
        }
        // What is held here and lost to the others is at least not given out here once more.
        for (&start, held) in &self.private.held {
            if space.claim(start, held.span).is_ok() {
                used_bytes += self.layout.bytes_of(start, held.span);
            }
        }
        self.counts()[counts::USED_BYTES].store(used_bytes, Relaxed);
        self.counts()[counts::BUFFERS].store(buffers, Relaxed);
        self.private.is_suspect = false;
    }

    /// The file's ranges that nothing is in, from the granule `from` on, up to `most` bytes of
    /// them; and the granule to go on from, if there is more.
    pub(super) fn free_ranges(
        &self,
        from: u64,
        most: u64,
    ) -> (Vec<core::ops::Range<u64>>, Option<u64>) {
        let top = self.counts()[counts::TOP].load(Relaxed);
        let (mut ranges, mut bytes) = (Vec::new(), 0);
        for (start, count) in self.space().free_spans(from, top) {
            if bytes >= most {
                return (ranges, Some(start));
            }
            let range = self.layout.range(start, count);
            bytes += range.end - range.start;
            ranges.push(range);
        }
        (ranges, None)
    }
}

/// The generation of a buffer that this process holds, for a handle. No lock: only its sole holder
/// changes it.
pub(super) fn publish(set: &Set, index: usize, start: u64, count: u32) -> Result<u64, MbufError> {
    if set.member.is_forked() {
        return Err(MbufError::Forked);
    }
    let layout = &set.layout.pools[index];
    let first = start as usize * descriptor::WORDS + descriptor::GENERATION;
    let word = &set.memory.words(layout.descriptors)[first];
    let generation = word.load(Relaxed);
    if count_of(generation) != count {
        return Err(MbufError::Damaged { pool: index });
    }
    // Release pairs with the Acquire in `named`: who opens it sees what was written so far.
    word.store(generation, Ordering::Release);
    Ok(generation)
}
