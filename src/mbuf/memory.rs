//! The shared file, mapped. Other processes may write any byte of it at any time, so it is reached
//! as atomic words only: no value in it is ever behind a Rust reference but an `AtomicU64`.

use super::error::MbufError;
use super::layout::Words;
use crate::os::map::Refused;
use crate::os::memfd;
use crate::os::sync::AtomicU64;
use core::mem::align_of;
use memmap2::MmapRaw;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A refused call as an error.
pub(super) fn refused(call: &'static str) -> impl Fn(Refused) -> MbufError {
    move |Refused(errno)| MbufError::System { call, errno }
}

/// The file and its mapping.
pub(super) struct Memory {
    file: OwnedFd,
    map: MmapRaw,
}

impl Memory {
    /// Makes a file of `len` bytes, all zero.
    pub(super) fn new(len: u64) -> Result<Memory, MbufError> {
        let file = memfd::create(c"bursar-mbuf", len).map_err(refused("memfd_create"))?;
        Memory::attach(file)
    }

    /// Maps a file whose size is fixed for good: nobody can take pages from under the mapping.
    pub(super) fn attach(file: OwnedFd) -> Result<Memory, MbufError> {
        let len = memfd::sealed_len(file.as_fd())
            .map_err(refused("fcntl(F_GET_SEALS)"))?
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(MbufError::NotPools)?;
        let map = memfd::map(file.as_fd(), len).map_err(refused("mmap"))?;
        Ok(Memory { file, map })
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// A range of words.
    pub(super) fn words(&self, words: Words) -> &[AtomicU64] {
        let bytes = words.count() * size_of::<u64>();
        assert!(words.offset() + bytes <= self.map.len());
        debug_assert!(words.offset().is_multiple_of(align_of::<AtomicU64>()));
        // SAFETY: inside the mapping, which lives as long as `self` and, the file being sealed, is
        // backed for all its length; aligned, since the mapping starts on a page and layouts align
        // their parts. Everybody in this process reaches it as these atomic words only.
        unsafe {
            let start = self.map.as_ptr().add(words.offset());
            core::slice::from_raw_parts(start.cast::<AtomicU64>(), words.count())
        }
    }
}
