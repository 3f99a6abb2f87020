//! Processes that allocate, pass on and free message buffers at random, and look after their
//! contents.

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;

use bursar::{Mbuf, MbufError, MbufHandle, MbufPools, Peer};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

const HANDLES: usize = 64;
const PEERS: usize = 16;
/// Words that a handle takes.
const HANDLE_WORDS: usize = MbufHandle::BYTES.div_ceil(8);

/// Memory that the processes share to tell each other of handles, without any care: a handle that
/// is read while it is written is a forged one.
#[derive(Clone, Copy)]
pub struct Board {
    words: &'static [AtomicU64],
}

impl Board {
    /// An empty one, shared with the children forked from now on.
    ///
    /// # Panics
    /// If there is no memory.
    pub fn new() -> Self {
        let count = HANDLES * HANDLE_WORDS + PEERS + 2;
        let bytes = NonZeroUsize::new(count * 8).expect("there are words");
        let (protection, flags) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        );
        // SAFETY: new memory, all zero, mapped for good, and reached as atomic words only.
        let words = unsafe {
            let start = mmap_anonymous(None, bytes, protection, flags).expect("there is memory");
            std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), count)
        };
        Self { words }
    }

    fn handle(&self, index: usize) -> &[AtomicU64] {
        &self.words[index * HANDLE_WORDS..(index + 1) * HANDLE_WORDS]
    }

    fn post(&self, index: usize, handle: MbufHandle) {
        let mut bytes = [0; HANDLE_WORDS * 8];
        bytes[..MbufHandle::BYTES].copy_from_slice(&handle.to_bytes());
        for (word, bytes) in self.handle(index).iter().zip(bytes.chunks_exact(8)) {
            let value = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
            word.store(value, Ordering::Relaxed);
        }
    }

    fn posted(&self, index: usize) -> MbufHandle {
        let words = self.handle(index).iter();
        let bytes = words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        let mut handle = [0; MbufHandle::BYTES];
        handle
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = from);
        MbufHandle::from_bytes(handle)
    }

    fn peer(&self, index: usize) -> &AtomicU64 {
        &self.words[HANDLES * HANDLE_WORDS + index % PEERS]
    }

    /// Whether the `count` first processes are at work.
    pub fn are_here(&self, count: usize) -> bool {
        (0..count).all(|index| self.peer(index).load(Ordering::Relaxed) != 0)
    }

    fn stop_word(&self) -> &AtomicU64 {
        &self.words[HANDLES * HANDLE_WORDS + PEERS]
    }

    /// Buffers that were given out so far, to all processes.
    pub fn given(&self) -> &AtomicU64 {
        &self.words[HANDLES * HANDLE_WORDS + PEERS + 1]
    }

    /// Has all processes come to their end.
    pub fn stop(&self) {
        self.stop_word().store(1, Ordering::Relaxed);
    }

    /// Whether all processes are to come to their end.
    pub fn is_stopped(&self) -> bool {
        self.stop_word().load(Ordering::Relaxed) != 0
    }
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

/// How a worker takes what it finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// The shared records are in order, and contents are as their writers left them.
    Strict,
    /// Somebody writes anything anywhere: all errors and contents will do.
    Lenient,
}

/// A process that works with message buffers.
pub struct Worker<'a> {
    pools: &'a MbufPools,
    board: Board,
    temper: Temper,
    rng: SmallRng,
    most_len: usize,
    held: Vec<Mbuf>,
    stamp: u64,
}

impl<'a> Worker<'a> {
    /// The `index`th one.
    pub fn new(
        pools: &'a MbufPools,
        board: Board,
        temper: Temper,
        index: usize,
        most_len: usize,
    ) -> Self {
        let me = pools.me().to_bits();
        board.peer(index).store(me, Ordering::Relaxed);
        Self {
            pools,
            board,
            temper,
            rng: SmallRng::seed_from_u64(me),
            most_len,
            held: Vec::new(),
            stamp: me << 32,
        }
    }

    /// Works until all are told to stop.
    pub fn run(&mut self) {
        while !self.board.is_stopped() {
            self.step();
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..12) {
            0..4 => self.allocate(),
            4 => self.export(),
            5 => self.hand_over(),
            6..8 => self.open(),
            8 => self.write(),
            9 => self.look_over(),
            _ => drop(self.take()),
        }
        if self.held.len() > 40 {
            self.held.truncate(20);
        }
    }

