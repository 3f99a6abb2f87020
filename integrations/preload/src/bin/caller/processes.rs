//! Threads, forks and libraries, and what ends the process.

use crate::family::*;
use crate::is_bursar;
use libc::c_void;
use std::ptr::null_mut;

/// Ends on another thread, with 37 blocks of 14,000 bytes alive.
pub fn end() {
    // SAFETY: no preconditions.
    (0..37).for_each(|_| assert!(!unsafe { malloc(14_000) }.is_null()));
    let other = std::thread::spawn(|| -> () { std::process::exit(7) });
    let _ = other.join();
    unreachable!("the process is gone");
}

/// Ends in a signal handler that interrupts `malloc` and `free` somewhere, as C forbids it and
/// programs do it.
pub fn end_in_handler() {
    extern "C" fn leave(_: libc::c_int) {
        // SAFETY: what it may do there is the matter of the test.
        unsafe { libc::exit(7) };
    }
    let handler = leave as extern "C" fn(libc::c_int);
    // SAFETY: a handler of this type; the timer sends its signal once, after 20 ms of work.
    unsafe {
        libc::signal(libc::SIGPROF, handler as *const () as libc::sighandler_t);
        let mut once: libc::itimerval = std::mem::zeroed();
        once.it_value.tv_usec = 20_000;
        libc::setitimer(libc::ITIMER_PROF, &once, null_mut());
    }
    let mut kept = vec![null_mut::<c_void>(); 1000];
    for turn in 0_usize.. {
        let place = &mut kept[turn * 7919 % 1000];
        // SAFETY: null, or alive and not used any more.
        unsafe {
            free(*place);
            *place = malloc(turn * 31 % 40_000);
        }
    }
}

/// Threads that come and go, and free each other's blocks, also when they end.
pub fn threads() {
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
pub fn forks() {
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
pub fn streams() {
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
pub fn libraries() {
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
pub fn free_at(address: impl Fn(*mut c_void) -> *mut c_void) {
    // SAFETY: not sound at all; that is what is tested.
    unsafe {
        let block = malloc(100);
        free(address(block));
    }
}

/// Frees blocks with the sizes that they have, resized ones among them.
pub fn free_sized() {
    type Free = unsafe extern "C" fn(*mut c_void, usize);
    type FreeAligned = unsafe extern "C" fn(*mut c_void, usize, usize);
    assert!(is_bursar(c"free_sized") && is_bursar(c"free_aligned_sized"));
    let find = |name: &std::ffi::CStr| {
        // SAFETY: the name is terminated.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    // SAFETY: the functions have these types, and each block is freed once with its size.
    unsafe {
        let free: Free = std::mem::transmute(find(c"free_sized"));
        let free_aligned: FreeAligned = std::mem::transmute(find(c"free_aligned_sized"));
        free(null_mut(), 7);
        free_aligned(null_mut(), 64, 7);
        for size in [0, 1, 100, 5000, 300_000, 5 << 20] {
            free(malloc(size), size);
            free(libc::calloc(1, size), size);
            free_aligned(libc::aligned_alloc(256, size), 256, size);
            for to in [1, 60, 90, 3000, 5000, 200_000, 4 << 20] {
                free(libc::realloc(malloc(size), to), to);
            }
        }
    }
}

/// Frees a block as one of another size.
pub fn free_as(size: usize, told: usize) {
    // SAFETY: the function has this type; the rest is not sound, which is what is tested.
    unsafe {
        let free = libc::dlsym(libc::RTLD_DEFAULT, c"free_sized".as_ptr());
        let free: unsafe extern "C" fn(*mut c_void, usize) = std::mem::transmute(free);
        free(malloc(size), told);
    }
}

/// Resizes a block that was freed, others in between, so that it would stay where it is.
pub fn resize_freed() {
    // SAFETY: not sound at all; that is what is tested.
    unsafe {
        let others = [(); 20].map(|()| malloc(100));
        let block = malloc(100);
        free(block);
        others.into_iter().for_each(|other| free(other));
        std::hint::black_box(libc::realloc(block, 99));
    }
}

/// Frees a block twice, and others in between.
pub fn free_twice_apart(size: usize) {
    // SAFETY: not sound at all; that is what is tested.
    unsafe {
        let others = [(); 20].map(|()| malloc(size));
        let block = malloc(size);
        free(block);
        others.into_iter().for_each(|other| free(other));
        free(block);
    }
}

/// Frees a block twice.
pub fn free_twice(size: usize) {
    // SAFETY: not sound at all; that is what is tested.
    unsafe {
        let (other, block) = (malloc(size), malloc(size));
        free(block);
        free(block);
        free(other);
    }
}
