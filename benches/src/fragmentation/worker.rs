//! What one worker does in a round of each phase.

use super::crew::Crew;
use super::ledger;
use super::mix::Mix;
use super::plan::Phase;
use super::shelf::{Block, Shelf};
use std::f64::consts::PI;
use std::time::Duration;

/// Small blocks that a worker holds from the first phase to the last; one in
/// [`REQUESTS_PER_SESSION`] requests replaces one of them, so that they lie
/// among blocks of all ages and keep what lies around them from merging.
const SESSIONS: usize = 4096;
const REQUESTS_PER_SESSION: u32 = 64;

/// The smallest and the largest centre of the shifting cache, in bytes.
const SHIFT: (f64, f64) = (96.0, 24576.0);
/// The first and the last centre of the steady phase, in bytes.
const STEADY: (f64, f64) = (192.0, 6144.0);
/// The part of the live bytes that wanders in the steady phase.
const WANDERING: f64 = 0.875;

/// One of the threads that live through the whole run.
pub struct Worker<'a> {
    index: usize,
    crew: &'a Crew<'a>,
    rng: fastrand::Rng,
    /// The worker's own table.
    shelf: Shelf,
    /// Small blocks that live long.
    sessions: Shelf,
    /// What guests left behind, each with the round in which it is freed.
    left_behind: Vec<(u64, Shelf)>,
    /// Rounds so far, in all phases.
    round: u64,
}

impl<'a> Worker<'a> {
    /// Takes the seat of the index for the calling thread.
    pub fn new(index: usize, crew: &'a Crew<'a>) -> Self {
        ledger::sit(index);
        let seed = crew.work.seed.wrapping_mul(1_000_003) + index as u64;
        Self {
            index,
            crew,
            rng: fastrand::Rng::with_seed(seed),
            shelf: Shelf::default(),
            sessions: Shelf::default(),
            left_behind: Vec::new(),
            round: 0,
        }
    }

    /// One round of a phase.
    pub fn work_round(&mut self, phase: Phase, round: u32) {
        let received = self.crew.receive(self.index, self.round);
        if phase == Phase::Bursts && round == 0 {
            // What the wandering tables held at the end of the steady phase.
            self.shelf.append(received);
        } else {
            drop(received);
        }
        let rounds = self.crew.work.rounds(phase);
        let done = f64::from(round + 1) / f64::from(rounds);
        match phase {
            Phase::Fill => self.fill(done),
            Phase::Shift => self.shift(done),
            Phase::Bursts => self.bursts(done),
            Phase::Thin => self.thin(rounds - round),
            Phase::Quiet => self.quiet(),
            Phase::Regrow => self.regrow(done),
            Phase::Steady => self.steady(round, rounds),
            Phase::Released => self.release(round),
            Phase::Idle | Phase::Gone => {}
            Phase::Stirred => self.stir(),
        }
        self.round += 1;
    }

    fn fill(&mut self, done: f64) {
        while self.sessions.len() < SESSIONS {
            self.renew_session();
        }
        let target = (self.share() * done) as u64;
        while self.shelf.bytes() < target {
            self.add(Mix::Ordinary);
            if self.rng.u8(..4) == 0 {
                drop(Mix::Ordinary.block(&mut self.rng));
            }
        }
    }

    /// The centre goes up and down once; a third of the bytes is replaced in
    /// each round.
    fn shift(&mut self, done: f64) {
        let height = (done * PI).sin();
        let centre = SHIFT.0 * (SHIFT.1 / SHIFT.0).powf(height);
        let mut evicted = Shelf::default();
        let mut replaced = 0;
        while (replaced as f64) < self.share() / 3.0 {
            replaced += self.add(Mix::Around { centre });
            self.evict_down_to(self.share() as u64, 8, &mut evicted);
        }
        self.post(evicted);
    }

