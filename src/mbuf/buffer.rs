//! A message buffer as its holder sees it.

use super::bytes::{ExclusiveBytes, SharedBytes};
use super::error::MbufError;
use super::handle::{MbufHandle, Peer};
use super::head::{HEAD, Head, HeadMut, Record};
use super::locked::Locked;
use super::pool::{Granted, count_of};
use super::set::{MbufPools, Set};
use crate::os::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::fmt;
use std::sync::Arc;

const WORD: usize = size_of::<u64>();

/// A buffer in memory that processes share: a head of 1024 bytes, and data.
///
/// Processes hold buffers; the last that lets go of one gives it back. A clone is the same hold of
/// this process. While others may hold it too, it can be read only; whoever is the only one may
/// [write](Mbuf::exclusive).
///
/// ```
/// use bursar::{DataType, Mbuf, MbufPools, PoolSpec};
/// use std::os::fd::AsFd;
///
/// let pools = MbufPools::new(&PoolSpec::default())?;
/// let mut message = Mbuf::new(&pools, 5)?;
/// let mut parts = message.exclusive()?;
/// parts.head().set_data_type(DataType::TEXT);
/// parts.data().write_at(0, b"hello");
/// let handle = message.export()?.to_bytes();
///
/// // Another process, which was sent the descriptor and the handle:
/// let attached = MbufPools::attach(pools.fd().try_clone_to_owned()?)?;
/// let received = Mbuf::open(&attached, bursar::MbufHandle::from_bytes(handle))?;
/// assert_eq!(received.head().data_type(), DataType::TEXT);
/// assert_eq!(received.data().to_vec(), b"hello");
/// // Two hold it: nobody writes.
/// assert!(message.exclusive().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Mbuf {
    hold: Arc<Hold>,
}

/// One time that this process opened a buffer.
struct Hold {
    set: Arc<Set>,
    pool: usize,
    granted: Granted,
    /// Whether there may be handles by which others can open it, or have.
    is_exported: AtomicBool,
    /// Whether it has been handed over: there is nothing to give back.
    is_gone: AtomicBool,
}

impl Hold {
    fn count(&self) -> u32 {
        count_of(self.granted.generation)
    }

    /// All words of the buffer.
    fn words(&self) -> &[AtomicU64] {
        let layout = &self.set.layout.pools[self.pool];
        match layout.buffer(self.granted.start, self.granted.span) {
            Some(words) => self.set.memory.words(words),
            // Spans are looked at before they are granted.
            None => &[],
        }
    }

    fn record(&self) -> &Record {
        Record::of(self.words())
    }

    /// The words of the data, and how many bytes that is.
    fn data(&self) -> (&[AtomicU64], usize) {
        (&self.words()[HEAD / WORD..], self.granted.len as usize)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if *self.is_gone.get_mut() {
            return;
        }
        let (start, count) = (self.granted.start, self.count());
        match Locked::new(&self.set, self.pool) {
            Ok(mut pool) => pool.release(start, count),
            Err(_) => Locked::owe(&self.set, self.pool, start, count),
        }
    }
}

impl Mbuf {
    /// Allocates a buffer with room for `len` bytes of data, in the pool that is due for a request
    /// of `len` and the head's 1024 bytes: of those whose limit admits it the one with the lowest
    /// that has room.
    ///
    /// The head is cleared, and says that all of the data counts. The data is whatever the last
    /// message there left, or zeroes; its pages are not touched. A lock and a search of a word for
    /// each 4 MiB: a few hundred nanoseconds, and for large buffers some microseconds a GiB.
    ///
    /// # Errors
    /// [`Full`](MbufError::Full), [`NotAdmitted`](MbufError::NotAdmitted),
    /// [`Stalled`](MbufError::Stalled), [`Damaged`](MbufError::Damaged),
    /// [`Forked`](MbufError::Forked).
    pub fn new(pools: &MbufPools, len: usize) -> Result<Mbuf, MbufError> {
        let bytes = (len as u64).saturating_add(HEAD as u64);
        let (pool, granted) = pools.0.allocate(bytes)?;
        let mbuf = Mbuf::of(pools, pool, granted, false);
        mbuf.hold.record().clear(granted.len);
        Ok(mbuf)
    }

    fn of(pools: &MbufPools, pool: usize, granted: Granted, is_exported: bool) -> Mbuf {
        Mbuf {
            hold: Arc::new(Hold {
                set: Arc::clone(&pools.0),
                pool,
                granted,
                is_exported: AtomicBool::new(is_exported),
                is_gone: AtomicBool::new(false),
            }),
        }
    }

