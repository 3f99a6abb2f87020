//! After a peak of mixed blocks and the release of all but one in a hundred,
//! resident memory falls to the pages that hold a live block plus 4 MiB,
//! within the decay time.

use std::panic::catch_unwind;
use std::sync::Mutex;

use allocator_tests::process::Scenario;

const PEAK_MIB: u64 = if cfg!(debug_assertions) { 256 } else { 2048 };
/// Long enough that giving back two GiB, which takes the kernel a while, does
/// not decide the outcome on a machine with other work.
const DECAY_MS: u64 = 4000;

/// One at a time: each measures time, and needs gigabytes.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a scenario with a decay time, and if it fails with four and sixteen times that: what is
/// promised is in terms of the decay time, whatever it is, and a machine with other work may need
/// more than the first for the work itself.
fn timed(scenario: &str, arguments: &[&str], decay_ms: u64, settings: &str) {
    let _turn = TURN.lock().unwrap_or_else(|panicked| panicked.into_inner());
    let attempt = |decay_ms: u64| {
        let child = Scenario::new(env!("CARGO_BIN_EXE_bare"), scenario);
        let child = arguments
            .iter()
            .fold(child, |child, argument| child.argument(argument));
        let child = child
            .argument(decay_ms)
            .settings(&format!("decay_ms={decay_ms}{settings}"));
        print!("{arguments:?}: {}", child.succeed());
    };
    for decay_ms in [decay_ms, 4 * decay_ms] {
        if catch_unwind(|| attempt(decay_ms)).is_ok() {
            return;
        }
    }
    attempt(16 * decay_ms);
}

fn peak(variant: &str, settings: &str) {
    timed(
        "peak",
        &[variant, &PEAK_MIB.to_string()],
        DECAY_MS,
        settings,
    );
}

#[test]
fn memory_goes_back_while_the_program_does_a_little() {
    peak("active", "");
}

#[test]
fn memory_goes_back_in_the_background_while_the_program_sleeps() {
    peak("background", ",background");
}

#[test]
fn memory_goes_back_at_once_when_asked() {
    peak("now", "");
}

#[test]
fn memory_of_threads_that_exited_goes_back() {
    peak("exited", "");
}

/// Here each of the four threads may keep some MiB of its own at hand.
#[test]
fn memory_that_another_thread_freed_goes_back_once_its_owners_do_a_little() {
    peak("owners", "");
}

#[test]
fn memory_that_another_thread_freed_goes_back_while_its_owners_sleep() {
    peak("sleepers", ",background");
}

#[test]
fn a_span_that_is_freed_after_a_pause_is_at_hand_for_a_while() {
    timed("pause", &[], 200, "");
}

#[test]
fn a_thread_that_wakes_late_gives_back_at_once() {
    timed("late", &[], 600, "");
}

#[test]
fn runs_that_their_owner_drains_give_pages_back_meanwhile() {
    timed("draining", &["owner"], 1200, "");
}

#[test]
fn runs_that_others_drain_give_pages_back_meanwhile() {
    timed("draining", &["others"], 1200, ",background");
}

#[test]
fn memory_goes_back_while_a_thread_only_frees_large_blocks() {
    timed("only_frees_large", &[], 800, "");
}

#[test]
fn what_goes_up_and_down_keeps_its_memory_until_it_rests() {
    timed("waves", &[], 800, "");
}

#[test]
fn what_runs_of_sleepers_do_not_use_goes_back_when_asked() {
    timed("unextended", &["asked"], DECAY_MS, "");
}

#[test]
fn what_runs_of_sleepers_do_not_use_goes_back_in_the_background() {
    timed("unextended", &["background"], 1200, ",background");
}
