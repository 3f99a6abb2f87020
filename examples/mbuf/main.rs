//! A flow graph of four processes that pass messages of mixed sizes in shared memory: `source`
//! makes them, `add` computes new ones, `route` passes them on as they are, `sink` looks them over.
//! Half-way `add` is killed and replaced, and nothing is lost or leaked. Then the same graph copies
//! the same messages through socket pairs.
//!
//! Every node holds what it has passed on until that has arrived at the end: acknowledgements run
//! back through the graph, each for all messages below a number. A node that replaces a dead one
//! has its predecessor begin anew after the last one that was acknowledged; who has a message
//! already passes over it. Where handles travel is a datagram socket: what is sent arrives whole or
//! not at all, and what the dead one has not read is read by the one that replaces it.
//!
//! ```sh
//! cargo run --release --example mbuf
//! ```

mod copying;
mod packet;

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bursar::{DataType, Mbuf, MbufError, MbufHandle, MbufPools, PoolSpec, RouteLabel, Shape};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use copying::copying;
use packet::Packet;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

const MESSAGES: u64 = 100_000;
const POOLS: PoolSpec = PoolSpec::must_parse("67108864,8388608:9216");
/// Messages that a node may have passed on without an acknowledgement.
const WINDOW: usize = 256;
/// Handles that travel together.
const BATCH: usize = 16;
/// The sink tells how far it is so often.
const REPORT: u64 = 1_000;

/// How many words of data a message has: most few, some many.
fn words_of(number: u64) -> usize {
    let random = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let most = match random % 100 {
        0..80 => 512,
        80..95 => 8 << 10,
        _ => 64 << 10,
    };
    8 + (random as usize >> 8) % most
}

fn main() {
    println!("{MESSAGES} messages through source, add, route and sink; pools {POOLS}");
    let shared = in_shared_memory();
    let copied = copying();
    let bytes: usize = (0..MESSAGES).map(|number| 8 * words_of(number)).sum();
    for (way, time) in [("shared memory", shared), ("socket pairs", copied)] {
        println!(
            "{way:14} {:6.2} s {:9.0} messages/s {:7.0} MiB/s",
            time.as_secs_f64(),
            MESSAGES as f64 / time.as_secs_f64(),
            bytes as f64 / time.as_secs_f64() / f64::from(1 << 20)
        );
    }
    let ratio = copied.as_secs_f64() / shared.as_secs_f64();
    println!("{ratio:.2} times the throughput of copying, a death included");
}

/// Starts a process of its own. It ends without returning.
fn start(work: impl FnOnce()) -> Pid {
    // SAFETY: this process has no second thread.
    match unsafe { fork() }.expect("another process can be started") {
        ForkResult::Child => {
            work();
            std::process::exit(0)
        }
        ForkResult::Parent { child } => child,
    }
}

fn finish(nodes: impl IntoIterator<Item = Pid>) {
    for node in nodes {
        let status = waitpid(node, None).expect("it is our child");
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }
}

/// Two ends of a link between neighbours; this process keeps copies of all, so that a node can be
/// replaced.
struct Link {
    upper: UnixDatagram,
    lower: UnixDatagram,
}

impl Link {
    fn new() -> Link {
        let (upper, lower) = UnixDatagram::pair().expect("a socket pair");
        Link { upper, lower }
    }
}

fn in_shared_memory() -> Duration {
    let pools = MbufPools::new(&POOLS).expect("there is address space");
    let links = [(); 3].map(|()| Link::new());
    let (report, heard) = UnixDatagram::pair().expect("a socket pair");
    let begun = Instant::now();
    let node = |name| {
        start(|| {
            let pools = pools.fd().try_clone_to_owned().map(MbufPools::attach);
            let pools = pools
                .expect("a descriptor more")
                .expect("a place for one more");
            match name {
                "source" => source(&pools, &links[0].upper),
                "add" => between(&pools, &links[0].lower, &links[1].upper, add),
                "route" => between(&pools, &links[1].lower, &links[2].upper, route),
                _ => sink(&pools, &links[2].lower, &report),
            }
        })
    };
    let [source, victim, route, sink] = ["source", "add", "route", "sink"].map(node);
    let wait_for = |arrived: u64| {
        let mut number = [0; 8];
        while u64::from_le_bytes(number) < arrived {
            heard.recv(&mut number).expect("the sink reports");
        }
    };
    wait_for(MESSAGES / 2);
    kill(victim, Signal::SIGKILL).expect("it is our child");
    let status = waitpid(victim, None).expect("it is our child");
    assert!(matches!(
        status,
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    ));
    print_pools("half-way, add killed", &pools);
    let reclaimed = pools.reclaim().expect("nobody keeps a pool");
    println!("{reclaimed} buffers that nobody but add held are reclaimed; another add begins");
    let second = node("add");
    Packet::Resend.send(&links[0].lower);

    wait_for(MESSAGES);
    finish([source, second, route, sink]);
    let time = begun.elapsed();
    print_pools("at the end", &pools);
    for pool in pools.pools() {
        assert_eq!((pool.used_bytes, pool.buffers), (0, 0), "nothing leaks");
    }
    println!("all {MESSAGES} messages arrived, each once; no buffer is left");
    time
}

