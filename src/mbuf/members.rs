//! The processes that are attached: each has a slot, and the kernel's lock on the slot's byte.
//!
//! ```text
//! slot s is a living process's   <=>   somebody has the lock on byte s, and its record is not 0
//! its record is not 0, and nobody has the lock   =>   it died; what it held is to be reclaimed
//! ```
//! The kernel grants the locks and drops them with the process, so no process can take another's
//! slot or make it seem dead, whatever it writes into the shared records; and who reclaims a dead
//! one's holds its lock meanwhile, so that if that one dies too, the next begins anew. Process
//! numbers were not taken for this: they are reused, differ between namespaces, and need `/proc` to
//! be told apart.

use super::error::MbufError;
use super::handle::Peer;
use super::layout::{Layout, PROCESSES, head};
use super::memory::{Memory, refused};
use crate::os::memfd::{self, ByteLocks};
use crate::os::sync::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SLOT_BITS: u32 = PROCESSES.ilog2();

/// The slot in a process's id.
pub(super) fn slot_of(id: u64) -> u32 {
    (id & u64::from(PROCESSES - 1)) as u32
}

/// This process among those attached.
pub(super) struct Member {
    pub(super) locks: ByteLocks,
    id: u64,
    forks: u32,
    /// Held while slots are looked after: the kernel does not tell the threads of one process
    /// apart.
    desk: Mutex<()>,
}

/// What joining came to: whether the slot's last process left buffers behind.
pub(super) struct Joined {
    pub(super) member: Member,
    pub(super) is_inherited: bool,
}

fn records<'a>(memory: &'a Memory, layout: &Layout) -> &'a [AtomicU64] {
    memory.words(layout.members)
}

impl Member {
    /// Takes a slot, one that was left in order rather than a dead process's.
    pub(super) fn join(memory: &Memory, layout: &Layout) -> Result<Joined, MbufError> {
        let locks = ByteLocks::new(memory.file()).map_err(refused("open"))?;
        let records = records(memory, layout);
        let mut found = None;
        for slot in 0..PROCESSES {
            if !locks
                .try_lock(slot)
                .map_err(refused("fcntl(F_OFD_SETLK)"))?
            {
                continue;
            }
            // Acquire pairs with the Release in `leave` and `reclaim`.
            if records[slot as usize].load(Ordering::Acquire) == 0 {
                if let Some(dead) = found.replace(slot) {
                    locks.unlock(dead);
                }
                break;
            }
            match found {
                None => found = Some(slot),
                Some(_) => locks.unlock(slot),
            }
        }
        let slot = found.ok_or(MbufError::TooManyProcesses)?;
        let record = &records[slot as usize];
        let is_inherited = record.load(Ordering::Relaxed) != 0;
        let attached = &memory.words(layout.head)[head::ATTACHED];
        // Never 0, since the count starts at 1: an id is given out once.
        let count = attached.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let id = (count << SLOT_BITS).max(1 << SLOT_BITS) | u64::from(slot);
        // Release pairs with the Acquire in `is_current`.
        record.store(id, Ordering::Release);
        let member = Member {
            locks,
            id,
            forks: memfd::forks(),
            desk: Mutex::new(()),
        };
        Ok(Joined {
            member,
            is_inherited,
        })
    }

    /// This process's id in the set; the word by which it holds locks.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn slot(&self) -> u32 {
        slot_of(self.id)
    }

    /// Whether this is a forked child of the process that attached.
    pub(super) fn is_forked(&self) -> bool {
        self.forks != memfd::forks()
    }

    /// Whether the id is that of its slot's present process, dead or alive.
    pub(super) fn is_current(memory: &Memory, layout: &Layout, id: u64) -> bool {
        let record = &records(memory, layout)[slot_of(id) as usize];
        // Acquire pairs with the Release in `join`.
        id != 0 && record.load(Ordering::Acquire) == id
    }

    /// Whether a process is attached and alive.
    pub(super) fn is_alive(&self, memory: &Memory, layout: &Layout, peer: Peer) -> bool {
        Member::is_current(memory, layout, peer.0)
            && (peer.0 == self.id || self.locks.is_locked_by_another(slot_of(peer.0)))
    }

    /// Whether a lock word names no process that could give the lock back: a dead one, none at all,
    /// or this one, which asks only while none of its threads has the lock.
    pub(super) fn is_dead(&self, memory: &Memory, layout: &Layout, id: u64) -> bool {
        id == self.id || !self.is_alive(memory, layout, Peer(id))
    }

    fn desk(&self) -> MutexGuard<'_, ()> {
        // It guards nothing in memory.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `clean` look after the slot of each process that died; a slot is free again if it
    /// succeeds. What `clean` answers is summed up.
    pub(super) fn reclaim(
        &self,
        memory: &Memory,
        layout: &Layout,
        mut clean: impl FnMut(u32) -> Result<u64, MbufError>,
    ) -> Result<u64, MbufError> {
        let _desk = self.desk();
        let mut sum = 0;
        for (slot, record) in (0..).zip(records(memory, layout)) {
            if slot == self.slot() || record.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let is_dead = self.locks.try_lock(slot);
            if !is_dead.map_err(refused("fcntl(F_OFD_SETLK)"))? {
                continue;
            }
            let cleaned = clean(slot);
            if cleaned.is_ok() {
                // Release pairs with the Acquire in `join`.
                record.store(0, Ordering::Release);
            }
            self.locks.unlock(slot);
            sum += cleaned?;
        }
        Ok(sum)
    }

    /// Gives the slot back; the process holds nothing any more. The lock goes with this value.
    pub(super) fn leave(&self, memory: &Memory, layout: &Layout) {
        // Release pairs with the Acquire in `join`.
        records(memory, layout)[self.slot() as usize].store(0, Ordering::Release);
    }
}
