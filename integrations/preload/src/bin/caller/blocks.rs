//! The functions of C, one by one.

use crate::contents::*;
use crate::family::*;
use std::ptr::null_mut;

const SIZES: [usize; 14] = [
    0,
    1,
    8,
    9,
    16,
    24,
    100,
    1000,
    2049,
    5000,
    70_000,
    262_145,
    1 << 20,
    20 << 20,
];

/// Blocks are as large as they say, aligned, apart from each other, and zeroed where promised.
pub fn blocks() {
    // SAFETY: each block is used within its size and freed once.
    unsafe {
        let mut blocks = Vec::new();
        for (seed, &size) in SIZES.iter().enumerate() {
            let block = malloc(size);
            assert!(!block.is_null() && block.addr().is_multiple_of(16));
            let usable = malloc_usable_size(block);
            assert!(usable >= size);
            fill(block, usable, seed as u8);
            let zeroed = calloc(size, 3).cast::<u8>();
            assert!((0..size * 3).all(|at| zeroed.add(at).read() == 0));
            fill(zeroed.cast(), size * 3, !(seed as u8));
            blocks.push((block, usable, zeroed.cast()));
        }
        for (seed, &(block, usable, zeroed)) in blocks.iter().enumerate() {
            expect(block, usable, seed as u8);
            expect(zeroed, SIZES[seed] * 3, !(seed as u8));
            free(block);
            free(zeroed);
        }
        // What was used before reads as zero again.
        for &size in &SIZES {
            let zeroed = calloc(1, size).cast::<u8>();
            assert!((0..size).all(|at| zeroed.add(at).read() == 0));
            free(zeroed.cast());
        }
    }
}

/// Nothing, too much, and what cannot be multiplied.
pub fn edges() {
    const MAX: usize = usize::MAX;
    set_errno(0);
    // SAFETY: what is refused gives nothing; what is given is freed.
    unsafe {
        for size in [MAX, MAX - 100, isize::MAX as usize, 1 << 60] {
            refused_with(malloc(size), libc::ENOMEM);
            refused_with(realloc(null_mut(), size), libc::ENOMEM);
            refused_with(memalign(64, size), libc::ENOMEM);
            refused_with(aligned_alloc(64, size), libc::ENOMEM);
            refused_with(valloc(size), libc::ENOMEM);
            refused_with(pvalloc(size), libc::ENOMEM);
        }
        for (count, size) in [(MAX, 2), (2, MAX), (1 << 32, 1 << 32), (MAX, MAX)] {
            refused_with(calloc(count, size), libc::ENOMEM);
            refused_with(reallocarray(null_mut(), count, size), libc::ENOMEM);
        }
        let block = malloc(100);
        fill(block, 100, 5);
        refused_with(realloc(block, 1 << 60), libc::ENOMEM);
        refused_with(reallocarray(block, MAX, 16), libc::ENOMEM);
        expect(block, 100, 5);
        // glibc frees it and returns null.
        assert!(realloc(block, 0).is_null());
        let (one, other) = (malloc(0), malloc(0));
        assert!(!one.is_null() && !other.is_null() && one != other);
        // errno survives free.
        set_errno(77);
        free(one);
        free(other);
        free(null_mut());
        assert_eq!(errno(), 77);
        let none = calloc(0, 10);
        assert!(!none.is_null());
        free(none);
        assert_eq!(malloc_usable_size(null_mut()), 0);
    }
}

/// Contents stay, from any size to any other.
pub fn resizing() {
    // SAFETY: each block is used within its size and freed once.
    unsafe {
        for &from in &SIZES {
            for &to in &SIZES[1..] {
                let block = malloc(from);
                fill(block, from, 9);
                let block = reallocarray(block, 1, to);
                assert!(!block.is_null() && block.addr().is_multiple_of(16));
                assert!(malloc_usable_size(block) >= to);
                expect(block, from.min(to), 9);
                fill(block, to, 11);
                free(block);
            }
        }
        let mut block = null_mut();
        for size in (1..3_000_000).step_by(50_021) {
            block = realloc(block, size);
            expect(block, size.saturating_sub(50_021), 3);
            fill(block, size, 3);
        }
        free(block);
        // A block that was asked for with a wide alignment may lose it, and nothing else.
        let block = memalign(1 << 20, 3000);
        fill(block, 3000, 1);
        let block = realloc(block, 300_000);
        expect(block, 3000, 1);
        free(block);
    }
}

pub fn alignment() {
    // SAFETY: each block is used within its size and freed once.
    unsafe {
        set_errno(0);
        for log in 0..=24 {
            let align = 1_usize << log;
            for size in [0, 1, 100, align, 3 * align + 1] {
                let mut placed = null_mut();
                let result = posix_memalign(&mut placed, align, size);
                let allowed = align.is_multiple_of(size_of::<usize>());
                assert_eq!(result, if allowed { 0 } else { libc::EINVAL });
                for block in [memalign(align, size), aligned_alloc(align, size), placed] {
                    assert!(block.addr().is_multiple_of(align));
                    if !block.is_null() {
                        fill(block, malloc_usable_size(block), 6);
                        free(block);
                    }
                }
            }
        }
        // Not a power of two: refused here, rounded up there.
        let mut place = null_mut();
        set_errno(0);
        assert_eq!(posix_memalign(&mut place, 24, 100), libc::EINVAL);
        assert_eq!(posix_memalign(&mut place, 0, 100), libc::EINVAL);
        assert_eq!(posix_memalign(&mut place, 64, 1 << 60), libc::ENOMEM);
        assert!(place.is_null() && errno() == libc::ENOMEM);
        refused_with(aligned_alloc(24, 100), libc::EINVAL);
        refused_with(aligned_alloc(0, 100), libc::EINVAL);
        let block = memalign(24, 100);
        assert_eq!(block.addr() % 32, 0);
        free(block);
        refused_with(memalign(usize::MAX, 100), libc::EINVAL);
        let page = libc::sysconf(libc::_SC_PAGESIZE) as usize;
        let (one, whole) = (valloc(10), pvalloc(page + 1));
        assert!(one.addr().is_multiple_of(page) && whole.addr().is_multiple_of(page));
        assert!(malloc_usable_size(whole) >= 2 * page);
        free(one);
        free(whole);
    }
}

pub fn figures() {
    // SAFETY: plain calls.
    unsafe {
        let before = mallinfo2();
        let (small, large) = (malloc(10_000), malloc(5 << 20));
        fill(large, 5 << 20, 1);
        let now = mallinfo2();
        assert!(now.uordblks - before.uordblks >= 10_000 + (5 << 20));
        assert_eq!(now.hblks - before.hblks, 1);
        assert!(now.hblkhd - before.hblkhd >= 5 << 20);
        free(small);
        free(large);
        assert_eq!(mallinfo2().uordblks, before.uordblks);
        assert_eq!(malloc_trim(0), 1, "5 MiB could be given back");
        assert_eq!(mallopt(libc::M_ARENA_MAX, 1), 1);
        assert_eq!(mallopt(12345, 1), 0);
        malloc_stats();
    }
}
