//! Are the books exact? Two holders allocate, free, grow and end on several
//! threads, and after each step the books are held against the truth.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::RefCell;
use std::sync::Barrier;
use std::thread;

use serde::{Deserialize, Serialize};

use super::{Books, Holder};
use crate::micro::block::{Block, layout};

/// What the books said after each step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Whose books.
    pub name: String,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Outcome {
    /// As one line.
    ///
    /// # Panics
    /// Never: names and numbers can be written.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and numbers can be written")
    }
}

/// One step: what changed by it, for the first and the second holder. What was
/// wrong before does not count against it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Step {
    /// What was done.
    pub what: String,
    /// Bytes by which the live bytes of the two really changed.
    pub really: [i64; 2],
    /// Bytes by which the books say they did.
    pub shown: [i64; 2],
}

/// This program's allocator, whatever it is.
struct Global;

// SAFETY: hands every call on to the program's allocator, as it came.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { std::alloc::realloc(block, layout, new_size) }
    }
}

const BLOCKS: usize = 10_000;
const SIZE: usize = 64;
const GROWN: usize = 200;

struct Scenario {
    books: &'static dyn Books,
    shown: [i64; 2],
    steps: Vec<Step>,
}

impl Scenario {
    /// Takes note of a step, which really made so many bytes alive or free.
    fn step(&mut self, what: &str, really: [i64; 2]) {
        let now = Holder::ALL.map(|holder| self.books.live_bytes(holder));
        let shown = [now[0] - self.shown[0], now[1] - self.shown[1]];
        self.shown = now;
        self.steps.push(Step {
            what: what.to_owned(),
            really,
            shown,
        });
    }

    fn charge(&self, size: usize) -> i64 {
        BLOCKS as i64 * self.books.charge(layout(size))
    }

    /// Makes blocks of a holder's; the table is made before.
    fn fill(&self, holder: Holder, size: usize) -> Vec<Block> {
        let mut blocks = Vec::with_capacity(BLOCKS);
        self.books.within(holder, &mut || fill(&mut blocks, size));
        blocks
    }
}

fn fill(blocks: &mut Vec<Block>, size: usize) {
    blocks.extend((0..BLOCKS).map(|_| Block::take(&Global, layout(size))));
}

fn empty(blocks: &mut Vec<Block>) {
    blocks.drain(..).for_each(|block| block.give(&Global));
}

/// Blocks that a thread's destructors free.
struct AtExit(RefCell<Vec<Block>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        empty(&mut self.0.borrow_mut());
    }
}

thread_local! {
    static AT_EXIT: AtExit = const { AtExit(RefCell::new(Vec::new())) };
}

/// Runs the scenario, once to a process.
pub fn run(books: &'static dyn Books) -> Outcome {
    // Whatever the books make at their first use is not part of a step.
    for holder in Holder::ALL {
        books.within(holder, &mut || ());
    }
    let mut scenario = Scenario {
        books,
        shown: Holder::ALL.map(|holder| books.live_bytes(holder)),
        steps: Vec::new(),
    };
    let mut blocks = scenario.fill(Holder::One, SIZE);
    scenario.step("one allocates", [scenario.charge(SIZE), 0]);
    freed_by_the_other(&mut scenario, &mut blocks);
    grown_by_the_other(&mut scenario);
    at_the_same_time(&mut scenario);
    freed_at_thread_exit(&mut scenario);
    Outcome {
        name: books.name().to_owned(),
        steps: scenario.steps,
    }
}

fn freed_by_the_other(scenario: &mut Scenario, blocks: &mut Vec<Block>) {
    let books = scenario.books;
    thread::scope(|scope| {
        scope.spawn(|| books.within(Holder::Other, &mut || empty(blocks)));
    });
    let freed = -scenario.charge(SIZE);
    scenario.step("the other frees it on another thread", [freed, 0]);
}

fn grown_by_the_other(scenario: &mut Scenario) {
    let mut blocks = scenario.fill(Holder::One, SIZE);
    scenario.step("one allocates", [scenario.charge(SIZE), 0]);
    let mut grown = Vec::with_capacity(BLOCKS);
    scenario.books.within(Holder::Other, &mut || {
        grown.extend(blocks.drain(..).map(|block| block.resize(&Global, GROWN)));
    });
    let more = scenario.charge(GROWN) - scenario.charge(SIZE);
    scenario.step("the other grows it (realloc)", [more, 0]);
    let all = -scenario.charge(GROWN);
    empty(&mut grown);
    scenario.step("it is freed in nobody's scope", [all, 0]);
}

fn at_the_same_time(scenario: &mut Scenario) {
    let books = scenario.books;
    let both = Barrier::new(2);
    let mut tables = [Vec::with_capacity(BLOCKS), Vec::with_capacity(BLOCKS)];
    thread::scope(|scope| {
        for ((holder, size), blocks) in Holder::ALL.into_iter().zip([SIZE, GROWN]).zip(&mut tables)
        {
            let both = &both;
            scope.spawn(move || {
                books.within(holder, &mut || {
                    both.wait();
                    fill(blocks, size);
                    both.wait();
                });
            });
        }
    });
    let really = [scenario.charge(SIZE), scenario.charge(GROWN)];
    scenario.step("both allocate at the same time", really);
    for (holder, blocks) in Holder::ALL.into_iter().zip(&mut tables) {
        books.within(holder, &mut || empty(blocks));
    }
    scenario.step("each frees its own", really.map(|bytes| -bytes));
}

fn freed_at_thread_exit(scenario: &mut Scenario) {
    let books = scenario.books;
    let mut blocks = Vec::with_capacity(BLOCKS);
    thread::spawn(move || {
        AT_EXIT.with(|kept| {
            books.within(Holder::One, &mut || fill(&mut blocks, SIZE));
            *kept.0.borrow_mut() = blocks;
        });
    })
    .join()
    .expect("the thread ends well");
    scenario.step("one's thread ends and its thread-locals free all", [0, 0]);
}
