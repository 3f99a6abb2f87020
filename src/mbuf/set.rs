//! A set of pools as one process sees it.

use super::error::MbufError;
use super::handle::{MbufHandle, Peer};
use super::layout::{GRANULE, Layout, MAGIC, counts, head};
use super::locked::{Locked, Private};
use super::members::Member;
use super::memory::{Memory, refused};
use super::pool::Granted;
use super::stats::MbufPoolStats;
use crate::os::memfd;
use crate::os::sync::{AtomicU64, Ordering};
use crate::pool::PoolSpec;
use core::fmt;
use core::hash::{BuildHasher, Hasher};
use std::hash::RandomState;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::string::String;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

/// Bytes of free memory that are given back under the pool's lock at a time.
const PURGE_STEP: u64 = 64 << 20;

/// What all handles of one process on one attachment share.
pub(super) struct Set {
    pub(super) memory: Memory,
    pub(super) layout: Layout,
    /// Which set it is.
    pub(super) id: u64,
    /// No request goes on to a pool with a higher limit.
    is_strict: bool,
    pub(super) member: Member,
    /// For each pool what only this process knows, and may decide about memory by.
    pub(super) private: Vec<Mutex<Private>>,
}

/// Pools of message buffers that processes share: one file in memory, attached by each of them.
///
/// A clone is the same attachment. The last one to go, [`Mbuf`](crate::Mbuf)s included, detaches;
/// the memory lives until every process has detached and closed its descriptors.
///
/// ```
/// use bursar::{Mbuf, MbufPools, PoolSpec};
///
/// let pools = MbufPools::new(&PoolSpec::parse("1048576,65536:4096")?)?;
/// let message = Mbuf::new(&pools, 3072)?;
/// let [_, small] = &pools.pools()[..] else { unreachable!() };
/// assert_eq!(small.used_bytes, 4096);
/// drop(message);
/// assert_eq!(pools.pools()[1].used_bytes, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MbufPools(pub(super) Arc<Set>);

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(super) fn write_head(words: &[AtomicU64], spec: &PoolSpec, is_strict: bool) {
    let store = |index: usize, value: u64| words[index].store(value, Ordering::Relaxed);
    for (index, pool) in spec.pools().enumerate() {
        store(head::TABLE + 2 * index, pool.size);
        store(head::TABLE + 2 * index + 1, pool.limit.unwrap_or(0));
    }
    store(head::SET, random());
    store(head::STRICT, is_strict.into());
    store(head::POOLS, spec.len() as u64);
    store(head::MAGIC, MAGIC);
}

/// The pools that a head names, as strictly looked at as a specification that somebody wrote.
fn read_spec(words: &[AtomicU64]) -> Option<PoolSpec> {
    let load = |index: usize| words.get(index).map(|word| word.load(Ordering::Relaxed));
    let count = load(head::POOLS)? as usize;
    let table = words.get(head::TABLE..head::WORDS)?.chunks_exact(2);
    let mut text = String::new();
    for pair in table.take(count) {
        let [size, limit] = [0, 1].map(|index: usize| pair[index].load(Ordering::Relaxed));
        let comma = if text.is_empty() { "" } else { "," };
        let _ = fmt::Write::write_fmt(&mut text, format_args!("{comma}{size}:{limit}"));
    }
    let spec = PoolSpec::parse(&text).ok()?;
    (spec.len() == count && load(head::MAGIC)? == MAGIC).then_some(spec)
}

impl MbufPools {
    /// Makes a set of pools and attaches to it. Nothing of it takes memory before it is used, but
    /// for some pages of records a pool.
    ///
    /// # Errors
    /// If the system refuses: mostly for want of address space, of which it takes the sum of all
    /// sizes and a fifteenth more.
    pub fn new(spec: &PoolSpec) -> Result<MbufPools, MbufError> {
        MbufPools::make(spec, false)
    }

    /// As [`new`](Self::new); but a request that finds the first pool that admits it full fails,
    /// and goes on to no other.
    ///
    /// # Errors
    /// As those of [`new`](Self::new).
    pub fn strict(spec: &PoolSpec) -> Result<MbufPools, MbufError> {
        MbufPools::make(spec, true)
    }

    fn make(spec: &PoolSpec, is_strict: bool) -> Result<MbufPools, MbufError> {
        let layout = Layout::new(spec);
        let memory = Memory::new(layout.len)?;
        for pool in &layout.pools {
            super::locked::close_end(&memory, pool);
        }
        write_head(memory.words(layout.head), spec, is_strict);
        MbufPools::join(memory, layout)
    }

