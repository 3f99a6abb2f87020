//! Routers of a program's own.

use std::hint::black_box;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use bursar::{BySize, Consumer, Growing, PoolId, PoolOrder, PoolRequest, Router};

use super::{Arguments, Host, Run};
use crate::blocks::layout;

pub(super) const ALL: &[(&str, Run)] = &[
    ("router_aligned", aligned),
    ("router_owner", owner),
    ("router_allocates", allocates),
    ("router_panics", panics),
    ("router_refuses", refuses),
    ("router_quiet", quiet),
];

/// Does what it is told.
pub struct Told {
    how: AtomicU8,
    asked: AtomicU64,
}

/// The router of `routed`.
pub static ROUTER: Told = Told {
    how: AtomicU8::new(BY_SIZE),
    asked: AtomicU64::new(0),
};

const BY_SIZE: u8 = 0;
const BY_ALIGNMENT: u8 = 1;
const BY_OWNER: u8 = 2;
const ALLOCATING: u8 = 3;
const PANICKING: u8 = 4;
const REFUSING: u8 = 5;

impl Told {
    fn tell(&self, how: u8) {
        self.how.store(how, Ordering::SeqCst);
    }
}

thread_local! {
    /// The owner whose blocks go to the growing pool.
    static OWNER: std::cell::Cell<Option<bursar::OwnerTag>> = const { std::cell::Cell::new(None) };
}

impl Router for Told {
    fn route(&self, request: &PoolRequest, order: &mut PoolOrder) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.how.load(Ordering::SeqCst) {
            BY_ALIGNMENT if request.align() >= 4096 => order.push(PoolId::GROWING),
            BY_OWNER if OWNER.get() == Some(request.owner()) => order.push(PoolId::GROWING),
            ALLOCATING if request.size() > 500_000 => {
                black_box(vec![1_u8; 400_000]);
            }
            PANICKING if request.size() > 500_000 => panic!("this router has had enough"),
            REFUSING if request.size() > 500_000 => return,
            _ => {}
        }
        BySize.route(request, order);
        Growing.route(request, order);
    }
}

fn used(id: PoolId) -> u64 {
    bursar::pools()
        .find(|pool| pool.id == id)
        .map_or(0, |pool| pool.used_bytes)
}

fn aligned(host: &Host, _: &Arguments) {
    ROUTER.tell(BY_ALIGNMENT);
    let (growing, first) = (used(PoolId::GROWING), used(PoolId::configured(0)));
    for align in [4096, 1 << 20] {
        let request = layout(3 << 20, align);
        // SAFETY: a layout with a size; freed once.
        unsafe {
            let block = host.heap.alloc(request);
            assert_eq!(used(PoolId::GROWING), growing + (3 << 20));
            host.heap.dealloc(block, request);
        }
    }
    let block = vec![0_u8; 3 << 20];
    assert!(used(PoolId::configured(0)) >= first + (3 << 20));
    drop(black_box(block));
    assert!(ROUTER.asked.load(Ordering::SeqCst) > 0);
    host.check();
}

/// A router that goes by owner needs no binding, also where owners are many
/// and light.
fn owner(host: &Host, _: &Arguments) {
    ROUTER.tell(BY_OWNER);
    let (special, others): (Consumer, Vec<Consumer>) = (
        Consumer::new("special"),
        (0..20).map(|n| Consumer::new(format!("{n}"))).collect(),
    );
    OWNER.set(Some(special.owner_tag()));
    let before = used(PoolId::GROWING);
    let theirs: Vec<_> = (0..200)
        .map(|n| others[n % 20].run(|| vec![1_u8; 100 + n]))
        .collect();
    assert_eq!(used(PoolId::GROWING), before, "nobody else is sent there");
    let ours: Vec<_> = (0..50)
        .map(|n| special.run(|| vec![2_u8; 100 + n]))
        .collect();
    assert!(used(PoolId::GROWING) > before);
    for block in &ours {
        assert!(
            theirs
                .iter()
                .all(|other| { block.as_ptr().addr().abs_diff(other.as_ptr().addr()) > 8 << 20 }),
            "in different pools"
        );
    }
    drop((ours, theirs));
    host.check();
}

/// Once there is a run at hand nobody is asked any more, and no pool is.
fn quiet(host: &Host, _: &Arguments) {
    let asked = || {
        let requests: u64 = bursar::pools().map(|pool| pool.requests).sum();
        (ROUTER.asked.load(Ordering::SeqCst), requests)
    };
    for size in [8, 64, 1000, 20_000] {
        let pairs = |count: u32| {
            for _ in 0..count {
                // SAFETY: a layout with a size; freed once.
                unsafe {
                    let block = host.heap.alloc(layout(size, 8));
                    host.heap.dealloc(black_box(block), layout(size, 8));
                }
            }
        };
        pairs(100);
        let before = asked();
        assert!(before.0 > 0 && before.1 > 0, "{before:?}");
        pairs(10_000);
        assert_eq!(asked(), before, "{size} bytes");
    }
}

fn allocates(host: &Host, _: &Arguments) {
    ROUTER.tell(ALLOCATING);
    let before = bursar::stats().router_reentries;
    let blocks: Vec<Vec<u8>> = (0..10).map(|_| vec![1_u8; 600_000]).collect();
    let made = bursar::stats().router_reentries - before;
    ROUTER.tell(BY_SIZE);
    assert!(
        made >= 10,
        "{made} requests of the router's own were counted"
    );
    assert!(blocks.iter().flatten().all(|&byte| byte == 1));
    drop(blocks);
    host.check();
}

/// Ends the process.
fn panics(_: &Host, _: &Arguments) {
    ROUTER.tell(PANICKING);
    let result = std::panic::catch_unwind(|| black_box(vec![1_u8; 600_000]));
    println!("went on with {}", result.is_ok());
}

fn refuses(host: &Host, _: &Arguments) {
    ROUTER.tell(REFUSING);
    let request = layout(600_000, 8);
    // SAFETY: a layout with a size.
    let block = unsafe { host.heap.alloc(request) };
    assert!(block.is_null(), "a router without an order refuses");
    let failed = bursar::last_failure();
    assert!(
        matches!(
            failed,
            Some(bursar::AllocFailure::NoPool { bytes: 600_000 })
        ),
        "{failed:?}"
    );
    ROUTER.tell(BY_SIZE);
    host.check();
}
