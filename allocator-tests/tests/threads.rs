//! Threads and processes: who frees, who exits, who forks.

use allocator_tests::process::Scenario;
use allocator_tests::scenarios::scaled;

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

#[test]
fn threads_free_what_others_allocated() {
    child("remote_frees").succeed();
}

#[test]
fn threads_exit_with_live_memory() {
    child("exit_with_live").succeed();
}

#[test]
fn a_thread_only_frees() {
    // What is given back in between depends on how long it takes.
    child("only_frees").settings("decay_ms=never").succeed();
}

#[test]
fn a_thread_that_goes_round_keeps_its_runs() {
    child("goes_round").settings("decay_ms=never").succeed();
}

#[test]
fn a_hundred_thousand_short_lived_threads_leave_nothing() {
    child("short_lived").settings("decay_ms=never").succeed();
}

#[test]
fn threads_that_start_while_arenas_are_looked_through_make_no_more_of_them() {
    print!("{}", child("amid_purges").succeed());
}

#[test]
fn panics_unwind_through_frames_that_own_blocks() {
    child("unwind").succeed();
}

#[test]
fn blocks_from_before_main_are_whole() {
    child("before_main").succeed();
}

#[test]
fn thread_locals_allocate_and_free_while_they_are_destroyed() {
    child("thread_teardown").succeed();
}

#[test]
fn an_exit_handler_allocates_and_frees() {
    let printed = child("at_exit").succeed();
    // 66 from before main, 50 from main, 25 that its thread-local left.
    assert_eq!(printed, "at exit: freed 141, a thread made 200\n");
}

#[test]
fn a_program_exits_while_its_threads_allocate() {
    for _ in 0..10 {
        let printed = child("exit_amid_threads")
            .settings("stats_at_exit")
            .succeed();
        assert!(printed.ends_with("a thread made 200\n"), "{printed}");
    }
}

#[test]
fn a_forked_child_of_busy_threads_allocates_and_frees_at_once() {
    child("fork_busy").succeed();
}

#[test]
fn a_forked_child_of_busy_threads_and_a_purging_one_allocates_and_frees() {
    child("fork_busy")
        .settings("background,decay_ms=20")
        .succeed();
}

#[test]
fn a_forked_child_of_resting_threads_is_whole() {
    child("fork_quiet").succeed();
}

#[test]
fn fork_in_a_handler_that_interrupts_the_allocator_returns() {
    child("fork_in_handler").succeed();
}

#[test]
fn fork_in_a_handler_that_interrupts_a_fork_returns() {
    child("fork_in_fork").succeed();
}

#[test]
fn sixty_four_threads_and_their_handlers_fork() {
    let printed = child("fork_storm")
        .argument(scaled(300, 60))
        .argument(5_000)
        .argument(1)
        .succeed();
    print!("{printed}");
}

#[test]
fn handlers_allocate_where_they_interrupt_other_code() {
    let storm = |settings| {
        let printed = Scenario::new(env!("CARGO_BIN_EXE_bare"), "signal_storm")
            .argument(scaled(4, 2))
            .settings(settings)
            .succeed();
        print!("{printed}");
    };
    storm("");
    storm("background,decay_ms=1");
}
