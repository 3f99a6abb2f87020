//! Message buffers between processes, some of which die or misbehave.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bursar::{Mbuf, MbufError, MbufHandle, MbufPools, Peer, PoolSpec};
use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run, scaled};
use crate::messages::{Board, Temper, Worker, scribble};
use crate::process::{Child, Fate};

pub(super) const ALL: &[(&str, Run)] = &[
    ("mbuf_ring", ring),
    ("mbuf_crowd", crowd),
    ("mbuf_kill", kill),
    ("mbuf_scribble", scribbled),
    ("mbuf_fork", forked),
    ("mbuf_stopped", stopped),
];

fn pools(spec: &str) -> MbufPools {
    MbufPools::new(&PoolSpec::must_parse(spec)).expect("there is address space")
}

fn attach(pools: &MbufPools) -> MbufPools {
    let file = pools.fd().try_clone_to_owned().expect("a descriptor more");
    MbufPools::attach(file).expect("there is a place for one more process")
}

/// A child that attaches for itself.
fn start(pools: &MbufPools, work: impl FnOnce(&MbufPools)) -> Child {
    Child::start(|| {
        let pools = attach(pools);
        work(&pools);
    })
}

/// The result of a call, which is made again while a process that is kept from its processor keeps
/// others from a pool.
fn patiently<T>(call: impl Fn() -> Result<T, MbufError>) -> Result<T, MbufError> {
    loop {
        match call() {
            Err(MbufError::Stalled { .. }) => {}
            other => return other,
        }
    }
}

fn used(pools: &MbufPools) -> u64 {
    patiently(|| pools.check()).expect("the records are in order");
    pools.pools().iter().map(|pool| pool.used_bytes).sum()
}

/// Four processes in a ring. Each message is made by one, passed on by all, each of which adds to
/// it, and freed by the one before its maker.
fn ring(_: &Host, _: &Arguments) {
    const NODES: usize = 4;
    let messages = scaled(20_000, 2_000);
    let pools = pools("4194304,262144:4096");
    let links: Vec<_> = (0..NODES)
        .map(|_| UnixStream::pair().expect("a socket pair"))
        .collect();
    let nodes: Vec<Child> = (0..NODES)
        .map(|node| {
            let (to, from) = (&links[node].0, &links[(node + NODES - 1) % NODES].1);
            start(&pools, |pools| ring_node(pools, node, to, from, messages))
        })
        .collect();
    for node in nodes {
        assert_eq!(node.wait(), Fate::Fine);
    }
    assert_eq!(used(&pools), 0);
    let served: u64 = pools.pools().iter().map(|pool| pool.requests).sum();
    assert!(served >= NODES as u64 * messages);
}

fn ring_node(pools: &MbufPools, node: usize, to: &UnixStream, from: &UnixStream, messages: u64) {
    // Everybody tells its name to the one before.
    let mut name = [0; 8];
    (&mut &*from)
        .write_all(&pools.me().to_bits().to_le_bytes())
        .expect("the link holds");
    (&mut &*to).read_exact(&mut name).expect("the link holds");
    let next = Peer::from_bits(u64::from_le_bytes(name)).expect("a name");
    let mut rng = SmallRng::seed_from_u64(node as u64);
    let pass = |mbuf: Mbuf| {
        let handle = mbuf.export_to(next).expect("nobody else holds it");
        (&mut &*to)
            .write_all(&handle.to_bytes())
            .expect("the link holds");
    };
    for number in 0..messages {
        let len = rng.random_range(16..9000);
        let mut mbuf = Mbuf::new(pools, len).expect("few messages are about");
        let mut parts = mbuf.exclusive().expect("it is new");
        let stamp = (node as u64) << 32 | number;
        parts.data().fill(stamp as u8);
        parts.head().user_data().write_at(0, &stamp.to_le_bytes());
        parts.head().set_return_code(1);
        pass(mbuf);
        // One of each other node's comes by, and is passed on but at its last one.
        for _ in 0..3 {
            let mut handle = [0; MbufHandle::BYTES];
            (&mut &*from)
                .read_exact(&mut handle)
                .expect("the link holds");
            let handle = MbufHandle::from_bytes(handle);
            let mut mbuf = Mbuf::open(pools, handle).expect("it was made for this process");
            let mut stamp = [0; 8];
            mbuf.head().user_data().read_at(0, &mut stamp);
            let expected = u64::from_le_bytes(stamp) as u8;
            assert!(mbuf.data().to_vec().iter().all(|&byte| byte == expected));
            let hops = mbuf.head().return_code();
            if hops < 3 {
                let mut parts = mbuf.exclusive().expect("it was handed over");
                parts.head().set_return_code(hops + 1);
                pass(mbuf);
            }
        }
    }
}

