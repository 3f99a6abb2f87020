//! Calls the `malloc` family as programs in C do. Run by the tests with `libbursar.so` preloaded:
//! `caller <scenario>`; it ends with 0 if all was as it should be.

use libc::{c_int, c_void, size_t};
use std::ffi::CStr;
use std::mem::transmute;
use std::ptr::{null, null_mut};

/// All of it is the C library's, or what stands in for it.
#[global_allocator]
static GLOBAL: std::alloc::System = std::alloc::System;

/// Each function as the linker finds it: the compiler knows these names, and leaves calls out.
mod family {
    use super::*;
    use std::hint::black_box;

    macro_rules! functions {
        ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
            pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
                unsafe extern "C" {
                    fn $name($($argument: $type),*) $(-> $result)?;
                }
                let function = $name as unsafe extern "C" fn($($type),*) $(-> $result)?;
                // SAFETY: the caller's promise.
                unsafe { black_box(function)($($argument),*) }
            }
        )*};
    }

    functions! {
        malloc(size: size_t) -> *mut c_void;
        calloc(count: size_t, size: size_t) -> *mut c_void;
        realloc(block: *mut c_void, size: size_t) -> *mut c_void;
        reallocarray(block: *mut c_void, count: size_t, size: size_t) -> *mut c_void;
        free(block: *mut c_void);
        memalign(align: size_t, size: size_t) -> *mut c_void;
        aligned_alloc(align: size_t, size: size_t) -> *mut c_void;
        posix_memalign(place: *mut *mut c_void, align: size_t, size: size_t) -> c_int;
        valloc(size: size_t) -> *mut c_void;
        pvalloc(size: size_t) -> *mut c_void;
        malloc_usable_size(block: *mut c_void) -> size_t;
        malloc_trim(pad: size_t) -> c_int;
        malloc_stats();
        mallopt(parameter: c_int, value: c_int) -> c_int;
        mallinfo2() -> libc::mallinfo2;
    }
}
use family::*;

const SCENARIOS: [(&str, fn()); 13] = [
    ("blocks", blocks),
    ("edges", edges),
    ("resizing", resizing),
    ("alignment", alignment),
    ("figures", figures),
    ("operators", operators),
    ("refused", refused),
    ("threads", threads),
    ("forks", forks),
    ("streams", streams),
    ("libraries", libraries),
    ("free_foreign", || {
        free_at(|_| (&raw const GLOBAL).cast_mut().cast())
    }),
    ("free_inside", || {
        free_at(|block| block.wrapping_byte_add(16))
    }),
];

fn main() {
    assert!(is_bursar(c"malloc"), "libbursar.so is not preloaded");
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some((_, scenario)) = SCENARIOS.iter().find(|known| known.0 == name) else {
        panic!("no scenario is named {name:?}");
    };
    // What hangs is to fail.
    // SAFETY: no handler is set: the process ends.
    unsafe { libc::alarm(60) };
    scenario();
    early::check();
}

/// Whether a function is `libbursar.so`'s.
fn is_bursar(name: &CStr) -> bool {
    // SAFETY: the name is terminated, and `info` may be written.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        let mut info: libc::Dl_info = std::mem::zeroed();
        libc::dladdr(found, &mut info) != 0
            && CStr::from_ptr(info.dli_fname)
                .to_bytes()
                .ends_with(b"libbursar.so")
    }
}

/// What happens before `main`, and after it.
mod early {
    use super::family::*;
    use std::ffi::c_void;
    use std::sync::atomic::{AtomicPtr, Ordering};

    static BLOCK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

    extern "C" fn begin() {
        // SAFETY: a hook without arguments.
        unsafe {
            BLOCK.store(malloc(100), Ordering::Relaxed);
            libc::atexit(end);
        }
    }

    extern "C" fn end() {
        // SAFETY: the block is alive, and the new one is freed at once.
        unsafe {
            free(BLOCK.load(Ordering::Relaxed));
            let last = malloc(1 << 20);
            assert!(!last.is_null());
            free(last);
        }
    }

    // SAFETY: a function without arguments, in the section of functions called before `main`.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEGIN: extern "C" fn() = begin;

    /// A block of a constructor is one like any other.
    pub fn check() {
        // SAFETY: the block is alive.
        let usable = unsafe { malloc_usable_size(BLOCK.load(Ordering::Relaxed)) };
        assert!(usable >= 100);
    }
}

