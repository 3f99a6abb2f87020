//! Sequences of steps over the allocator, against a shadow of it.
#![no_main]

use allocator_tests::fuzzing::heap::{Sequence, run};
use bursar::Bursar;

/// Not installed: what is on its books is the sequence's. What goes back to the
/// system does so when a step says it, not when a while has passed.
static HEAP: Bursar = Bursar::new().decay_ms(u64::MAX);

libfuzzer_sys::fuzz_target!(|sequence: Sequence| {
    run(&HEAP, &sequence).unwrap_or_else(|what| panic!("{what}"));
});
