//! What holders may do to each other, and what is left when they die. A second attachment of the
//! same process stands for a second process: the kernel tells their locks apart.

mod dying;
mod holding;
mod scribbles;

use super::layout::GRANULE;
use super::{Mbuf, MbufError, MbufPools};
use crate::os::memfd::tests::without_children;
use crate::pool::PoolSpec;
use core::mem::forget;
use std::vec::Vec;

const MIB: usize = 1 << 20;

fn pools(spec: &str) -> MbufPools {
    MbufPools::new(&PoolSpec::must_parse(spec)).unwrap()
}

fn attach(pools: &MbufPools) -> MbufPools {
    MbufPools::attach(pools.fd().try_clone_to_owned().unwrap()).unwrap()
}

/// What a process leaves that is killed: nothing happens but that its locks are dropped.
fn die(pools: MbufPools, held: Vec<Mbuf>) {
    forget(held);
    // SAFETY: read once; the value that it is read from is never used again.
    without_children(|| drop(unsafe { core::ptr::read(&pools.0.member.locks) }));
    forget(pools);
}

fn used(pools: &MbufPools) -> u64 {
    pools.check().unwrap();
    pools.pools().iter().map(|pool| pool.used_bytes).sum()
}

/// A request of so many bytes, head included.
fn request(pools: &MbufPools, bytes: u64) -> Result<Mbuf, MbufError> {
    Mbuf::new(pools, (bytes - GRANULE) as usize)
}