/// Processes that fight for pools much too small.
fn crowd(_: &Host, _: &Arguments) {
    let pools = pools("66000,20000:3000");
    let board = Board::new();
    let workers: Vec<Child> = (0..5)
        .map(|index| {
            start(&pools, |pools| {
                Worker::new(pools, board, Temper::Strict, index, 20_000).run();
            })
        })
        .collect();
    let begun = Instant::now();
    let failures = || pools.pools().iter().map(|pool| pool.failures).sum::<u64>();
    // The pools are too small.
    while begun.elapsed() < Duration::from_millis(scaled(3000, 1500)) || failures() == 0 {
        for pool in pools.pools() {
            assert!(pool.used_bytes <= pool.size && pool.largest_free_span <= pool.free_bytes);
        }
        patiently(|| pools.check()).expect("the records are in order");
        sleep(Duration::from_millis(1));
    }
    board.stop();
    for worker in workers {
        assert_eq!(worker.wait(), Fate::Fine);
    }
    assert_eq!(used(&pools), 0);
    println!("{} buffers", board.given().load(Ordering::Relaxed));
}

/// Processes are killed at random moments and replaced, while others go on.
fn kill(_: &Host, arguments: &Arguments) {
    let mut rng = SmallRng::seed_from_u64(arguments.number(0));
    // Seldom full, so that processes allocate and free rather than wait.
    let pools = pools("8000000,1000000:3000");
    let board = Board::new();
    let worker = |index: usize| {
        start(&pools, move |pools| {
            Worker::new(pools, board, Temper::Strict, index, 30_000).run();
        })
    };
    let mut workers: Vec<Child> = (0..4).map(worker).collect();
    for _ in 0..scaled(300, 100) {
        sleep(Duration::from_micros(rng.random_range(0..4000)));
        let index = rng.random_range(0..workers.len());
        workers[index].signal(Signal::SIGKILL);
        let next = worker(index);
        let killed = std::mem::replace(&mut workers[index], next);
        assert_eq!(killed.wait(), Fate::Killed(Signal::SIGKILL));
        patiently(|| pools.check()).expect("whoever died, the records are in order");
        if rng.random_bool(0.3) {
            patiently(|| pools.reclaim()).expect("the records are in order");
        }
    }
    board.stop();
    for worker in workers {
        assert_eq!(worker.wait(), Fate::Fine);
    }
    patiently(|| pools.reclaim()).expect("the records are in order");
    assert_eq!(used(&pools), 0, "nothing leaks");
    println!("{} buffers", board.given().load(Ordering::Relaxed));
}

/// A process scribbles over everything while others work: they may fail, but neither crash nor hang.
fn scribbled(_: &Host, arguments: &Arguments) {
    let seed = arguments.number(0);
    let pools = pools("400000,100000:3000");
    let board = Board::new();
    let workers: Vec<Child> = (0..2)
        .map(|index| {
            start(&pools, move |pools| {
                Worker::new(pools, board, Temper::Lenient, index, 30_000).run();
            })
        })
        .collect();
    while !board.are_here(2) {
        sleep(Duration::from_millis(1));
    }
    let scribbler = Child::start(|| scribble(pools.fd(), board, seed));
    sleep(Duration::from_millis(500));
    let _ = pools.repair();
    let _ = pools.reclaim();
    let _ = pools.purge();
    println!("{:?}", pools.pools());
    if let Ok(file) = pools.fd().try_clone_to_owned() {
        let _ = MbufPools::attach(file);
    }
    board.stop();
    for worker in workers {
        assert_eq!(worker.wait(), Fate::Fine);
    }
    assert_eq!(scribbler.wait(), Fate::Fine);
    println!("{} buffers", board.given().load(Ordering::Relaxed));
}

