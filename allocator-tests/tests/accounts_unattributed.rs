//! What no consumer claims. Alone in its program, where hardly anything else is allocated: a reading
//! is too high by what others free meanwhile.

use bursar::Bursar;

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

#[test]
fn unattributed_blocks_are_counted_as_such() {
    // The harness allocates at the same time, so only blocks too large for it tell.
    let before = bursar::unattributed().live_bytes;
    let block: Vec<u8> = std::hint::black_box(Vec::with_capacity(1 << 30));
    let usage = bursar::unattributed();
    assert!(
        usage.live_bytes >= before + (1 << 30) - (64 << 20),
        "{before}, then {usage:?}"
    );
    assert!(usage.peak_bytes >= usage.live_bytes, "{usage:?}");
    drop(block);
    assert!(bursar::unattributed().live_bytes < before + (64 << 20));
}