    fn take(&mut self) -> Option<Mbuf> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(self.rng.random_range(0..count)))
    }

    /// Panics at errors that cannot be, unless anything can. Who has the lock of a pool may be kept
    /// from its processor for longer than others wait; what keeps a lock for good is found when all
    /// have come to their end.
    fn expect(&self, error: MbufError, is_expected: bool) {
        let is_expected = is_expected || matches!(error, MbufError::Stalled { .. });
        assert!(is_expected || self.temper == Temper::Lenient, "{error}");
    }

    fn allocate(&mut self) {
        let len = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(0..=self.most_len),
            _ => self.rng.random_range(0..=self.most_len / 16),
        };
        match Mbuf::new(self.pools, len) {
            Ok(mut mbuf) => {
                self.board.given().fetch_add(1, Ordering::Relaxed);
                assert_eq!(mbuf.len(), len);
                let size = self.pools.pools()[mbuf.pool()].size;
                assert!(
                    mbuf.offset() + len as u64 + 1024 <= size,
                    "{mbuf:?} of {size}"
                );
                self.fill(&mut mbuf);
                self.held.push(mbuf);
            }
            Err(error) => {
                self.expect(error, matches!(error, MbufError::Full { .. }));
                self.held.pop();
                yield_now();
            }
        }
    }

    /// Writes the same word everywhere, one that no other writer has.
    fn fill(&mut self, mbuf: &mut Mbuf) {
        self.stamp += 1;
        match mbuf.exclusive() {
            Ok(mut parts) => {
                let mut data = parts.data();
                data.words()
                    .iter()
                    .for_each(|word| word.store(self.stamp, Ordering::Relaxed));
                parts.head().set_return_code(self.stamp as i64);
            }
            Err(error) => self.expect(error, error == MbufError::Shared),
        }
    }

    /// What is held is as its writer left it.
    fn verify(&self, mbuf: &Mbuf) {
        let stamp = mbuf.head().return_code() as u64;
        let is_whole = mbuf.data().words().all(|word| word == stamp);
        assert!(
            is_whole || self.temper == Temper::Lenient,
            "{mbuf:?} holds other words"
        );
    }

    fn export(&mut self) {
        if let Some(mbuf) = self.take() {
            match mbuf.export() {
                Ok(handle) => self.board.post(self.rng.random_range(0..HANDLES), handle),
                Err(error) => self.expect(error, false),
            }
            self.held.push(mbuf);
        }
    }

    fn hand_over(&mut self) {
        let peer = self.board.peer(self.rng.random_range(0..PEERS));
        let peer = Peer::from_bits(peer.load(Ordering::Relaxed));
        let (Some(mbuf), Some(peer)) = (self.take(), peer) else {
            return;
        };
        match mbuf.export_to(peer) {
            Ok(handle) => self.board.post(self.rng.random_range(0..HANDLES), handle),
            Err((mbuf, error)) => {
                self.expect(
                    error,
                    matches!(error, MbufError::Shared | MbufError::PeerGone),
                );
                self.held.push(mbuf);
            }
        }
    }

    fn open(&mut self) {
        let handle = self.board.posted(self.rng.random_range(0..HANDLES));
        match Mbuf::open(self.pools, handle) {
            Ok(mbuf) => {
                self.verify(&mbuf);
                self.held.push(mbuf);
            }
            Err(error) => {
                let is_expected = matches!(
                    error,
                    MbufError::Stale { .. }
                        | MbufError::Foreign { .. }
                        | MbufError::Invalid { .. }
                        | MbufError::NotForThisProcess { .. }
                );
                self.expect(error, is_expected);
            }
        }
    }

    fn write(&mut self) {
        if let Some(mut mbuf) = self.take() {
            self.verify(&mbuf);
            self.fill(&mut mbuf);
            self.held.push(mbuf);
        }
    }

    fn look_over(&self) {
        self.held.iter().for_each(|mbuf| self.verify(mbuf));
    }
}

/// Writes anything anywhere into a file until all are told to stop.
///
/// # Panics
/// If the file cannot be mapped.
pub fn scribble(file: BorrowedFd<'_>, board: Board, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let words = whole(file);
    // Records come first. Some at a time, so that the others get some work done.
    let records = words.len() / 4;
    while !board.is_stopped() {
        let end = if rng.random_bool(0.9) {
            records
        } else {
            words.len()
        };
        // Where something is, mostly.
        let mut places = std::iter::repeat_with(|| rng.random_range(0..end)).take(8);
        let is_used = |&at: &usize| words[at].load(Ordering::Relaxed) != 0;
        let at = places.find(is_used).unwrap_or(0);
        let value = match rng.random_range(0..6) {
            0 => rng.next_u64(),
            1 => rng.random_range(0..5000),
            2 => 0,
            3 => u64::MAX,
            4 => words[rng.random_range(0..records)].load(Ordering::Relaxed),
            _ => words[at].load(Ordering::Relaxed) ^ 1 << rng.random_range(0..64),
        };
        words[at].store(value, Ordering::Relaxed);
        if rng.random_bool(0.01) {
            yield_now();
        }
    }
}

/// All words of a file.
fn whole(file: BorrowedFd<'_>) -> &'static [AtomicU64] {
    let len = nix::sys::stat::fstat(file).expect("it is open").st_size as usize;
    let size = NonZeroUsize::new(len).expect("it is not empty");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a file whose size is fixed for good, mapped for good, and reached as atomic words
    // only; that others may not like what is written is the point.
    unsafe {
        let flags = MapFlags::MAP_SHARED;
        let start = nix::sys::mman::mmap(None, size, protection, flags, file, 0);
        let start = start.expect("there is address space").as_ptr();
        std::slice::from_raw_parts(start.cast::<AtomicU64>(), len / 8)
    }
}
