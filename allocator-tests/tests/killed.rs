//! Processes that are killed or run out of memory, beside others.

use allocator_tests::process::Scenario;
use allocator_tests::scenarios::scaled;

/// Address space is reserved in small pieces, so that a limit on it can be met.
fn killed(how: &str, count: u64) {
    let printed = Scenario::new(env!("CARGO_BIN_EXE_child"), "killed")
        .argument(how)
        .argument(count)
        .argument(1)
        .settings("region=67108864")
        .succeed();
    print!("{how}: {printed}");
    if printed.contains("NOT CHECKED") {
        // Not captured with the output of tests that pass.
        let _ = std::fs::write("/dev/stderr", format!("{how}: {printed}"));
    }
}

#[test]
fn by_a_signal_at_any_moment() {
    killed("signal", scaled(100, 30));
}

#[test]
fn out_of_memory_in_a_group() {
    killed("group", scaled(6, 3));
}

#[test]
fn out_of_address_space() {
    killed("limit", scaled(6, 3));
}