    /// Attaches to the set of pools that another process made.
    ///
    /// # Errors
    /// If the descriptor is of something else, 256 processes are attached, or the system refuses.
    pub fn attach(fd: OwnedFd) -> Result<MbufPools, MbufError> {
        let memory = Memory::attach(fd)?;
        // A file that is too short for a head is no set of pools.
        let smallest = Layout::new(&PoolSpec::DEFAULT).head;
        if memory.len() < (smallest.offset() + smallest.count() * size_of::<u64>()) as u64 {
            return Err(MbufError::NotPools);
        }
        let spec = read_spec(memory.words(smallest)).ok_or(MbufError::NotPools)?;
        let layout = Layout::new(&spec);
        if memory.len() != layout.len {
            return Err(MbufError::NotPools);
        }
        MbufPools::join(memory, layout)
    }

    fn join(memory: Memory, layout: Layout) -> Result<MbufPools, MbufError> {
        let joined = Member::join(&memory, &layout)?;
        let words = memory.words(layout.head);
        let [id, strict] =
            [head::SET, head::STRICT].map(|word| words[word].load(Ordering::Relaxed));
        let private = layout.pools.iter();
        let private = private
            .map(|_| Mutex::new(Private::new(random())))
            .collect();
        let set = Set {
            id,
            is_strict: strict != 0,
            member: joined.member,
            private,
            memory,
            layout,
        };
        if joined.is_inherited {
            set.clean(set.member.slot())?;
        }
        Ok(MbufPools(Arc::new(set)))
    }

    /// The descriptor by which other processes may attach: inherited, or sent over a Unix socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.memory.file()
    }

    /// Sends the descriptor over a Unix socket, for [`receive`](Self::receive).
    ///
    /// # Errors
    /// If the system refuses.
    pub fn send(&self, socket: &UnixStream) -> Result<(), MbufError> {
        memfd::send(socket.as_fd(), self.fd()).map_err(refused("sendmsg"))
    }

    /// Attaches to the set of pools whose descriptor comes next over a Unix socket.
    ///
    /// # Errors
    /// If something else comes, and as those of [`attach`](Self::attach).
    pub fn receive(socket: &UnixStream) -> Result<MbufPools, MbufError> {
        let fd = memfd::receive(socket.as_fd()).map_err(refused("recvmsg"))?;
        MbufPools::attach(fd.ok_or(MbufError::NotPools)?)
    }

    /// The pools that the set was made of.
    pub fn spec(&self) -> &PoolSpec {
        &self.0.layout.spec
    }

    /// This process, as others name it.
    pub fn me(&self) -> Peer {
        Peer(self.0.member.id())
    }

    /// Whether a process is attached and alive. A system call.
    pub fn is_alive(&self, peer: Peer) -> bool {
        let set = &*self.0;
        set.member.is_alive(&set.memory, &set.layout, peer)
    }

    /// Frees what dead processes held and nobody else does; how many buffers that was. Done by
    /// itself before a request fails for want of room.
    ///
    /// A system call for each process, and a pass over all buffers for each dead one.
    ///
    /// # Errors
    /// [`Stalled`](MbufError::Stalled): then not all was looked at, and may be, later.
    pub fn reclaim(&self) -> Result<u64, MbufError> {
        self.0.reclaim()
    }

    /// Frees what a process that died [handed over](crate::Mbuf::export_to) to this one and this
    /// one has not opened; how many buffers that was. To be called when all that the dead one sent
    /// has been received: until then nobody can know which handles are still to come.
    ///
    /// A pass over all buffers.
    ///
    /// # Errors
    /// [`PeerAlive`](MbufError::PeerAlive), or [`Stalled`](MbufError::Stalled).
    pub fn settle(&self, peer: Peer) -> Result<u64, MbufError> {
        if self.is_alive(peer) {
            return Err(MbufError::PeerAlive);
        }
        self.0.each_pool(|pool| pool.settle(peer.0))
    }

    /// Gives the pages of free spans back to the system; how many bytes of address space they
    /// span. Without it, what was touched once stays, for the next buffer there.
    ///
    /// # Errors
    /// [`Stalled`](MbufError::Stalled), or what the system refuses.
    pub fn purge(&self) -> Result<u64, MbufError> {
        let mut bytes = 0;
        for index in 0..self.0.layout.pools.len() {
            let mut from = Some(0);
            while let Some(next) = from {
                // Let go between the steps: giving pages back takes its time.
                let pool = Locked::new(&self.0, index)?;
                let (ranges, rest) = pool.free_ranges(next, PURGE_STEP);
                for range in ranges {
                    let len = range.end - range.start;
                    memfd::punch(self.fd(), range.start, len).map_err(refused("fallocate"))?;
                    bytes += len;
                }
                from = rest;
            }
        }
        Ok(bytes)
    }

    /// Derives the maps and counts of all pools anew from the buffers that there are, as is done by
    /// itself where a contradiction is met. For when some process is known to have written where
    /// it should not: what it did to a map may otherwise just look like a full pool.
    ///
    /// # Errors
    /// [`Stalled`](MbufError::Stalled).
    pub fn repair(&self) -> Result<(), MbufError> {
        self.0.each_pool(|pool| {
            pool.rebuild();
            0
        })?;
        Ok(())
    }

    /// What each pool has given out, in the order of the specification.
    pub fn pools(&self) -> Vec<MbufPoolStats> {
        let pools = self.0.layout.pools.iter();
        pools
            .map(|pool| MbufPoolStats::take(&self.0, pool))
            .collect()
    }
}

