//! The operating system and the machine: the lowest layer, and the only one with `cfg` and system
//! calls in it. Nothing here allocates, and nothing here knows what the memory is for.

pub(crate) mod sync;

#[cfg(not(loom))]
mod call;
#[cfg(not(loom))]
pub(crate) mod clock;
#[cfg(not(loom))]
pub(crate) mod fault;
#[cfg(not(loom))]
pub(crate) mod fork;
#[cfg(not(loom))]
pub(crate) mod lock;
#[cfg(not(loom))]
pub(crate) mod map;
#[cfg(all(feature = "mbuf", not(loom)))]
pub(crate) mod memfd;
#[cfg(not(loom))]
pub(crate) mod object;
#[cfg(not(loom))]
pub(crate) mod output;
#[cfg(not(loom))]
pub(crate) mod process;
#[cfg(not(loom))]
pub(crate) mod random;
#[cfg(not(loom))]
pub(crate) mod thread;
#[cfg(all(feature = "sites", not(loom)))]
pub(crate) mod unwind;

#[cfg(not(target_os = "linux"))]
compile_error!("bursar runs on Linux only: it needs mremap, madvise and futexes as Linux has them");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("bursar needs 64-bit addresses: its regions are reserved ranges of address space");

/// log2 of the bytes of a region slot: where regions may lie.
#[cfg(target_arch = "x86_64")]
pub(crate) const REGION_SHIFT: u32 = 40;
/// log2 of the bytes of a region slot: a 39-bit address space still has eight.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const REGION_SHIFT: u32 = 36;

/// log2 of the end of the addresses that user space can have.
#[cfg(target_arch = "x86_64")]
pub(crate) const ADDRESS_BITS: u32 = 47;
/// log2 of the end of the addresses that user space can have, on the smallest configuration.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const ADDRESS_BITS: u32 = 39;
