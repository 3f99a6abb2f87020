//! Processes that are killed, that run out of memory in a cgroup, or that may have no more address
//! space, beside others, with which they share memory or do not: those go on, and find what is
//! shared intact.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::Duration;

use bursar::{Backing, Consumer, Mbuf, MbufError, MbufPools, Pool, PoolSpec};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::{Arguments, Host, Run};
use crate::blocks::{Filled, Heap, layout};
use crate::cgroup::Cgroup;
use crate::memory::Memory;
use crate::messages::{Board, Temper, Worker};
use crate::process::{Child, Fate};
use crate::shadow::Shadow;
use crate::sizes::Mix;
use crate::stress::Generator;

pub(super) const ALL: &[(&str, Run)] = &[("killed", killed)];

/// A pool for large messages, and one that is seldom full.
const SPEC: &str = "100000000,1000000:3000";
/// What a process may have before it is killed.
const GROUP: u64 = 48 << 20;
/// What it may have beyond what it has, where that is limited.
const MORE: u64 = 64 << 20;
/// The workers that are not killed.
const WORKERS: usize = 2;

/// What processes have in common: the buffers, where they tell of them, and the folder for files.
#[derive(Clone, Copy)]
struct Common<'a> {
    heap: &'static Heap,
    pools: &'a MbufPools,
    board: Board,
    folder: &'a Path,
}

