//! `BURSAR_POOLS`, against a second parser and the compiler's results.
#![no_main]

use allocator_tests::fuzzing::pool_spec::{run, run_constant};

libfuzzer_sys::fuzz_target!(init: run_constant(), |text: &[u8]| run(text));