fn print_pools(when: &str, pools: &MbufPools) {
    println!(
        "{when}:\n  pool       size      limit       used  largest free  fragmentation   requests  fell through  failed"
    );
    for (index, pool) in pools.pools().iter().enumerate() {
        println!(
            "  {:4} {:10} {:10} {:10} {:13} {:14.3} {:10} {:13} {:7}",
            index + 1,
            pool.size,
            pool.limit.map_or("-".into(), |limit| limit.to_string()),
            pool.used_bytes,
            pool.largest_free_span,
            pool.external_fragmentation(),
            pool.requests,
            pool.fall_throughs,
            pool.failures,
        );
    }
}

/// What a node has passed on, and goes on holding until it has arrived at the end.
struct Passed<'a> {
    down: &'a UnixDatagram,
    /// Held while sending, which may take until the next node receives. The state is not: what
    /// comes back must be heard meanwhile, or two nodes would wait for each other.
    sending: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: VecDeque<(u64, Mbuf)>,
    /// All below are at their end.
    done: u64,
    is_ended: bool,
}

impl<'a> Passed<'a> {
    fn new(down: &'a UnixDatagram) -> Passed<'a> {
        Passed {
            down,
            sending: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of this node panics")
    }

    /// Passes messages on, when there is room in the window.
    fn pass(&self, messages: Vec<(u64, Mbuf)>) {
        if messages.is_empty() {
            return;
        }
        let is_full = |state: &mut State| state.held.len() >= WINDOW;
        drop(
            self.changed
                .wait_while(self.state(), is_full)
                .expect("no thread panics"),
        );
        let _sending = self.sending();
        let handles = messages.iter().map(handle).collect();
        self.state().held.extend(messages);
        self.send_all(handles);
    }

    fn end(&self) {
        let _sending = self.sending();
        self.state().is_ended = true;
        Packet::End.send(self.down);
    }

    fn sending(&self) -> MutexGuard<'_, ()> {
        self.sending.lock().expect("no thread of this node panics")
    }

    fn send_all(&self, messages: Vec<(u64, MbufHandle)>) {
        for batch in messages.chunks(BATCH) {
            Packet::Messages(batch.to_vec()).send(self.down);
        }
    }

    /// Sends all once more that has not arrived.
    fn resend(&self) {
        let _sending = self.sending();
        let state = self.state();
        let first = state.held.front().map_or(state.done, |(number, _)| *number);
        let handles = state.held.iter().map(handle).collect();
        let is_ended = state.is_ended;
        drop(state);
        Packet::Begin(first).send(self.down);
        self.send_all(handles);
        if is_ended {
            Packet::End.send(self.down);
        }
    }

    /// Listens to the next node until all has arrived; tells what it hears to the one before.
    fn listen(&self, tell: impl Fn(u64)) {
        loop {
            match Packet::receive(self.down) {
                Packet::Done(below) => {
                    let mut state = self.state();
                    state.done = state.done.max(below);
                    while state
                        .held
                        .front()
                        .is_some_and(|(number, _)| *number < below)
                    {
                        state.held.pop_front();
                    }
                    self.changed.notify_all();
                    let is_over = state.is_ended && state.held.is_empty();
                    let done = state.done;
                    drop(state);
                    tell(done);
                    if is_over {
                        return;
                    }
                }
                Packet::Resend => self.resend(),
                _ => unreachable!("other packets go down"),
            }
        }
    }
}

fn handle((number, mbuf): &(u64, Mbuf)) -> (u64, MbufHandle) {
    (*number, mbuf.export().expect("it is held"))
}

/// A buffer, as soon as there is room.
fn allocate(pools: &MbufPools, words: usize) -> Mbuf {
    loop {
        match Mbuf::new(pools, 8 * words) {
            Ok(mbuf) => return mbuf,
            Err(MbufError::Full { .. }) => thread::sleep(Duration::from_micros(100)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn source(pools: &MbufPools, down: &UnixDatagram) {
    let passed = Passed::new(down);
    Packet::Begin(0).send(down);
    thread::scope(|scope| {
        scope.spawn(|| passed.listen(|_| {}));
        let mut batch = Vec::new();
        for number in 0..MESSAGES {
            let mut mbuf = allocate(pools, words_of(number));
            let mut parts = mbuf.exclusive().expect("it is new");
            parts
                .data()
                .words()
                .iter()
                .for_each(|word| word.store(number, Relaxed));
            let mut head = parts.head();
            head.set_data_type(DataType::U64);
            head.set_shape(Shape::new(&[words_of(number) as u64]).expect("one extent"));
            head.set_start_time(SystemTime::now());
            batch.push((number, mbuf));
            if batch.len() == BATCH {
                passed.pass(std::mem::take(&mut batch));
            }
        }
        passed.pass(batch);
        passed.end();
    });
}

/// A node with a predecessor and a successor.
fn between(
    pools: &MbufPools,
    up: &UnixDatagram,
    down: &UnixDatagram,
    work: fn(&MbufPools, Mbuf) -> Mbuf,
) {
    let passed = Passed::new(down);
    thread::scope(|scope| {
        scope.spawn(|| passed.listen(|done| Packet::Done(done).send(up)));
        let mut inbox = Inbox { next: None };
        let done = || passed.state().done;
        inbox.receive(pools, up, done);
        // The next node passes over it if it has begun already.
        Packet::Begin(inbox.next.unwrap_or(0)).send(down);
        while let Some(messages) = inbox.receive(pools, up, done) {
            let is_known = messages.is_empty();
            let work = |(number, mbuf)| (number, work(pools, mbuf));
            passed.pass(messages.into_iter().map(work).collect());
            if is_known {
                // They were acknowledged to one that died, perhaps.
                Packet::Done(done()).send(up);
            }
        }
        passed.end();
    });
}

/// What comes from the node before, in order and each once.
struct Inbox {
    /// The number that is due; none before the one before has said with which it begins.
    next: Option<u64>,
}

impl Inbox {
    /// The next messages, none where it begins; `None` at the end. Those that were here already, or whose sender died
    /// before they could be opened and which will come again, are left out.
    fn receive(
        &mut self,
        pools: &MbufPools,
        up: &UnixDatagram,
        done: impl Fn() -> u64,
    ) -> Option<Vec<(u64, Mbuf)>> {
        loop {
            match (Packet::receive(up), &mut self.next) {
                (Packet::Messages(messages), Some(next)) => {
                    let mut opened = Vec::new();
                    for (number, handle) in messages {
                        if number != *next {
                            continue;
                        }
                        match Mbuf::open(pools, handle) {
                            Ok(mbuf) => opened.push((number, mbuf)),
                            // What has come to its end meanwhile is no more.
                            Err(MbufError::Stale { .. }) if number < done() => {}
                            Err(MbufError::Stale { .. }) => continue,
                            Err(error) => panic!("{error}"),
                        }
                        *next += 1;
                    }
                    return Some(opened);
                }
                (Packet::Begin(first), next @ None) => {
                    *next = Some(first);
                    return Some(Vec::new());
                }
                (Packet::End, Some(_)) => return None,
                // What was sent to one that died.
                _ => {}
            }
        }
    }
}

/// A new message with one added to each word.
fn add(pools: &MbufPools, message: Mbuf) -> Mbuf {
    let mut result = allocate(pools, message.len() / 8);
    let mut parts = result.exclusive().expect("it is new");
    let mut data = parts.data();
    for (to, from) in data.words().iter().zip(message.data().words()) {
        to.store(from + 1, Relaxed);
    }
    let mut head = parts.head();
    head.set_data_type(message.head().data_type());
    head.set_route_label(RouteLabel::new("sink").expect("it is short"));
    head.set_return_code(0);
    result
}

/// The message itself.
fn route(_: &MbufPools, message: Mbuf) -> Mbuf {
    let label = message.head().route_label().expect("add has said where to");
    assert_eq!(label.as_str(), "sink");
    message
}

fn sink(pools: &MbufPools, up: &UnixDatagram, report: &UnixDatagram) {
    let mut inbox = Inbox { next: None };
    let mut arrived = 0;
    while let Some(messages) = inbox.receive(pools, up, || arrived) {
        for (number, mbuf) in messages {
            assert_eq!(number, arrived, "none is lost, none comes twice");
            verify(number, mbuf.data().words());
            arrived += 1;
            if arrived % REPORT == 0 {
                report
                    .send(&arrived.to_le_bytes())
                    .expect("somebody listens");
            }
        }
        Packet::Done(arrived).send(up);
    }
    assert_eq!(arrived, MESSAGES);
    Packet::Done(arrived).send(up);
}

fn verify(number: u64, words: impl ExactSizeIterator<Item = u64>) {
    assert_eq!(words.len(), words_of(number));
    let expected = (number + 1) * words.len() as u64;
    assert_eq!(words.sum::<u64>(), expected, "message {number}");
}