    /// Two tables wander over the workers; whoever has one replaces its blocks,
    /// so that nearly all are freed on another thread than they were made on.
    /// The others do little. In the first eighth of the phase the workers' own
    /// tables shrink as the wandering ones grow.
    fn steady(&mut self, round: u32, rounds: u32) {
        let done = f64::from(round) / f64::from(rounds);
        let centre = STEADY.0 * (STEADY.1 / STEADY.0).powf(done);
        let moved = (f64::from(round + 1) / f64::from(rounds) * 8.0).min(1.0);
        let own = self.share() * (1.0 - WANDERING * moved);
        let mut evicted = Shelf::default();
        self.evict_down_to(own as u64, 2, &mut evicted);
        self.post(evicted);
        let workers = self.crew.work.workers as u32;
        let visit = (round * workers / 2 / rounds) as usize;
        for table in 0..2 {
            let host = (visit + table * workers as usize / 2) % workers as usize;
            if host == self.index {
                let bytes = self.share() * WANDERING * moved * f64::from(workers) / 2.0;
                self.host(table, Mix::Around { centre }, bytes as u64);
                if round + 1 == rounds {
                    self.deal(table);
                }
            }
        }
        self.serve(Mix::Around { centre: 64.0 }, 500);
    }

    /// Hands the blocks of a wandering table out to half of the workers.
    fn deal(&mut self, table: usize) {
        let workers = self.crew.work.workers as usize;
        let receivers: Vec<usize> = (table..workers).step_by(2).collect();
        let mut parcels: Vec<Shelf> = Vec::new();
        parcels.resize_with(receivers.len(), Shelf::default);
        let mut hot = self.crew.hot(table);
        while let Some(block) = hot.take_any(&mut self.rng) {
            let parcel = hot.len() % parcels.len();
            parcels[parcel].push(block);
        }
        hot.clear();
        for (to, parcel) in receivers.into_iter().zip(parcels) {
            self.crew.send(to, self.round, parcel);
        }
    }

    /// A guest makes blocks while the worker serves requests whose blocks die
    /// young; the height of the load rises and falls twice.
    fn bursts(&mut self, done: f64) {
        let height = (done * 2.0 * PI).sin().powi(2);
        let guest = self.invite(Mix::Ordinary, (self.share() * height / 2.0) as u64);
        let served = (8_000.0 * (0.25 + height)) as u32;
        self.serve(Mix::Ordinary, served);
        let mut evicted = Shelf::default();
        for _ in 0..served / 4 {
            self.add(Mix::Ordinary);
            self.evict_down_to(self.share() as u64, 8, &mut evicted);
        }
        self.post(evicted);
        let parcel = guest.join().expect("a guest panicked");
        let lives = self.rng.u64(1..5);
        self.left_behind.push((self.round + lives, parcel));
        let round = self.round;
        self.left_behind.retain(|(until, _)| *until > round);
    }

    /// Comes down to a tenth of the share in equal steps.
    fn thin(&mut self, rounds_left: u32) {
        self.left_behind.clear();
        let surplus = self.shelf.bytes() as f64 - self.share() / 10.0;
        let target = self.shelf.bytes() as f64 - surplus / f64::from(rounds_left);
        let mut evicted = Shelf::default();
        self.evict_down_to(target as u64, 2, &mut evicted);
        self.post(evicted);
        self.serve(Mix::Around { centre: 64.0 }, 200);
    }

    fn quiet(&mut self) {
        std::thread::sleep(Duration::from_millis(25));
        self.serve(Mix::Around { centre: 64.0 }, 200);
    }

    /// Grows to half of the share with objects of a few kilobytes, a tenth of
    /// which grow further where they lie.
    fn regrow(&mut self, done: f64) {
        let target = self.share() * (0.1 + 0.4 * done);
        let mut evicted = Shelf::default();
        let mut replaced = 0;
        while (replaced as f64) < self.share() / 8.0 {
            replaced += self.add(Mix::Around { centre: 3000.0 });
            if self.rng.u8(..10) == 0 {
                let grow = |size: u32| (size + size / 2).min(4 << 20);
                self.shelf.resize_any(&mut self.rng, grow);
            }
            self.evict_down_to(target as u64, 8, &mut evicted);
        }
        self.post(evicted);
    }

