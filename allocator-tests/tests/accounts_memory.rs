//! A consumer that ends gives its memory back, where the same work without
//! consumers leaves every page with something on it.

use allocator_tests::process::Scenario;

/// KiB resident at the peak and after the end, and KiB that live on.
fn queries(how: &str) -> [u64; 3] {
    let printed = Scenario::new(env!("CARGO_BIN_EXE_child"), "queries")
        .argument(how)
        .succeed();
    print!("{how} consumers: peak, after the end, alive in KiB: {printed}");
    let mut figures = printed
        .split_whitespace()
        .map(|figure| figure.parse().expect("a number"));
    [(); 3].map(|()| figures.next().expect("three figures"))
}

#[test]
fn memory_falls_when_a_query_ends() {
    let [with, without] = ["with", "without"].map(queries);
    let [peak, after, alive] = with;
    assert!(
        after < alive * 2 + (4 << 10),
        "{after} KiB for {alive} alive"
    );
    assert!(
        after * 3 < without[1],
        "{after} KiB with consumers, {} without",
        without[1]
    );
    assert!(
        peak < without[0] * 5 / 4,
        "the peak is {peak} KiB, without {}",
        without[0]
    );
}

#[test]
fn tags_of_blocks_that_were_handed_over_go_back() {
    let printed = Scenario::new(env!("CARGO_BIN_EXE_child"), "side_arrays")
        .settings("decay_ms=never")
        .succeed();
    print!("{printed}");
}
