//! Each system call of the allocator fails: the first time, now and then, or
//! from some point on.

use allocator_tests::process::Scenario;
use allocator_tests::scenarios::scaled;

/// Whether failures begin before the allocator's first call.
const STAGES: [&str; 2] = ["fresh", "warm"];
/// For system calls of which a short run makes few, some, and many.
const FEW: &[(&str, u64)] = &[("nth", 1), ("every", 2), ("from", 1)];
const SOME: &[(&str, u64)] = &[
    ("nth", 1),
    ("nth", 3),
    ("every", 2),
    ("from", 1),
    ("from", 3),
];
const MANY: &[(&str, u64)] = &[
    ("nth", 1),
    ("nth", 7),
    ("every", 2),
    ("every", 5),
    ("from", 1),
    ("from", 20),
];

/// The nulls of each run. Small regions, so that address space is reserved
/// more than once, and a short decay time, so that much is purged.
fn nulls(call: &str, rules: &[(&str, u64)]) -> Vec<u64> {
    let runs = rules
        .iter()
        .flat_map(|rule| STAGES.map(|stage| (rule, stage)));
    runs.map(|((rule, number), stage)| {
        let printed = Scenario::new(env!("CARGO_BIN_EXE_bare"), "fault")
            .argument(call)
            .argument(rule)
            .argument(number)
            .argument(stage)
            .settings("decay_ms=5,region=67108864")
            .succeed();
        print!("{call} {rule} {number} {stage}: {printed}");
        let count = printed
            .split(' ')
            .next()
            .and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("no count of nulls: {printed}"))
    })
    .collect()
}

/// Without the first of them no block can be had.
fn refused(call: &str, rules: &[(&str, u64)]) {
    assert!(
        nulls(call, rules).iter().any(|&nulls| nulls > 0),
        "{call} has no effect"
    );
}

#[test]
fn address_space_is_refused() {
    refused("reserve", FEW);
}

#[test]
fn memory_is_refused() {
    refused("commit", SOME);
}

#[test]
fn memory_for_metadata_is_refused() {
    refused("metadata", FEW);
}

#[test]
fn what_cannot_be_moved_is_copied() {
    assert!(
        nulls("remap", FEW).iter().all(|&nulls| nulls == 0),
        "null without need"
    );
}

#[test]
fn what_cannot_be_purged_stays() {
    assert!(
        nulls("purge", MANY).iter().all(|&nulls| nulls == 0),
        "null without need"
    );
}

/// Sweeps over the calls of short runs, each case in a process of its own; `some` numbers of calls
/// where that is the strongest, `few` of the others and without optimisation.
fn sweep(rule: &str, stage: &str, density: &str) {
    let density = if scaled(1, 0) == 1 { density } else { "few" };
    let printed = Scenario::new(env!("CARGO_BIN_EXE_bare"), "fault_sweep")
        .argument(rule)
        .argument(stage)
        .argument(density)
        .succeed();
    println!("{rule} {stage} {density}\n{printed}");
}

#[test]
fn any_one_call_fails() {
    sweep("nth", "fresh", "some");
    sweep("nth", "warm", "few");
}

#[test]
fn every_so_many_calls_fail() {
    sweep("every", "fresh", "few");
    sweep("every", "warm", "few");
}

#[test]
fn calls_fail_from_one_on() {
    sweep("from", "fresh", "few");
    sweep("from", "warm", "few");
}
