//! Less memory, address space or mappings than a program asks for.

use allocator_tests::process::Scenario;
use nix::sys::resource::Resource::{self, RLIMIT_AS, RLIMIT_DATA};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

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

#[test]
fn a_quarter_gib_of_address_space() {
    exhaust(RLIMIT_AS, 256 * MIB);
}

#[test]
fn one_gib_of_address_space() {
    exhaust(RLIMIT_AS, GIB);
}

#[test]
fn four_gib_of_address_space() {
    child("work").limit(RLIMIT_AS, 4 * GIB).succeed();
    exhaust(RLIMIT_AS, 4 * GIB);
}

#[test]
fn sixty_four_gib_of_address_space() {
    child("work").limit(RLIMIT_AS, 64 * GIB).succeed();
}

#[test]
fn half_a_gib_of_data() {
    exhaust(RLIMIT_DATA, 512 * MIB);
}

#[test]
fn ordinary_work_in_half_a_gib_of_address_space() {
    // Sixteen categories of up to 16 MiB in three threads, 150 blocks each.
    child("work").limit(RLIMIT_AS, 2 * GIB).succeed();
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