impl Common<'_> {
    fn attach(&self) -> MbufPools {
        let file = self
            .pools
            .fd()
            .try_clone_to_owned()
            .expect("a descriptor more");
        MbufPools::attach(file).expect("there is a place for one more process")
    }

    fn work_with_messages(&self, index: usize) {
        let pools = self.attach();
        Worker::new(&pools, self.board, Temper::Strict, index, 30_000).run();
    }

    /// A pool in a file and one of shared memory, with random steps in both and in the heap, until
    /// all are told to stop.
    fn work_with_pools(&self, seed: u64) {
        let path = self.folder.join(format!("{}", std::process::id()));
        let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("no zero in it");
        let pools = [Backing::File(&path), Backing::Shared].map(|backing| {
            let pool = Pool::builder(16 << 20).backing(backing).build();
            let pool = pool.expect("it can be had");
            let consumer = Consumer::new("of a pool");
            pool.bind(&consumer);
            (pool, consumer)
        });
        let elsewhere = Consumer::new("of the heap");
        let mut shadow = Shadow::new(self.heap, seed, Vec::new());
        let mut generator = Generator::new(seed, Mix::PROGRAM, 1_000);
        while !self.board.is_stopped() {
            for consumer in [&pools[0].1, &pools[1].1, &elsewhere] {
                let _scope = consumer.enter();
                for _ in 0..100 {
                    let step = generator.next(shadow.len()).apply(&mut shadow);
                    step.unwrap_or_else(|fault| panic!("{fault}"));
                }
            }
            shadow.verify().unwrap_or_else(|fault| panic!("{fault}"));
        }
        shadow.clear().unwrap_or_else(|fault| panic!("{fault}"));
    }

    /// Does both, until it is killed.
    fn live_dangerously(&self, seed: u64) {
        thread::scope(|scope| {
            scope.spawn(|| self.work_with_pools(seed));
            self.work_with_messages(WORKERS);
        });
    }

    /// Takes all there is, in messages and in blocks, and touches it. What it holds when there is no
    /// more to be had.
    fn hoard(&self) -> Hoard {
        let mut hoard = Hoard {
            pools: self.attach(),
            messages: Vec::new(),
            blocks: Vec::new(),
        };
        loop {
            let message = Mbuf::new(&hoard.pools, 200_000);
            let block = Filled::new(self.heap, layout(20_000, 8));
            if message.is_err() && block.is_none() {
                return hoard;
            }
            match message {
                Ok(mut message) => {
                    message.exclusive().expect("it is new").data().fill(1);
                    hoard.messages.push(message);
                }
                Err(MbufError::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            hoard.blocks.extend(block);
        }
    }
}

struct Hoard {
    pools: MbufPools,
    messages: Vec<Mbuf>,
    blocks: Vec<Filled>,
}

/// Whoever died, the records are in order, what it alone held comes back, and the others live.
fn look_after(common: &Common<'_>, rng: &mut SmallRng) {
    common
        .pools
        .check()
        .expect("whoever died, the records are in order");
    if rng.random_bool(0.5) {
        common.pools.reclaim().expect("nobody keeps a pool");
    }
}

/// Killed at any moment.
fn by_signal(common: &Common<'_>, rounds: u64, rng: &mut SmallRng) {
    for _ in 0..rounds {
        let seed = rng.random();
        let victim = Child::start(|| common.live_dangerously(seed));
        sleep(Duration::from_micros(rng.random_range(0..30_000)));
        victim.signal(Signal::SIGKILL);
        assert_eq!(victim.wait(), Fate::Killed(Signal::SIGKILL));
        look_after(common, rng);
    }
}

/// Out of memory, in a group of its own. What stopped the test if there can be no such group.
fn by_group(common: &Common<'_>, rounds: u64, rng: &mut SmallRng) -> Result<(), String> {
    for _ in 0..rounds {
        let group = Cgroup::new(GROUP)?;
        let victim = Child::start(|| {
            group.join().unwrap_or_else(|error| panic!("{error}"));
            let hoard = common.hoard();
            panic!(
                "{} messages and {} blocks were had",
                hoard.messages.len(),
                hoard.blocks.len()
            );
        });
        assert_eq!(victim.wait(), Fate::Killed(Signal::SIGKILL));
        assert_eq!(
            group.killed(),
            Ok(1),
            "for want of memory, and nothing else"
        );
        look_after(common, rng);
    }
    Ok(())
}

/// Null and errors where no more address space is to be had; then the process ends as it is.
fn by_limit(common: &Common<'_>, rounds: u64, rng: &mut SmallRng) {
    for _ in 0..rounds {
        let victim = Child::start(|| {
            // The records of what is held are not to be what cannot be had.
            let mapped = Memory::now().mapped;
            assert!(
                mapped < 1 << 30,
                "address space is to be reserved in small pieces"
            );
            let most = mapped + 200_000_000 + MORE;
            setrlimit(Resource::RLIMIT_AS, most, most).expect("a limit can be set");
            let mut hoard = common.hoard();
            assert!(bursar::last_failure().is_some(), "null without a reason");
            hoard.blocks.truncate(hoard.blocks.len() / 2);
            let again = Filled::new(common.heap, layout(20_000, 8));
            assert!(again.is_some(), "what was freed can be had again");
            hoard.blocks.iter().for_each(Filled::verify);
            // Nobody gives its messages back.
            std::mem::forget(hoard);
        });
        assert_eq!(victim.wait(), Fate::Fine);
        look_after(common, rng);
    }
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("bursar-killed-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    folder
}

/// Arguments: how they die (`signal`, `group`, `limit`), how many, and a seed.
fn killed(host: &Host, arguments: &Arguments) {
    let (rounds, mut rng) = (
        arguments.number(1),
        SmallRng::seed_from_u64(arguments.number(2)),
    );
    let pools = MbufPools::new(&PoolSpec::must_parse(SPEC)).expect("there is address space");
    let folder = folder();
    let common = Common {
        heap: host.heap,
        pools: &pools,
        board: Board::new(),
        folder: &folder,
    };
    let mut others: Vec<Child> = (0..WORKERS)
        .map(|index| Child::start(|| common.work_with_messages(index)))
        .collect();
    others.push(Child::start(|| common.work_with_pools(7)));
    while !common.board.are_here(WORKERS) {
        sleep(Duration::from_millis(1));
    }
    let result = match arguments.text(0) {
        "signal" => {
            by_signal(&common, rounds, &mut rng);
            Ok(())
        }
        "group" => by_group(&common, rounds, &mut rng),
        "limit" => {
            by_limit(&common, rounds, &mut rng);
            Ok(())
        }
        other => panic!("nobody dies by {other}"),
    };
    common.board.stop();
    for other in others {
        assert_eq!(other.wait(), Fate::Fine, "whoever is not killed goes on");
    }
    pools.reclaim().expect("nobody keeps a pool");
    pools.check().expect("the records are in order");
    let used: u64 = pools.pools().iter().map(|pool| pool.used_bytes).sum();
    assert_eq!(used, 0, "nothing leaks");
    std::fs::remove_dir(&folder).expect("no file is left in it");
    host.check();
    match result {
        Ok(()) => println!("{rounds} processes died"),
        Err(reason) => println!("NOT CHECKED: no memory cgroup could be made: {reason}"),
    }
}