/// A forked child has nothing of its parent's, and does not keep it alive.
fn forked(_: &Host, _: &Arguments) {
    let pools = pools("1048576");
    // In options, so that the child can drop what it inherited.
    let mut inherited = Some(pools.clone());
    let mut held = Mbuf::new(&pools, 100).ok();
    let handle = held.as_ref().map(Mbuf::export);
    let handle = handle.expect("there is room").expect("nothing is damaged");
    let child = Child::start(|| {
        let parents = inherited.take().expect("it was inherited");
        let theirs = held.take().expect("it was inherited");
        assert_eq!(Mbuf::new(&parents, 1).unwrap_err(), MbufError::Forked);
        assert_eq!(Mbuf::open(&parents, handle).unwrap_err(), MbufError::Forked);
        assert_eq!(theirs.export().unwrap_err(), MbufError::Forked);
        assert_eq!(parents.reclaim(), Err(MbufError::Forked));
        let own = attach(&parents);
        assert_ne!(own.me(), parents.me());
        drop((theirs, parents));
        assert_eq!(used(&own), 2048, "what the parent holds is the parent's");
        drop(Mbuf::open(&own, handle).expect("the parent holds it"));
    });
    assert_eq!(child.wait(), Fate::Fine);
    assert_eq!(used(&pools), 2048);
    assert!(pools.is_alive(pools.me()));
    drop(held);

    let (said, mut heard) = UnixStream::pair().expect("a socket pair");
    let parent = start(&pools, |pools| {
        let held = Mbuf::new(pools, 100).expect("there is room");
        let name = pools.me().to_bits().to_le_bytes();
        let grandchild = Child::start(|| {
            // By now it has run the hook that gives the parent's locks up.
            (&said).write_all(&name).expect("it is heard");
            (&said).read_exact(&mut [0]).expect("it is told of the end");
        });
        let _ = grandchild.wait();
        drop(held);
    });
    let mut name = [0; 8];
    heard.read_exact(&mut name).expect("it says its name");
    let peer = Peer::from_bits(u64::from_le_bytes(name)).expect("a name");
    assert!(pools.is_alive(peer));
    parent.signal(Signal::SIGKILL);
    assert_eq!(parent.wait(), Fate::Killed(Signal::SIGKILL));
    assert!(!pools.is_alive(peer), "its child lives, and is not it");
    assert_eq!(pools.reclaim(), Ok(1));
    assert_eq!(used(&pools), 0);
    heard.write_all(&[0]).expect("it listens");
}

/// A process that is stopped, wherever it is, keeps others for a while at most, and nothing is
/// lost when it goes on.
fn stopped(_: &Host, _: &Arguments) {
    let pools = pools("400000,100000:3000");
    let board = Board::new();
    let workers: Vec<Child> = (0..3)
        .map(|index| {
            start(&pools, move |pools| {
                Worker::new(pools, board, Temper::Lenient, index, 30_000).run();
            })
        })
        .collect();
    for round in 0..40 {
        let worker = &workers[round % 3];
        worker.signal(Signal::SIGSTOP);
        let begun = Instant::now();
        match Mbuf::new(&pools, 5000) {
            Ok(_) | Err(MbufError::Full { .. } | MbufError::Stalled { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(100));
        worker.signal(Signal::SIGCONT);
        sleep(Duration::from_millis(5));
    }
    board.stop();
    for worker in workers {
        assert_eq!(worker.wait(), Fate::Fine);
    }
    assert_eq!(used(&pools), 0);
}
