//! No allocation happens inside the allocator: every scenario again, in a
//! program that ends at the first one. The same program keeps books of its
//! own, with which the allocator's must agree to the byte whenever a scenario
//! rests.

use allocator_tests::process::Scenario;

fn guarded(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_guarded"), name)
}

#[test]
fn the_guard_sees_an_allocation_inside() {
    let output = guarded("trespass").run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("alloc was called inside the allocator"),
        "{said}"
    );
}

#[test]
fn not_in_any_call_of_the_interface() {
    guarded("interface").succeed();
}

#[test]
fn not_in_snapshots_while_threads_work() {
    guarded("snapshots").succeed();
}

#[test]
fn not_when_a_thread_ends() {
    guarded("thread_end").succeed();
}

#[test]
fn not_when_threads_hand_over_and_exit() {
    guarded("remote_frees").succeed();
    guarded("exit_with_live").succeed();
    guarded("thread_teardown").succeed();
    guarded("unwind").succeed();
}

#[test]
fn not_around_main() {
    guarded("before_main").succeed();
    guarded("at_exit").succeed();
}

#[test]
fn not_around_a_fork() {
    guarded("fork_quiet").succeed();
}

/// Except `background`: the C library allocates for the thread, once, at the
/// first request.
#[test]
fn not_with_every_setting() {
    let settings = "decay_ms=10,huge_pages,stats_at_exit,junk";
    guarded("exit_with_live").settings(settings).succeed();
    guarded("interface").settings(settings).succeed();
}