    /// Replaces a quarter of a wandering table, and brings it to that many
    /// bytes.
    fn host(&mut self, table: usize, mix: Mix, bytes: u64) {
        let mut hot = self.crew.hot(table);
        let guest = self.invite(mix, bytes / 64);
        let mut replaced = 0;
        while replaced < bytes / 4 || hot.bytes() < bytes {
            let block = mix.block(&mut self.rng);
            replaced += block.size();
            hot.push(block);
            while hot.bytes() > bytes {
                drop(hot.take_any(&mut self.rng));
            }
            self.count_request();
        }
        hot.append(guest.join().expect("a guest panicked"));
        while hot.bytes() > bytes {
            drop(hot.take_any(&mut self.rng));
        }
    }

    /// Frees all, half of it through a neighbour.
    fn release(&mut self, round: u32) {
        if round > 0 {
            return;
        }
        let mut evicted = Shelf::default();
        self.evict_down_to(0, 2, &mut evicted);
        self.post(evicted);
        self.shelf.clear();
        self.sessions.clear();
    }

    fn stir(&mut self) {
        std::thread::sleep(Duration::from_millis(10));
        self.serve(Mix::Around { centre: 64.0 }, 500);
    }

    /// Requests whose blocks live for a few others.
    fn serve(&mut self, mix: Mix, requests: u32) {
        let mut alive: [Option<Block>; 32] = [const { None }; 32];
        for _ in 0..requests {
            let place = self.rng.usize(..alive.len());
            alive[place] = Some(mix.block(&mut self.rng));
        }
    }

    /// Starts a thread that makes blocks of that many bytes, lets as many die
    /// young, and leaves the rest.
    fn invite(&mut self, mix: Mix, bytes: u64) -> std::thread::JoinHandle<Shelf> {
        let seat = self.crew.work.workers as usize + self.index;
        let mut rng = self.rng.fork();
        std::thread::spawn(move || {
            ledger::sit(seat);
            let mut kept = Shelf::default();
            while kept.bytes() < bytes {
                let block = mix.block(&mut rng);
                kept.push(mix.block(&mut rng));
                drop(block);
            }
            kept
        })
    }

    /// Puts a block on the worker's table; its bytes.
    fn add(&mut self, mix: Mix) -> u64 {
        let block = mix.block(&mut self.rng);
        let size = block.size();
        self.shelf.push(block);
        self.count_request();
        size
    }

    /// Takes blocks off the worker's table at random until it holds that many
    /// bytes, and frees them, but for one in `nth`.
    fn evict_down_to(&mut self, bytes: u64, nth: u8, evicted: &mut Shelf) {
        while self.shelf.bytes() > bytes {
            let Some(block) = self.shelf.take_any(&mut self.rng) else {
                return;
            };
            if self.rng.u8(..nth) == 0 {
                evicted.push(block);
            }
        }
    }

    fn count_request(&mut self) {
        if self.rng.u32(..REQUESTS_PER_SESSION) == 0 {
            self.renew_session();
        }
    }

    fn renew_session(&mut self) {
        let size = self.rng.u32(16..48);
        self.sessions.push(Block::new(size, 8));
        if self.sessions.len() > SESSIONS {
            drop(self.sessions.take_any(&mut self.rng));
        }
    }

    fn post(&self, parcel: Shelf) {
        let to = self.crew.neighbour(self.index, self.round);
        self.crew.send(to, self.round, parcel);
    }

    fn share(&self) -> f64 {
        self.crew.work.share_bytes() as f64
    }
}
