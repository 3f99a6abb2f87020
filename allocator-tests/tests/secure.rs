//! The secure profile, by `BURSAR_CONF=secure` and in code.

use std::os::unix::process::ExitStatusExt;

use allocator_tests::process::Scenario;

fn bare(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_bare"), name).settings("secure")
}

/// What a program says that is ended by a signal.
fn ended_by(signal: i32, scenario: Scenario) -> String {
    let output = scenario.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.signal(), Some(signal), "{said}");
    said
}

const SMALL: [usize; 5] = [8, 24, 1_000, 70_000, 262_144];
const LARGE: [usize; 2] = [300_000, 20_000_000];

#[test]
fn what_is_freed_twice_ends_the_process() {
    for way in ["twice", "twice_apart", "twice_by_two", "resized"] {
        for size in SMALL.into_iter().chain(LARGE) {
            let said = ended_by(
                libc::SIGABRT,
                bare("secure_misuse").argument(way).argument(size),
            );
            assert!(said.starts_with("bursar: 0x"), "{way} {size}: {said}");
            assert!(said.contains("already free"), "{way} {size}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn what_starts_no_block_ends_the_process() {
    for size in SMALL.into_iter().skip(1).chain(LARGE) {
        let said = ended_by(
            libc::SIGABRT,
            bare("secure_misuse").argument("inside").argument(size),
        );
        let known = said.contains("inside a block") || said.contains("inside a large block");
        assert!(known, "{size}: {said}");
    }
}

#[test]
fn a_block_of_another_size_ends_the_process() {
    for way in ["another_size", "small_size"] {
        for size in SMALL.into_iter().skip(1).chain(LARGE) {
            let said = ended_by(
                libc::SIGABRT,
                bare("secure_misuse").argument(way).argument(size),
            );
            assert!(said.contains("freed as a block of"), "{way} {size}: {said}");
        }
    }
}

#[test]
fn freed_memory_is_cleared() {
    bare("secure_cleared").succeed();
}

#[test]
fn what_large_blocks_give_up_is_cleared() {
    bare("secure_cleared_large").argument("one").succeed();
    bare("secure_cleared_large")
        .pools("67108864,33554432:65536")
        .argument("pools")
        .succeed();
}

#[test]
fn what_is_held_back_is_let_go() {
    bare("secure_let_go").succeed();
    bare("secure_limits").succeed();
}

#[test]
fn freed_memory_is_held_back() {
    bare("secure_held_back").succeed();
}

#[test]
fn nobody_foresees_the_order_of_slots() {
    for size in [64, 20_000, 100_000] {
        let run = || bare("secure_order").argument(size).succeed();
        let (first, second) = (run(), run());
        assert_ne!(first, second, "{size} bytes: the same order twice");
        let places: Vec<u32> = first
            .split_whitespace()
            .map(|place| place.parse().expect("a number"))
            .collect();
        let rising = places.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((5..35).contains(&rising), "{size} bytes: {first}");
    }
}

#[test]
fn links_are_encoded() {
    bare("secure_links").succeed();
}

#[test]
fn a_link_that_was_overwritten_ends_the_process() {
    for size in [8, 64, 3_000] {
        let said = ended_by(libc::SIGABRT, bare("secure_overwritten").argument(size));
        assert!(said.contains("written to after it was freed"), "{said}");
    }
}

/// The bytes of a block, and that `bytes` from its start there are none.
#[test]
fn large_blocks_lie_between_guards() {
    for size in LARGE {
        let pages = size.next_multiple_of(4096) as isize;
        let reach = |offset: isize, what: &str| {
            bare("secure_reach")
                .argument(size)
                .argument(offset)
                .argument(what)
        };
        for own in [0, size as isize - 1] {
            assert_eq!(reach(own, "used").succeed(), "reached\n");
            ended_by(libc::SIGSEGV, reach(own, "freed"));
        }
        for beyond in [-1, -4096, pages, pages + 4095] {
            ended_by(libc::SIGSEGV, reach(beyond, "used"));
        }
    }
}

#[test]
fn chunks_end_with_a_guard() {
    bare("secure_chunk_ends").succeed();
}

#[test]
fn memory_does_not_grow() {
    bare("secure_growth").succeed();
}

#[test]
fn settings_in_code_count() {
    let output = Scenario::new(env!("CARGO_BIN_EXE_secured"), "secure_misuse")
        .argument("twice_apart")
        .argument(24)
        .run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("already free"), "{said}");
    Scenario::new(env!("CARGO_BIN_EXE_secured"), "use").succeed();
}
