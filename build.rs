//! Generates the size-class table: `$OUT_DIR/class_table.rs`, included by `src/class.rs`, which
//! computes every column a second time and compares at compile time.

use std::fmt::Write as _;

/// Bytes of a slice, the unit in which runs and spans take address space.
const SLICE: u64 = 128 << 10;
/// Sizes up to this are looked up in a table with one entry for each 8 bytes.
const LOOKUP_MAX: u64 = 2 << 10;
/// The largest size that is served from a run.
const RUN_MAX: u64 = 256 << 10;
/// Bytes of a run that has more than the fewest slots, at most, but for what fills its last slice.
const LONG_RUN: u64 = 1 << 20;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let path = std::path::Path::new(&out).join("class_table.rs");
    std::fs::write(path, table(&sizes())).expect("OUT_DIR is writable");
}

/// 8-byte steps to 128 B, eight steps a doubling to 2 KiB (at most 12.5 % of a slot wasted), four
/// a doubling beyond (20 %).
fn sizes() -> Vec<u64> {
    let mut sizes: Vec<u64> = (1..=16).map(|i| i * 8).collect();
    let mut base = 128;
    while base < RUN_MAX {
        let steps = if base < LOOKUP_MAX { 8 } else { 4 };
        sizes.extend((1..=steps).map(|i| base + i * base / steps));
        base *= 2;
    }
    sizes
}

/// Slices of a run: for 32 slots, so that a thread that replaces blocks of mixed sizes mostly stays
/// in its current runs, but no more than hold 1 MiB, or 8 slots.
fn run_slices(size: u64) -> u64 {
    let slots = (LONG_RUN / size).clamp(8, 32);
    (size * slots).div_ceil(SLICE)
}

fn table(sizes: &[u64]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "/// How many size classes there are.");
    let _ = writeln!(text, "pub(crate) const CLASSES: usize = {};", sizes.len());
    let _ = writeln!(
        text,
        "/// Every size class: slot bytes, slices a run, slots a run, per mille of a slot that the \
         smallest\n/// request of the class leaves unused, reciprocal."
    );
    let _ = writeln!(text, "#[rustfmt::skip]");
    let _ = writeln!(text, "pub(crate) const TABLE: [SizeClass; CLASSES] = [");
    let mut below = 0;
    for &size in sizes {
        let slices = run_slices(size);
        let slots = slices * SLICE / size;
        let waste = (size - below - 1) * 1000 / size;
        let reciprocal = (1_u64 << 40).div_ceil(size);
        let _ = writeln!(
            text,
            "    SizeClass::row({size}, {slices}, {slots}, {waste}, {reciprocal}),"
        );
        below = size;
    }
    let _ = writeln!(text, "];");
    let _ = writeln!(
        text,
        "/// The class of a size of at most {LOOKUP_MAX} bytes, by the multiples of 8 below it."
    );
    let _ = writeln!(text, "#[rustfmt::skip]");
    let entries: Vec<String> = (1..=LOOKUP_MAX / 8)
        .map(|unit| sizes.partition_point(|&size| size < unit * 8).to_string())
        .collect();
    let _ = writeln!(
        text,
        "pub(crate) const LOOKUP: [u8; {}] = [{}];",
        entries.len(),
        entries.join(", ")
    );
    text
}
