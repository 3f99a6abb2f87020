//! A stack of arenas without a thread: lock-free, with a version beside the head so that a pop
//! whose head was popped and pushed again in the meantime does not succeed with a stale successor.

use crate::os::sync::{AtomicU64, Ordering};

/// What makes something stackable. Type-stable: a slow popper may read the link of a node that was
/// popped long ago.
#[repr(C, align(128))]
pub(crate) struct Node {
    next: AtomicU64,
}

/// The stack: address of the first node in units of 128 bytes, enough for 52-bit addresses, and 19
/// bits of version above it.
pub(crate) struct Stack(AtomicU64);

const ADDRESS_BITS: u32 = 45;
const ADDRESS: u64 = (1 << ADDRESS_BITS) - 1;
const UNIT_SHIFT: u32 = align_of::<Node>().trailing_zeros();

fn pack(node: *const Node, version: u64) -> u64 {
    version << ADDRESS_BITS | (node.addr() as u64) >> UNIT_SHIFT
}

fn node(word: u64) -> *const Node {
    core::ptr::with_exposed_provenance(((word & ADDRESS) << UNIT_SHIFT) as usize)
}

fn version(word: u64) -> u64 {
    word >> ADDRESS_BITS
}

impl Node {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Node {
        Node {
            next: AtomicU64::new(0),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Node {
        Node {
            next: AtomicU64::new(0),
        }
    }
}

impl Stack {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Stack {
        Stack(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Stack {
        Stack(AtomicU64::new(0))
    }

    /// Puts a node on the stack.
    pub(crate) fn push(&self, pushed: &'static Node) {
        let mut word = self.0.load(Ordering::Relaxed);
        let address = core::ptr::from_ref(pushed);
        address.expose_provenance();
        loop {
            pushed.next.store(word & ADDRESS, Ordering::Relaxed);
            let next = pack(address, version(word).wrapping_add(1));
            // Release pairs with the Acquire in `pop`: the arena is seen as its thread left it.
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Takes the node that was pushed last.
    pub(crate) fn pop(&self) -> Option<&'static Node> {
        // Acquire: see `push`; the link of the node is read before it is known to be ours.
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            // SAFETY: nodes are never given up, and the stack holds only nodes.
            let first = unsafe { node(word).as_ref()? };
            let below = first.next.load(Ordering::Relaxed);
            let next = version(word).wrapping_add(1) << ADDRESS_BITS | below;
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(first),
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;
    use std::boxed::Box;

    fn leaked() -> &'static Node {
        Box::leak(Box::new(Node::new()))
    }

    /// Two threads pop, and one pushes back what it popped: nobody gets what another has, and
    /// nothing is lost.
    #[test]
    fn every_arena_has_one_holder() {
        loom::model(|| {
            let stack = Arc::new(Stack::new());
            let (a, b) = (leaked(), leaked());
            stack.push(a);
            stack.push(b);
            let other = Arc::clone(&stack);
            let thread = thread::spawn(move || {
                let first = other.pop();
                if let Some(first) = first {
                    other.push(first);
                }
                other.pop().map(|node| core::ptr::from_ref(node).addr())
            });
            let mine = stack.pop().map(|node| core::ptr::from_ref(node).addr());
            let theirs = thread.join().unwrap();
            assert!(mine.is_some() && theirs.is_some());
            assert_ne!(mine, theirs);
            assert!(stack.pop().is_none());
        });
    }
}
