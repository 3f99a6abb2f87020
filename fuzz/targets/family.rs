//! Sequences of calls of the C interface, against a shadow of its blocks. The
//! fuzzer itself runs on it too, so that the address sanitizer, which brings a
//! `malloc` of its own, must be left out: `--sanitizer none`.
#![no_main]

// Brings `malloc` and its family with it.
use preload as _;

use allocator_tests::fuzzing::family::{Call, run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|calls: Vec<Call>| {
    run(&calls).unwrap_or_else(|what| panic!("{what}"));
    bursar::check().unwrap_or_else(|broken| panic!("{broken}"));
});
