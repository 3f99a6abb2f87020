//! Messages from one process to another, in shared memory and copied through
//! a socket pair.
//!
//! Both ways the sender works on the message's data, hands it to the other
//! process, and the receiver works on it; both do the same to it:
//!
//! | work | sender | receiver |
//! |---|---|---|
//! | ends | writes the first and the last word | reads them |
//! | pages | writes a word in each 4 KiB | reads them |
//! | all | writes every word | reads and adds up every word |
//!
//! The copying sender works in a buffer of its own that stays in its caches,
//! and so does the receiver. In shared memory each message is a new buffer;
//! handles travel through a socket
//! pair, up to sixteen at a time. With `ends` the figure is
//! what passing on costs; the more the two touch, the more of the time is that
//! of moving data between their processors, which both ways must do.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use bursar::{ExclusiveBytes, Mbuf, MbufError, MbufHandle, MbufPools, Peer, PoolSpec, SharedBytes};
use clap::ValueEnum;

/// Handles that travel together.
const BATCH: usize = 16;
/// Bytes of messages that travel together, if they are large.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of messages that the pool has room for: little enough for the
/// processors' caches.
const ROOM_BYTES: usize = 4 << 20;
const WORD: usize = size_of::<u64>();
const PAGE_WORDS: usize = 4096 / WORD;

/// How messages get from one process to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Way {
    /// In shared memory.
    Shared,
    /// Copied into a socket and out again.
    Copied,
}

/// What both sides do to a message's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Work {
    /// The first and the last word.
    Ends,
    /// A word in each 4 KiB.
    Pages,
    /// Every word.
    All,
}

impl Work {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Work::Ends => "ends",
            Work::Pages => "pages",
            Work::All => "all",
        }
    }

    /// The words that it touches, as a step and the last one.
    fn words(self, count: usize) -> impl Iterator<Item = usize> {
        let step = match self {
            Work::Ends => count.max(2) - 1,
            Work::Pages => PAGE_WORDS,
            Work::All => 1,
        };
        (0..count).step_by(step)
    }

    fn write_shared(self, mut data: ExclusiveBytes<'_>, value: u64) {
        let words = data.words();
        match self {
            Work::All => words.iter().for_each(|word| word.store(value, Relaxed)),
            _ => self
                .words(words.len())
                .for_each(|index| words[index].store(value, Relaxed)),
        }
    }

    fn read_shared(self, data: SharedBytes<'_>) -> u64 {
        let word = |index: usize| {
            let mut bytes = [0; WORD];
            data.read_at(index * WORD, &mut bytes);
            u64::from_ne_bytes(bytes)
        };
        match self {
            Work::All => data.words().fold(0, u64::wrapping_add),
            _ => self
                .words(data.len() / WORD)
                .map(word)
                .fold(0, u64::wrapping_add),
        }
    }

    fn write(self, data: &mut [u8], value: u64) {
        let bytes = value.to_ne_bytes();
        match self {
            Work::All => data
                .chunks_exact_mut(WORD)
                .for_each(|word| word.copy_from_slice(&bytes)),
            _ => self.words(data.len() / WORD).for_each(|index| {
                data[index * WORD..][..WORD].copy_from_slice(&bytes);
            }),
        }
    }

    fn read(self, data: &[u8]) -> u64 {
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        match self {
            Work::All => data.chunks_exact(WORD).map(word).fold(0, u64::wrapping_add),
            _ => {
                let indices = self.words(data.len() / WORD);
                let words = indices.map(|index| word(&data[index * WORD..][..WORD]));
                words.fold(0, u64::wrapping_add)
            }
        }
    }

    /// What the receiver comes to if message number `n` holds the number `n`.
    fn expected(self, len: usize, messages: u64) -> u64 {
        let sum = messages * (messages - 1) / 2;
        (self.words(len / WORD).count() as u64).wrapping_mul(sum)
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How.
    pub way: Way,
    /// What is done to the data.
    pub work: Work,
    /// Bytes of a message's data, a multiple of eight.
    pub len: usize,
    /// How many.
    pub messages: u64,
}

impl Run {
    /// Starts the receiver, the same program with these arguments; its
    /// standard input is the link.
    fn start(&self, link: UnixStream) -> Child {
        Command::new(std::env::current_exe().expect("this program has a path"))
            .arg("receive")
            .arg(match self.way {
                Way::Shared => "shared",
                Way::Copied => "copied",
            })
            .args([
                self.work.name(),
                &self.len.to_string(),
                &self.messages.to_string(),
            ])
            .stdin(Stdio::from(OwnedFd::from(link)))
            .spawn()
            .expect("this program can be started")
    }

