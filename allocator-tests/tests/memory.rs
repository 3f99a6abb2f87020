//! The figures that other tests rely on. A process of its own: whatever else
//! runs in it changes them.

use allocator_tests::memory::Memory;

#[test]
fn touched_memory_is_resident_and_anonymous() {
    let before = Memory::now();
    let block = std::hint::black_box(vec![1_u8; 32 << 20]);
    let grown = Memory::now().since(before);
    assert_eq!(block[block.len() - 1], 1);
    for figure in [grown.mapped, grown.resident, grown.anonymous, grown.peak] {
        assert!(figure > 31 << 20, "{grown:?}");
    }
}
