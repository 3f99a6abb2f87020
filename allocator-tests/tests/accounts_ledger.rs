//! The shadow of the accounts: random consumers, scopes, blocks, hand-overs
//! and threads against books of the test's own. `--bin accounts_stress` runs
//! it for as long as one likes.

use std::sync::{Mutex, PoisonError};

use allocator_tests::accounts::{Outcome, Plan, run};
use allocator_tests::scenarios::scaled;
use allocator_tests::sizes::Mix;
use bursar::Bursar;

/// Not installed: what is on its books is the shadow's own.
static HEAP: Bursar = Bursar::new();
/// One at a time: the books of what nobody claimed are compared, too.
static TURN: Mutex<()> = Mutex::new(());

fn agree(plan: Plan) -> Outcome {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = run(&HEAP, &plan, |_| ()).unwrap_or_else(|difference| panic!("{difference}"));
    println!("{outcome:?}");
    assert!(outcome.transfers > outcome.operations / 100, "{outcome:?}");
    assert!(outcome.snapshots > 0 && outcome.threads > plan.threads as u64);
    outcome
}

fn plan(seed: u64) -> Plan {
    Plan {
        operations: scaled(1_000_000, 100_000),
        round: scaled(50_000, 10_000),
        life: scaled(50_000, 6_000),
        seed,
        ..Plan::default()
    }
}

/// So few that their blocks fill runs of their own.
#[test]
fn few_consumers() {
    agree(Plan {
        consumers: 3,
        ..plan(1)
    });
}

/// So many that their blocks share runs.
#[test]
fn many_consumers() {
    let outcome = agree(Plan {
        consumers: 300,
        ..plan(2)
    });
    assert!(outcome.departed > 0, "none was seen departed: {outcome:?}");
}

/// Each category of sizes about as often.
#[test]
fn sizes_of_all_kinds() {
    agree(Plan {
        consumers: 20,
        mix: Mix::EVEN,
        blocks: 300,
        operations: scaled(200_000, 30_000),
        ..plan(3)
    });
}

/// Many threads, each for a moment.
#[test]
fn threads_that_end_soon() {
    let outcome = agree(Plan {
        threads: 8,
        life: 300,
        blocks: 500,
        ..plan(4)
    });
    assert!(outcome.threads > 100, "{outcome:?}");
}
