//! Less memory, address space or mappings than a program asks for.

use allocator_tests::process::Scenario;
use nix::sys::resource::Resource::{self, RLIMIT_AS, RLIMIT_DATA};

const MIB: u64 = 1 << 20;

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

/// At least two fifths of what the limit permits can be had, in blocks that are a
/// sixteenth of it and smaller.
fn exhaust(resource: Resource, limit: u64) {
    child("exhaust")
        .limit(resource, limit)
        .argument(limit / 16)
        .argument(limit / 5 * 2)
        .succeed();
}

/// From 256 MiB to 64 GiB, each twice the one before.
fn doubling() -> impl Iterator<Item = u64> {
    (0..9).map(|power| (256 * MIB) << power)
}

#[test]
fn address_space_from_a_quarter_gib_to_64_gib() {
    doubling().for_each(|limit| exhaust(RLIMIT_AS, limit));
}

#[test]
fn ordinary_work_under_limits_on_address_space() {
    // Sixteen categories of up to 16 MiB in three threads, 150 blocks each.
    for limit in doubling().skip(3) {
        child("work").limit(RLIMIT_AS, limit).succeed();
    }
}

#[test]
fn data_from_a_quarter_gib_to_4_gib() {
    for limit in doubling().take(5) {
        exhaust(RLIMIT_DATA, limit);
    }
}

#[test]
fn no_mapping_to_be_had() {
    child("islands").succeed();
}

#[test]
fn memory_that_is_locked() {
    child("locked").succeed();
}

#[test]
fn a_region_of_64_mib() {
    child("work").settings("region=67108864").succeed();
}
