//! The fuzz targets without a fuzzer: what they have found so far, kept in
//! `fuzz/corpus`, and inputs drawn at random.

use std::fs;
use std::path::PathBuf;

use allocator_tests::fuzzing::{conf, heap, pool_spec};
use allocator_tests::turns::alone;
use arbitrary::{Arbitrary, Unstructured};
use bursar::Bursar;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// Not installed: what is on its books is the tests' own.
static HEAP: Bursar = Bursar::new();

/// The inputs that are kept for a target, with their names.
fn kept(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let files = fs::read_dir(folder.join(target)).expect("the corpus is there");
    let inputs: Vec<_> = files
        .map(|file| {
            let file = file.expect("a folder that can be read");
            let name = file.file_name().to_string_lossy().into_owned();
            (
                name,
                fs::read(file.path()).expect("a file that can be read"),
            )
        })
        .collect();
    assert!(inputs.len() > 20, "{} inputs", inputs.len());
    inputs
}

/// Runs a target on what is kept for it and on inputs drawn at random.
fn each(target: &str, drawn: usize, longest: usize, run: impl Fn(&[u8])) {
    for (name, input) in kept(target) {
        eprintln!("fuzz/corpus/{target}/{name}");
        run(&input);
    }
    let mut rng = SmallRng::seed_from_u64(1);
    for number in 0..drawn {
        let mut input = vec![0; rng.random_range(0..longest)];
        rng.fill_bytes(&mut input);
        eprintln!("the input {number} drawn for {target}");
        run(&input);
    }
}

#[test]
fn conf() {
    each("conf", 1_000, 100, conf::run);
}

#[test]
fn pool_spec() {
    pool_spec::run_constant();
    each("pool_spec", 1_000, 100, pool_spec::run);
}

/// A budget and a limit, each of which is looked at to the byte.
#[test]
fn edges() {
    use heap::{Change, Sequence, Size, Step};

    let sequence = Sequence {
        budget: Some(1_000),
        departs_first: true,
        steps: vec![
            Step::Open(0, None),
            Step::Register(0, 0),
            Step::Reserve(0, Change::Grow(10)),
            Step::Turn(1),
            Step::Limit(0, None, Some(Size(1 << 20))),
            Step::Try(0, Size(300_000), false),
            Step::Limit(0, None, Some(Size(1 << 20))),
            Step::SafePoint(0),
            Step::Compare,
        ],
    };
    alone(|| heap::run(&HEAP, &sequence)).unwrap_or_else(|what| panic!("{what}"));
}

#[test]
fn heap() {
    let drawn = if cfg!(debug_assertions) { 20 } else { 200 };
    each("heap", drawn, 4_000, |input| {
        let sequence = heap::Sequence::arbitrary(&mut Unstructured::new(input));
        if let Ok(sequence) = sequence {
            alone(|| heap::run(&HEAP, &sequence)).unwrap_or_else(|what| panic!("{what}"));
        }
    });
}