    /// Opens the buffer that a handle names: this process holds it from now on. No copy; a lock.
    ///
    /// # Errors
    /// [`Foreign`](MbufError::Foreign), [`Invalid`](MbufError::Invalid),
    /// [`NotForThisProcess`](MbufError::NotForThisProcess) and [`Stale`](MbufError::Stale) for what
    /// the handle may be; [`Stalled`](MbufError::Stalled), [`Damaged`](MbufError::Damaged),
    /// [`Forked`](MbufError::Forked).
    pub fn open(pools: &MbufPools, handle: MbufHandle) -> Result<Mbuf, MbufError> {
        let set = &pools.0;
        if handle.set != set.id {
            return Err(MbufError::Foreign { handle });
        }
        if handle.to != 0 && handle.to != set.member.id() {
            return Err(MbufError::NotForThisProcess { handle });
        }
        if handle.pool() >= set.layout.pools.len() {
            return Err(MbufError::Invalid { handle });
        }
        let granted = Locked::new(set, handle.pool())?.open(handle)?;
        // What was handed over has no other handle.
        Ok(Mbuf::of(pools, handle.pool(), granted, handle.to == 0))
    }

    /// A handle by which any attached process can open the buffer for as long as somebody holds it:
    /// hold it until the others have said that they do.
    ///
    /// # Errors
    /// [`Damaged`](MbufError::Damaged), [`Forked`](MbufError::Forked).
    pub fn export(&self) -> Result<MbufHandle, MbufError> {
        let hold = &*self.hold;
        hold.is_exported.store(true, Relaxed);
        let generation =
            super::pool::publish(&hold.set, hold.pool, hold.granted.start, hold.count())?;
        Ok(hold
            .set
            .handle(hold.pool, hold.granted.start, generation, 0))
    }

    /// Hands the buffer over to another process, which holds it at once; the handle is for that
    /// process alone, and for once. Older handles are revoked.
    ///
    /// If the receiver dies, before or after it has opened it, the buffer is reclaimed. If this
    /// process dies before it could send the handle, the receiver holds a buffer that it does not
    /// know of, until it [settles](MbufPools::settle) with this process or goes itself.
    ///
    /// # Errors
    /// The buffer comes back, with [`Shared`](MbufError::Shared) if others hold it,
    /// [`PeerGone`](MbufError::PeerGone), [`Stalled`](MbufError::Stalled),
    /// [`Damaged`](MbufError::Damaged), [`Forked`](MbufError::Forked).
    #[must_use = "the receiver holds the buffer, and can open it by this handle only"]
    pub fn export_to(self, peer: Peer) -> Result<MbufHandle, (Mbuf, MbufError)> {
        let hold = &*self.hold;
        if Arc::strong_count(&self.hold) != 1 {
            return Err((self, MbufError::Shared));
        }
        let start = hold.granted.start;
        let handed = Locked::new(&hold.set, hold.pool)
            .and_then(|mut pool| pool.hand_over(start, hold.count(), peer.0));
        match handed {
            Ok(generation) => {
                hold.is_gone.store(true, Relaxed);
                Ok(hold.set.handle(hold.pool, start, generation, peer.0))
            }
            Err(refused) => Err((self, refused)),
        }
    }

    /// The buffer to be written, if nobody else holds it. Handles that are about are revoked, so
    /// that nobody comes to hold it meanwhile: a lock, if there are any.
    ///
    /// # Errors
    /// [`Shared`](MbufError::Shared), [`Stalled`](MbufError::Stalled),
    /// [`Damaged`](MbufError::Damaged), [`Forked`](MbufError::Forked).
    pub fn exclusive(&mut self) -> Result<MbufMut<'_>, MbufError> {
        let hold = Arc::get_mut(&mut self.hold).ok_or(MbufError::Shared)?;
        if *hold.is_exported.get_mut() {
            let (start, count) = (hold.granted.start, hold.count());
            Locked::new(&hold.set, hold.pool)?.make_exclusive(start, count)?;
            *hold.is_exported.get_mut() = false;
        }
        Ok(MbufMut { hold })
    }

    /// The head.
    pub fn head(&self) -> Head<'_> {
        Head::new(self.hold.record())
    }

    /// The data: as many bytes as were asked for.
    pub fn data(&self) -> SharedBytes<'_> {
        let (words, len) = self.hold.data();
        SharedBytes::new(words, len)
    }

    /// Bytes of data that there is room for.
    pub fn len(&self) -> usize {
        self.hold.granted.len as usize
    }

    /// Whether there is a head only.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pool that it lies in, from 0 in the order of the specification.
    pub fn pool(&self) -> usize {
        self.hold.pool
    }

    /// Where it begins in its pool, in bytes.
    pub fn offset(&self) -> u64 {
        self.hold.granted.start * super::layout::GRANULE
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("pool", &self.pool())
            .field("offset", &self.offset())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// A buffer that only this process holds, to be written. While there is one nobody else can come
/// to hold the buffer.
pub struct MbufMut<'a> {
    hold: &'a Hold,
}

impl MbufMut<'_> {
    /// The head.
    pub fn head(&mut self) -> HeadMut<'_> {
        HeadMut::new(self.hold.record())
    }

    /// The data.
    pub fn data(&mut self) -> ExclusiveBytes<'_> {
        let (words, len) = self.hold.data();
        ExclusiveBytes::new(words, len)
    }
}

impl fmt::Debug for MbufMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MbufMut({} bytes)", self.hold.granted.len)
    }
}