impl fmt::Debug for MbufPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MbufPools")
            .field("spec", self.spec())
            .field("me", &self.me())
            .finish_non_exhaustive()
    }
}

impl Set {
    fn each_pool(&self, mut work: impl FnMut(&mut Locked<'_>) -> u64) -> Result<u64, MbufError> {
        let mut sum = 0;
        for index in 0..self.layout.pools.len() {
            sum += work(&mut Locked::new(self, index)?);
        }
        Ok(sum)
    }

    fn clean(&self, slot: u32) -> Result<u64, MbufError> {
        self.each_pool(|pool| pool.clean(slot))
    }

    fn reclaim(&self) -> Result<u64, MbufError> {
        if self.member.is_forked() {
            return Err(MbufError::Forked);
        }
        self.member
            .reclaim(&self.memory, &self.layout, |slot| self.clean(slot))
    }

    /// A buffer for a request of `bytes`, head included, and its pool.
    pub(super) fn allocate(&self, bytes: u64) -> Result<(usize, Granted), MbufError> {
        let route = self.layout.spec.route(bytes);
        let route = if self.is_strict {
            &route[..route.len().min(1)]
        } else {
            route
        };
        let Some(last) = route.last() else {
            let limit = self.layout.pools.iter().filter_map(|pool| pool.limit).max();
            let limit = limit.unwrap_or(0);
            return Err(MbufError::NotAdmitted { bytes, limit });
        };
        for index in route.iter().map(|&index| usize::from(index)) {
            let mut pool = Locked::new(self, index)?;
            pool.count(counts::REQUESTS);
            if let Some(granted) = pool.allocate(bytes)? {
                return Ok((index, granted));
            }
            if index != usize::from(*last) {
                pool.count(counts::FALL_THROUGHS);
            }
        }
        self.allocate_reclaimed(bytes, route)
    }

    /// Once more after reclaiming, and that failing, a failure of the last pool.
    #[cold]
    fn allocate_reclaimed(&self, bytes: u64, route: &[u8]) -> Result<(usize, Granted), MbufError> {
        if self.reclaim()? > 0 {
            for index in route.iter().map(|&index| usize::from(index)) {
                if let Some(granted) = Locked::new(self, index)?.allocate(bytes)? {
                    return Ok((index, granted));
                }
            }
        }
        if let Some(&last) = route.last() {
            Locked::new(self, last.into())?.count(counts::FAILURES);
        }
        Err(MbufError::Full { bytes })
    }

    /// A handle for a buffer.
    pub(super) fn handle(&self, pool: usize, start: u64, generation: u64, to: u64) -> MbufHandle {
        MbufHandle {
            set: self.id,
            offset: start * GRANULE,
            generation,
            to,
            pool: pool as u32,
        }
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        if self.member.is_forked() {
            return;
        }
        // Nothing is held any more but what others handed over and nobody opened. If a pool is
        // stalled, the slot looks like a dead process's, and others reclaim what is in it.
        if self.clean(self.member.slot()).is_ok() {
            self.member.leave(&self.memory, &self.layout);
        }
    }
}
