//! The shadow model: short runs that shrink to a few steps when they fail, and
//! a long one with many threads.

use std::alloc::Layout;

use allocator_tests::blocks::layout;
use allocator_tests::shadow::{Fault, Shadow, at_rest, disjoint};
use allocator_tests::sizes::Mix;
use allocator_tests::stress::{Operation, Plan, run};
use allocator_tests::turns::alone;
use bursar::Bursar;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Not installed: what is on its books is the tests' own.
static HEAP: Bursar = Bursar::new();

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 1..=128_usize,
        4 => 100..=2_100_usize,
        3 => 2_000..=40_000_usize,
        2 => 32_000..=300_000_usize,
        1 => 250_000..=10_000_000_usize,
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let align = prop_oneof![8 => 0..=4_u32, 2 => 0..=13_u32, 1 => 14..=23_u32];
    let layout = (size(), align).prop_map(|(size, power)| {
        Layout::from_size_align(size, 1 << power).expect("far below the limit")
    });
    prop_oneof![
        6 => (layout, any::<bool>()).prop_map(|(layout, zeroed)| Operation::Allocate(layout, zeroed)),
        4 => any::<usize>().prop_map(Operation::Free),
        2 => (any::<usize>(), size()).prop_map(|(pick, size)| Operation::Reallocate(pick, size)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(debug_assertions) { 60 } else { 400 },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model.regressions"))),
        ..ProptestConfig::default()
    })]

    /// After every step no two blocks overlap; at the end all contents are
    /// whole, the books equal the shadow's and every invariant holds.
    #[test]
    fn any_sequence_of_steps_keeps_the_contract(steps in prop::collection::vec(operation(), 1..120)) {
        alone(|| all_is_well_with(&steps)).map_err(TestCaseError::fail)?;
    }
}

/// What goes wrong in a sequence of steps; leaves nothing behind.
fn all_is_well_with(steps: &[Operation]) -> Result<(), String> {
    let mut shadow = Shadow::new(&HEAP, 1, Vec::new());
    let mut apply = || {
        for step in steps {
            if !step.apply(&mut shadow)? {
                return Err(Fault::Null(layout(1, 1), bursar::last_failure()));
            }
            disjoint(shadow.blocks())?;
        }
        shadow.verify()?;
        at_rest(shadow.blocks(), |ours| ours)
    };
    let first = apply();
    let then = shadow.clear().and_then(|()| at_rest(&[], |ours| ours));
    first.and(then).map_err(|fault| fault.to_string())
}

/// After each of the steps, not only after the last, nothing is amiss.
fn all_is_well_after_each(steps: &[Operation]) {
    for count in 1..=steps.len() {
        let result = alone(|| all_is_well_with(&steps[..count]));
        result.unwrap_or_else(|fault| panic!("after {:?}: {fault}", steps[count - 1]));
    }
}

#[test]
fn a_large_block_moves_and_then_shrinks() {
    let block = |size| Operation::Allocate(layout(size, 8), false);
    for size in [356_500, 3 << 20, 70_000, 100] {
        all_is_well_after_each(&[
            block(5 << 20),
            block(5 << 20),
            Operation::Reallocate(0, 6_247_444),
            Operation::Reallocate(1, size),
            Operation::Reallocate(1, 9 << 20),
        ]);
    }
}

fn stress(plan: Plan) {
    let outcome = alone(|| run(&HEAP, &plan, |ours| ours, |_| {}));
    let outcome = outcome.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(outcome.operations >= plan.operations, "{outcome:?}");
    assert!(
        outcome.threads > plan.threads as u64,
        "threads exit and are replaced: {outcome:?}"
    );
}

/// In CI the binary `stress` runs a hundred million of these.
#[test]
fn many_threads_under_the_shadow() {
    let operations = if cfg!(debug_assertions) {
        600_000
    } else {
        10_000_000
    };
    stress(Plan {
        operations,
        round: operations / 4,
        ..Plan::default()
    });
}

#[test]
fn two_threads_and_every_category_as_often() {
    let operations = if cfg!(debug_assertions) {
        50_000
    } else {
        500_000
    };
    stress(Plan {
        threads: 2,
        operations,
        round: operations / 5,
        life: 3_000,
        blocks: 500,
        mix: Mix::EVEN,
        seed: 2,
        ..Plan::default()
    });
}

#[test]
fn sixteen_threads_that_soon_exit() {
    let operations = if cfg!(debug_assertions) {
        300_000
    } else {
        3_000_000
    };
    stress(Plan {
        threads: 16,
        operations,
        round: operations / 3,
        life: 2_000,
        blocks: 3_000,
        bytes: 16 << 20,
        seed: 3,
        ..Plan::default()
    });
}