    /// Sends all messages; how long it took until the receiver had seen the
    /// last one.
    ///
    /// # Panics
    /// If a process fails, or the receiver has seen other data.
    pub fn time(&self) -> Duration {
        let (mut link, other) = UnixStream::pair().expect("a socket pair");
        let mut receiver = self.start(other);
        // It says when it is there.
        let mut hello = [0; WORD];
        let time = match self.way {
            Way::Copied => {
                link.read_exact(&mut hello).expect("the receiver begins");
                let begun = Instant::now();
                self.send_copied(&mut link);
                self.confirm(&mut link);
                begun.elapsed()
            }
            Way::Shared => {
                let room = (ROOM_BYTES / self.len).max(2);
                let size = (room * (self.len + 1024)).to_string();
                let spec = PoolSpec::parse(&size).expect("it is a size");
                let pools = MbufPools::new(&spec).expect("there is address space");
                pools.send(&link).expect("the receiver begins");
                link.read_exact(&mut hello).expect("the receiver begins");
                let peer = Peer::from_bits(u64::from_le_bytes(hello)).expect("a name");
                let begun = Instant::now();
                self.send_shared(&pools, peer, &mut link);
                self.confirm(&mut link);
                begun.elapsed()
            }
        };
        assert!(receiver.wait().expect("it is a child").success());
        time
    }

    fn confirm(&self, link: &mut UnixStream) {
        let mut sum = [0; WORD];
        link.read_exact(&mut sum).expect("the receiver ends");
        assert_eq!(
            u64::from_le_bytes(sum),
            self.work.expected(self.len, self.messages)
        );
    }

    fn send_copied(&self, link: &mut UnixStream) {
        let mut data = vec![0; self.len];
        for number in 0..self.messages {
            self.work.write(&mut data, number);
            link.write_all(&data).expect("the link holds");
        }
    }

    fn send_shared(&self, pools: &MbufPools, peer: Peer, link: &mut UnixStream) {
        let most = BATCH.min(BATCH_BYTES / self.len).max(1) * MbufHandle::BYTES;
        let mut batch = Vec::new();
        for number in 0..self.messages {
            let mut mbuf = loop {
                match Mbuf::new(pools, self.len) {
                    Ok(mbuf) => break mbuf,
                    Err(MbufError::Full { .. }) => {
                        link.write_all(&batch).expect("the link holds");
                        batch.clear();
                        yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            let mut parts = mbuf.exclusive().expect("it is new");
            self.work.write_shared(parts.data(), number);
            let handle = mbuf.export_to(peer).expect("the receiver lives");
            batch.extend(handle.to_bytes());
            if batch.len() == most {
                link.write_all(&batch).expect("the link holds");
                batch.clear();
            }
        }
        link.write_all(&batch).expect("the link holds");
    }

    /// The receiver's part.
    ///
    /// # Panics
    /// If the sender fails.
    pub fn receive(&self, mut link: UnixStream) {
        let sum = match self.way {
            Way::Copied => self.receive_copied(&mut link),
            Way::Shared => self.receive_shared(&mut link),
        };
        link.write_all(&sum.to_le_bytes()).expect("the link holds");
    }

    fn receive_copied(&self, link: &mut UnixStream) -> u64 {
        let mut data = vec![0; self.len];
        link.write_all(&[0; WORD]).expect("the link holds");
        let mut next = || {
            link.read_exact(&mut data).expect("the link holds");
            self.work.read(&data)
        };
        (0..self.messages).fold(0, |sum, _| next().wrapping_add(sum))
    }

    fn receive_shared(&self, link: &mut UnixStream) -> u64 {
        let pools = MbufPools::receive(link).expect("the sender sends its pools");
        let me = pools.me().to_bits().to_le_bytes();
        link.write_all(&me).expect("the link holds");
        let mut bytes = [0; BATCH * MbufHandle::BYTES];
        let (mut sum, mut seen, mut here) = (0_u64, 0, 0);
        while seen < self.messages {
            here += link.read(&mut bytes[here..]).expect("the link holds");
            let (handles, rest) = bytes[..here].as_chunks();
            for &handle in handles {
                let handle = MbufHandle::from_bytes(handle);
                let mbuf = Mbuf::open(&pools, handle).expect("it was sent here");
                sum = sum.wrapping_add(self.work.read_shared(mbuf.data()));
                seen += 1;
            }
            let (read, rest) = (here - rest.len(), rest.len());
            bytes.copy_within(read..here, 0);
            here = rest;
        }
        sum
    }
}