fn errno() -> c_int {
    // SAFETY: every thread has its errno.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value };
}

/// Asserts that nothing came, and why.
#[track_caller]
fn refused_with(block: *mut c_void, error: c_int) {
    assert!(block.is_null());
    assert_eq!(errno(), error);
    set_errno(0);
}

/// Bytes from a seed.
fn fill(block: *mut c_void, len: usize, seed: u8) {
    for at in 0..len {
        // SAFETY: the caller's block is that long.
        unsafe { block.cast::<u8>().add(at).write(seed ^ at as u8) };
    }
}

#[track_caller]
fn expect(block: *mut c_void, len: usize, seed: u8) {
    for at in 0..len {
        // SAFETY: the caller's block is that long.
        let byte = unsafe { block.cast::<u8>().add(at).read() };
        assert_eq!(byte, seed ^ at as u8, "byte {at} of {len}");
    }
}

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
fn blocks() {
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
fn edges() {
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
fn resizing() {
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

fn alignment() {
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

fn figures() {
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

/// The forms of `new` and `delete`, by the names that a compiler gives them.
fn operators() {
    type New = unsafe extern "C-unwind" fn(usize) -> *mut c_void;
    type NewAligned = unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void;
    type NewQuiet = unsafe extern "C-unwind" fn(usize, *const c_void) -> *mut c_void;
    type NewAlignedQuiet = unsafe extern "C-unwind" fn(usize, usize, *const c_void) -> *mut c_void;
    type Delete = unsafe extern "C" fn(*mut c_void, usize, usize);
    let find = |name: &CStr| {
        assert!(is_bursar(name), "{name:?}");
        // SAFETY: the name is terminated.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let deletes = [
        [
            c"_ZdlPv",
            c"_ZdlPvm",
            c"_ZdlPvRKSt9nothrow_t",
            c"_ZdlPvSt11align_val_t",
        ],
        [
            c"_ZdaPv",
            c"_ZdaPvm",
            c"_ZdaPvRKSt9nothrow_t",
            c"_ZdaPvSt11align_val_t",
        ],
        [
            c"_ZdlPvmSt11align_val_t",
            c"_ZdlPvSt11align_val_tRKSt9nothrow_t",
            c"_ZdaPvmSt11align_val_t",
            c"_ZdaPvSt11align_val_tRKSt9nothrow_t",
        ],
    ];
    // SAFETY: the functions have these types; a delete that takes fewer arguments leaves the others
    // alone.
    unsafe {
        for form in ["w", "a"] {
            let name = |rest: &str| std::ffi::CString::new(format!("_Zn{form}m{rest}")).unwrap();
            let new = transmute::<*mut c_void, New>(find(&name("")));
            let aligned = transmute::<*mut c_void, NewAligned>(find(&name("St11align_val_t")));
            let quiet = transmute::<*mut c_void, NewQuiet>(find(&name("RKSt9nothrow_t")));
            let aligned_quiet = name("St11align_val_tRKSt9nothrow_t");
            let aligned_quiet = transmute::<*mut c_void, NewAlignedQuiet>(find(&aligned_quiet));
            assert!(quiet(1 << 60, null()).is_null());
            assert!(aligned_quiet(1 << 60, 64, null()).is_null());
            for delete in deletes.as_flattened() {
                let delete = transmute::<*mut c_void, Delete>(find(delete));
                let blocks = [
                    new(100),
                    new(0),
                    aligned(100, 256),
                    quiet(100, null()),
                    aligned_quiet(100, 4096, null()),
                ];
                assert!(
                    blocks[2].addr().is_multiple_of(256) && blocks[4].addr().is_multiple_of(4096)
                );
                for (seed, block) in blocks.into_iter().enumerate() {
                    assert!(!block.is_null());
                    fill(block, malloc_usable_size(block), seed as u8);
                    delete(block, 100, 64);
                }
                delete(null_mut(), 0, 0);
            }
        }
    }
}

/// `new` without memory, and without a C++ library to throw: the process ends.
fn refused() {
    // SAFETY: the function has this type.
    unsafe {
        let new = libc::dlsym(libc::RTLD_DEFAULT, c"_Znwm".as_ptr());
        transmute::<*mut c_void, extern "C" fn(usize) -> *mut c_void>(new)(1 << 60);
    }
}

/// Threads that come and go, and free each other's blocks, also when they end.
fn threads() {
    struct AtEnd(Vec<Vec<u8>>);
    impl Drop for AtEnd {
        fn drop(&mut self) {
            self.0.push(vec![7; 5000]);
        }
    }
    thread_local!(static LAST: std::cell::RefCell<AtEnd> = const { std::cell::RefCell::new(AtEnd(Vec::new())) });
    let (send, receive) = std::sync::mpsc::sync_channel::<Vec<Vec<u8>>>(8);
    let eater = std::thread::spawn(move || {
        receive
            .iter()
            .map(|blocks| blocks.iter().map(Vec::len).sum::<usize>())
            .sum::<usize>()
    });
    for _ in 0..50 {
        let makers: Vec<_> = (0..8_usize)
            .map(|maker| {
                let send = send.clone();
                std::thread::spawn(move || {
                    LAST.with_borrow_mut(|last| last.0.push(vec![1; 100]));
                    let blocks = (0..500).map(|at| vec![maker as u8; at * maker]).collect();
                    send.send(blocks).expect("the eater listens");
                })
            })
            .collect();
        makers
            .into_iter()
            .for_each(|maker| maker.join().expect("no maker panics"));
    }
    drop(send);
    let each: usize = (0..8)
        .map(|maker| (0..500).map(|at| at * maker).sum::<usize>())
        .sum();
    assert_eq!(eater.join().expect("it does not panic"), 50 * each);
}

/// Children of a busy program allocate and free at once.
fn forks() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 1..5_usize {
            let stop = &stop;
            scope.spawn(move || {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    kept.push(vec![0; kept.len() * seed % 9000]);
                    kept.truncate(kept.len() % 300);
                }
            });
        }
        for _ in 0..200 {
            // SAFETY: the child allocates, frees and leaves.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let blocks: Vec<Vec<u8>> = (0..2000).map(|size| vec![1; size]).collect();
                assert!(
                    blocks
                        .iter()
                        .enumerate()
                        .all(|(size, block)| block.len() == size)
                );
                drop(blocks);
                std::thread::spawn(|| drop(vec![1_u8; 1 << 20]))
                    .join()
                    .expect("it ends");
                // SAFETY: no destructors are wanted.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: `status` may be written.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Threads fork while others flush all streams, and wait for memory with a stream in hand.
fn streams() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let goes_on = || !stop.load(std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("bursar-streams-{}", std::process::id()));
    std::fs::write(&path, [vec![b'x'; 50_000], vec![b'\n']].concat()).expect("it is written");
    let name = std::ffi::CString::new(path.to_str().expect("it is text")).expect("no zero in it");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while goes_on() {
                    // SAFETY: the child leaves at once, without destructors.
                    unsafe {
                        let child = libc::fork();
                        if child == 0 {
                            libc::_exit(0);
                        }
                        libc::waitpid(child, null_mut(), 0);
                    }
                }
            });
        }
        for _ in 0..8 {
            scope.spawn(|| {
                // SAFETY: the stream is open, and the line is the C library's to allocate.
                unsafe {
                    let stream = libc::fopen(name.as_ptr(), c"r".as_ptr());
                    while goes_on() {
                        libc::rewind(stream);
                        let (mut line, mut room) = (null_mut(), 0);
                        assert_eq!(libc::getline(&mut line, &mut room, stream), 50_001);
                        free(line.cast());
                    }
                    libc::fclose(stream);
                }
            });
        }
        scope.spawn(|| {
            while goes_on() {
                // SAFETY: all streams.
                unsafe { libc::fflush(null_mut()) };
            }
        });
        std::thread::sleep(std::time::Duration::from_secs(3));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    std::fs::remove_file(path).expect("it is there");
}

/// Libraries that are loaded and unloaded while threads with blocks come and go.
fn libraries() {
    for round in 0..50 {
        // SAFETY: the C library's own, which may be loaded at any time.
        let library = unsafe { libc::dlopen(c"libresolv.so.2".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        let thread = std::thread::spawn(move || vec![round as u8; round * 1000]);
        assert_eq!(thread.join().expect("it ends").len(), round * 1000);
        // SAFETY: nothing of it is used.
        unsafe { libc::dlclose(library) };
    }
}

/// Frees an address that is no block's: the process ends, and says what it is.
fn free_at(address: impl Fn(*mut c_void) -> *mut c_void) {
    // SAFETY: not sound at all; that is what is tested.
    unsafe {
        let block = malloc(100);
        free(address(block));
    }
}
