//! Threads that take turns.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::Found;
use super::books::Seat;
use super::steps::Step;
use super::world::World;

const PLACES: usize = 4;

type Turn = (Box<World>, Vec<Step>);
type Done = (Box<World>, Found);

/// A thread that waits for its turn.
struct Hand {
    turns: Sender<Turn>,
    done: Receiver<Done>,
    thread: JoinHandle<()>,
}

impl Hand {
    fn new() -> Self {
        let (turns, todo) = channel::<Turn>();
        let (finished, done) = channel::<Done>();
        let thread = thread::spawn(move || {
            let mut seat = Seat::default();
            for (mut world, steps) in todo {
                let found = steps
                    .iter()
                    .try_for_each(|&step| world.take(step, &mut seat));
                if finished.send((world, found)).is_err() {
                    break;
                }
            }
        });
        Self {
            turns,
            done,
            thread,
        }
    }

    /// Has the thread take some steps.
    fn work(
        self,
        world: Box<World>,
        steps: Vec<Step>,
    ) -> (Option<Self>, Option<Box<World>>, Found) {
        let sent = self.turns.send((world, steps)).is_ok();
        match self.done.recv() {
            Ok((world, found)) if sent => (Some(self), Some(world), found),
            _ => {
                self.end();
                (None, None, Err("a thread ended in its turn".to_owned()))
            }
        }
    }

    /// Ends the thread, with the scopes that it is in.
    fn end(self) {
        drop(self.turns);
        self.thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic));
    }
}

/// The threads of a sequence.
pub(super) struct Crew {
    world: Option<Box<World>>,
    hands: [Option<Hand>; PLACES],
    current: usize,
    steps: Vec<Step>,
}

impl Crew {
    pub(super) fn new(world: Box<World>) -> Self {
        Self {
            world: Some(world),
            hands: Default::default(),
            current: 0,
            steps: Vec::new(),
        }
    }

    /// A step of the thread whose turn it is.
    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Now it is another thread's turn.
    pub(super) fn turn(&mut self, place: u8) -> Found {
        self.work()?;
        self.current = usize::from(place) % PLACES;
        Ok(())
    }

    /// The thread in a place ends.
    pub(super) fn exit(&mut self, place: u8) -> Found {
        self.work()?;
        if let Some(hand) = self.hands[usize::from(place) % PLACES].take() {
            hand.end();
        }
        Ok(())
    }

    fn work(&mut self) -> Found {
        let steps = std::mem::take(&mut self.steps);
        let Some(world) = self.world.take_if(|_| !steps.is_empty()) else {
            return Ok(());
        };
        let place = &mut self.hands[self.current];
        let hand = place.take().unwrap_or_else(Hand::new);
        let found;
        (*place, self.world, found) = hand.work(world, steps);
        found
    }

    /// Ends all threads.
    pub(super) fn end(mut self) -> Result<World, String> {
        self.work()?;
        self.hands.into_iter().flatten().for_each(Hand::end);
        self.world
            .map(|world| *world)
            .ok_or_else(|| "a thread kept the world".to_owned())
    }
}
