//! Message buffers between processes.

use allocator_tests::process::Scenario;
use allocator_tests::scenarios::scaled;

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

#[test]
fn messages_are_passed_on_by_everybody_and_freed_by_somebody() {
    child("mbuf_ring").succeed();
}

#[test]
fn pools_are_never_exceeded() {
    print!("{}", child("mbuf_crowd").succeed());
}

#[test]
fn what_is_killed_at_any_moment_leaves_nothing_behind() {
    for seed in 0..scaled(4, 2) {
        print!("{}", child("mbuf_kill").argument(seed).succeed());
    }
}

#[test]
fn who_scribbles_over_everything_crashes_nobody() {
    for seed in 0..scaled(20, 8) {
        print!("{}", child("mbuf_scribble").argument(seed).succeed());
    }
}

#[test]
fn a_forked_child_is_another_process() {
    child("mbuf_fork").succeed();
}

#[test]
fn a_stopped_process_stops_nobody_for_good() {
    child("mbuf_stopped").succeed();
}
