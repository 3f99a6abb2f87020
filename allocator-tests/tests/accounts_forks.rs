//! A forked child has a sound copy of the books.

use allocator_tests::process::Scenario;

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

#[test]
fn scopes_and_reports_work_at_once_in_a_child_of_busy_threads() {
    child("fork_accounts_busy").succeed();
}

#[test]
fn scopes_and_reports_work_at_once_beside_a_purging_thread() {
    child("fork_accounts_busy")
        .settings("background,decay_ms=20")
        .succeed();
}

#[test]
fn what_vanished_threads_hold_is_counted_and_can_be_freed() {
    child("fork_accounts_quiet").succeed();
}
