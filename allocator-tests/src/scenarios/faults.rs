//! Each system call of the allocator fails, once, now and then, or from some
//! point on: null or a working fall-back, never a crash or lost contents.

use std::panic::resume_unwind;
use std::sync::{Arc, Barrier};
use std::thread;

use bursar::fault::{Call, When, clear, fail, made};

use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Filled, Heap, layout};
use crate::shadow::Shadow;
use crate::sizes::Mix;
use crate::stress::{Operation, Plan, run};

/// Threads that need an arena at a time.
const THREADS: usize = 256;

pub(super) const ALL: &[(&str, Run)] = &[("fault", fault)];

fn call_named(name: &str) -> Call {
    match name {
        "reserve" => Call::Reserve,
        "commit" => Call::Commit,
        "purge" => Call::Purge,
        "remap" => Call::Remap,
        "metadata" => Call::Metadata,
        other => panic!("no system call is named {other}"),
    }
}

fn rule_named(name: &str, number: u64) -> When {
    match name {
        "nth" => When::Nth(number),
        "every" => When::Every(number),
        "from" => When::From(number),
        other => panic!("no rule is named {other}"),
    }
}

/// Asks for what takes calls of this kind; null is an answer.
fn provoke(heap: &'static Heap, call: Call) {
    let mut shadow = Shadow::new(heap, 1 << 20, Vec::new());
    let mut step = |step: Operation| {
        step.apply(&mut shadow)
            .unwrap_or_else(|fault| panic!("{call:?}: {fault}"));
    };
    // Each of the large blocks fills most of a region; together they hold more
    // than any stage before. Each block that grows has a neighbour.
    let (rounds, size) = if call == Call::Reserve {
        (12, 40 << 20)
    } else {
        (40, 3 << 20)
    };
    for _ in 0..rounds {
        step(Operation::Allocate(layout(size, 8), false));
        step(Operation::Allocate(layout(1 << 20, 8), true));
        step(Operation::Allocate(layout(1 << 20, 8), false));
        if call == Call::Remap {
            // To what is free and dirty blocks are copied.
            bursar::purge();
        }
        step(Operation::Reallocate(1, 5 << 20));
    }
    shadow
        .clear()
        .unwrap_or_else(|fault| panic!("{call:?}: {fault}"));
    bursar::purge();
    if call == Call::Metadata {
        arenas(heap);
    }
}

/// More threads at a time than had arenas before.
fn arenas(heap: &'static Heap) {
    let together = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let together = Arc::clone(&together);
            thread::spawn(move || {
                let block = Filled::new(heap, layout(100, 8));
                together.wait();
                drop(block);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
}

/// Arguments: the call, the rule, its number, and `fresh` if the failures
/// begin before the allocator's first call, or `warm`.
fn fault(host: &Host, arguments: &Arguments) {
    let books = host
        .books
        .expect("a program in which bursar is not installed");
    let plan = Plan {
        threads: 3,
        operations: scaled(30_000, 8_000),
        round: scaled(10_000, 4_000),
        life: 2_000,
        blocks: 300,
        bytes: 32 << 20,
        mix: Mix::EVEN,
        seed: arguments.number(2),
        ..Plan::default()
    };
    let must = |stage: &str, null_allowed| {
        let plan = Plan {
            null_allowed,
            ..plan
        };
        let purge = |_: &_| {
            bursar::purge();
        };
        run(host.heap, &plan, books, purge).unwrap_or_else(|fault| panic!("{stage}: {fault}"))
    };
    if arguments.text(3) == "warm" {
        must("before any failure", false);
    }
    let call = call_named(arguments.text(0));
    fail(call, rule_named(arguments.text(1), arguments.number(2)));
    provoke(host.heap, call);
    let outcome = must("while calls fail", true);
    println!("{} nulls among {}", outcome.nulls, outcome.operations);
    // Or else nothing was tried.
    assert!(
        made(call) >= arguments.number(2),
        "{call:?} was called {} times",
        made(call)
    );
    clear();
    must("after the failures", false);
}
