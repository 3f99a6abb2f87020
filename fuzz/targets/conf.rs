//! `BURSAR_CONF`, against a second parser.
#![no_main]

use allocator_tests::fuzzing::conf::run;

libfuzzer_sys::fuzz_target!(|text: &[u8]| run(text));
