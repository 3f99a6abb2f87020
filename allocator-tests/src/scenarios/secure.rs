//! The secure profile: what it ends a program for, and what it does with
//! freed memory.

use std::collections::HashSet;
use std::hint::black_box;
use std::ptr::NonNull;

use super::{Arguments, Host, Run, scaled};
use crate::blocks::{Heap, layout};
use crate::pattern::verify_zero;

pub(super) const ALL: &[(&str, Run)] = &[
    ("secure_misuse", misuse),
    ("secure_cleared", cleared),
    ("secure_cleared_large", cleared_large),
    ("secure_held_back", held_back),
    ("secure_let_go", let_go),
    ("secure_limits", limits),
    ("secure_order", order),
    ("secure_links", links),
    ("secure_overwritten", overwritten),
    ("secure_reach", reach),
    ("secure_chunk_ends", chunk_ends),
    ("secure_growth", growth),
];

/// Sizes of all kinds: of shared pages, of whole pages, large, larger than a
/// chunk.
const SIZES: [usize; 8] = [8, 24, 1_000, 5_000, 70_000, 262_144, 300_000, 20_000_000];

fn take(heap: &Heap, size: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = unsafe { heap.alloc(layout(size, 8)) };
    assert!(!block.is_null(), "{size} bytes can be had");
    block
}

fn free(heap: &Heap, block: *mut u8, size: usize) {
    // SAFETY: the block is of that size, but where a scenario wants to see what
    // happens otherwise: then the process ends.
    unsafe { heap.dealloc(block, layout(size, 8)) };
}

/// Hands back what is no block, in the way that the arguments say: what, and
/// the size of the block that it is done with. Ends the process.
fn misuse(host: &Host, arguments: &Arguments) {
    let (heap, size) = (host.heap, arguments.number(1) as usize);
    // Neighbours, so that its run goes on when it is freed.
    let neighbours: Vec<_> = (0..10).map(|_| take(heap, size)).collect();
    let block = take(heap, size);
    match arguments.text(0) {
        "twice" => {
            free(heap, block, size);
            free(heap, block, size);
        }
        "twice_apart" => {
            free(heap, block, size);
            neighbours.iter().for_each(|&other| free(heap, other, size));
            free(heap, block, size);
        }
        "twice_by_two" => {
            let address = block.expose_provenance();
            free(heap, block, size);
            let again = || free(heap, std::ptr::with_exposed_provenance_mut(address), size);
            std::thread::scope(|scope| scope.spawn(again).join().expect("no panic"));
        }
        "inside" => free(heap, block.wrapping_add((size / 2) & !7), size),
        "another_size" => free(heap, block, size * 2),
        "small_size" => free(heap, block, 8),
        "resized" => {
            free(heap, block, size);
            // SAFETY: not what is promised; the process ends.
            black_box(unsafe { heap.realloc(block, layout(size, 8), size * 4) });
        }
        other => panic!("{other}"),
    }
    println!("unnoticed");
}

/// A freed block reads as zero, as long as it can be read at all.
fn cleared(host: &Host, _: &Arguments) {
    for size in SIZES.into_iter().filter(|&size| size <= 262_144) {
        let block = take(host.heap, size);
        // SAFETY: the block's own bytes; afterwards its memory, which is held
        // back and not given to anybody.
        unsafe {
            block.write_bytes(0xee, size);
            free(host.heap, block, size);
            verify_zero(block, size).unwrap_or_else(|found| panic!("{size} bytes {found}"));
        }
    }
    // What grew, moved or shrank has left nothing behind either.
    for (size, new) in [(24, 5_000), (5_000, 24), (262_144, 400_000)] {
        let block = take(host.heap, size);
        // SAFETY: as above.
        unsafe {
            block.write_bytes(0xee, size);
            let moved = host.heap.realloc(block, layout(size, 8), new);
            assert_ne!(moved, block);
            verify_zero(block, size).unwrap_or_else(|found| panic!("{size} bytes {found}"));
            free(host.heap, moved, new);
        }
    }
    // And what is allocated anew shows nothing of what was there before.
    let mut kept = Vec::new();
    for size in SIZES.into_iter().filter(|&size| size <= 300_000) {
        for round in 0..300 {
            let block = take(host.heap, size);
            // SAFETY: the block's own bytes. Links are cleared too.
            unsafe {
                verify_zero(block, size).unwrap_or_else(|found| panic!("{size} bytes {found}"));
                block.write_bytes(0xee, size);
            }
            if round % 3 == 0 {
                kept.push((block, size));
            } else {
                free(host.heap, block, size);
            }
        }
    }
    kept.into_iter()
        .for_each(|(block, size)| free(host.heap, block, size));
    bursar::purge();
    host.check();
}

/// The same of large blocks: of what one gives up as it shrinks, and in pools
/// of a set size, whose memory stays accessible.
fn cleared_large(host: &Host, arguments: &Arguments) {
    const LARGE: usize = 20_000_000;
    let block = take(host.heap, LARGE);
    // SAFETY: the block's own bytes, and in pools its memory after it was freed.
    unsafe {
        block.write_bytes(0xee, LARGE);
        if arguments.text(0) == "pools" {
            free(host.heap, block, LARGE);
            verify_zero(block, LARGE).unwrap_or_else(|found| panic!("freed: {found}"));
            return;
        }
        let less = host.heap.realloc(block, layout(LARGE, 8), LARGE / 2);
        assert_eq!(less, block, "it shrinks in place");
        let more = host.heap.realloc(block, layout(LARGE / 2, 8), LARGE);
        assert_eq!(more, block, "and grows again where it was");
        // The rest of the last page was its own all the time.
        let kept = (LARGE / 2).next_multiple_of(4_096);
        verify_zero(more.add(kept), LARGE - kept).unwrap_or_else(|found| panic!("{found}"));
        free(host.heap, more, LARGE);
    }
    host.check();
}

/// What a thread held back goes back to its runs when it ends, and what it
/// freed after its end when somebody purges.
fn let_go(host: &Host, _: &Arguments) {
    use std::sync::OnceLock;
    static HEAP: OnceLock<&Heap> = OnceLock::new();
    static KEY: OnceLock<libc::pthread_key_t> = OnceLock::new();
    /// Comes again, so that in the end the allocator's own destructor has run.
    unsafe extern "C" fn late(round: *mut libc::c_void) {
        let key = *KEY.get().expect("it was made");
        match round.addr() {
            // SAFETY: a key, and a word that is no pointer.
            1 | 2 => unsafe {
                let next = std::ptr::without_provenance::<libc::c_void>(round.addr() + 1);
                libc::pthread_setspecific(key, next);
            },
            _ => use_some(*HEAP.get().expect("it is there")),
        }
    }
    fn use_some(heap: &Heap) {
        for size in [100, 5_000, 70_000] {
            let block = take(heap, size);
            free(heap, block, size);
        }
    }
    let heap = *HEAP.get_or_init(|| host.heap);
    let runs = || bursar::check().expect("all is whole").runs;
    let join = |thread: std::thread::JoinHandle<()>| {
        use std::os::unix::thread::JoinHandleExt;
        // The C library's own: std's returns before the last destructors have run.
        let thread = thread.into_pthread_t();
        // SAFETY: a thread that nobody has joined, nor detached.
        let joined = unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
        assert_eq!(joined, 0);
    };
    let before = runs();
    join(std::thread::spawn(move || use_some(heap)));
    assert_eq!(runs(), before, "after the thread");
    let mut key = 0;
    // SAFETY: a place for the key, and a function of that type.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(late)) }, 0);
    KEY.set(key).expect("only here");
    join(std::thread::spawn(move || {
        use_some(heap);
        // SAFETY: a key, and a word that is no pointer.
        unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(1)) };
    }));
    assert!(runs() > before, "what was freed late is held back");
    bursar::purge();
    assert_eq!(runs(), before, "after the purge");
}

/// What is held back is not counted against a limit once that is reached.
fn limits(host: &Host, _: &Arguments) {
    const LIMIT: u64 = 1 << 20;
    let consumer = bursar::Consumer::new("limited");
    consumer.set_limits(bursar::Limits::none().hard(LIMIT));
    for size in [20_000, 60_000] {
        let fill = || {
            // SAFETY: the size is not zero.
            let one = || consumer.try_run(|| unsafe { host.heap.alloc(layout(size, 8)) });
            let blocks: Vec<_> =
                std::iter::from_fn(|| Some(one()).filter(|block| !block.is_null())).collect();
            blocks
                .iter()
                .for_each(|&block| free(host.heap, block, size));
            blocks.len()
        };
        let first = fill();
        assert!(first >= 10, "{first} blocks of {size}");
        assert_eq!(fill(), first, "as many of {size} as before");
    }
}

/// A slot is used again only after many others were freed.
fn held_back(host: &Host, _: &Arguments) {
    for size in [8, 24, 1_000, 4_000] {
        for _ in 0..100 {
            let block = take(host.heap, size);
            free(host.heap, block, size);
            for later in 1..64 {
                let other = take(host.heap, size);
                assert_ne!(other, block, "{size} bytes, {later} frees later");
                free(host.heap, other, size);
            }
        }
    }
    for size in [300_000, 20_000_000] {
        let block = take(host.heap, size);
        free(host.heap, block, size);
        let other = take(host.heap, size);
        assert_ne!(other, block, "{size} bytes");
        free(host.heap, other, size);
    }
    host.check();
}

/// Prints where slots lie that are handed out one after the other.
fn order(host: &Host, arguments: &Arguments) {
    let size = arguments.number(0) as usize;
    let blocks: Vec<_> = (0..40).map(|_| take(host.heap, size)).collect();
    let lowest = blocks.iter().map(|block| block.addr()).min().unwrap_or(0);
    let places: Vec<_> = blocks
        .iter()
        .map(|block| ((block.addr() - lowest) / size).to_string())
        .collect();
    let distinct: HashSet<_> = places.iter().collect();
    assert_eq!(distinct.len(), blocks.len());
    println!("{}", places.join(" "));
    blocks
        .into_iter()
        .for_each(|block| free(host.heap, block, size));
}

/// The first words of free slots lead nowhere, to the eye.
fn links(host: &Host, _: &Arguments) {
    let size = 64;
    let blocks: Vec<_> = (0..1_000).map(|_| take(host.heap, size)).collect();
    let near = |word: usize| {
        blocks
            .iter()
            .any(|block| word.abs_diff(block.addr()) < 1 << 20)
    };
    for block in &blocks {
        free(host.heap, *block, size);
    }
    let (mut linked, mut words) = (0, HashSet::new());
    for block in &blocks {
        // SAFETY: memory of a run of which blocks are held back; only looked at.
        let word = unsafe { block.cast::<usize>().read() };
        assert!(!near(word), "{word:#x} is a plain link");
        linked += usize::from(word != 0);
        words.insert(word);
    }
    assert!(linked > 800, "{linked} of {} are linked", blocks.len());
    assert!(words.len() > 800, "null is no word of its own either");
}

/// Writes to a freed block, and goes on until its slot would be used.
fn overwritten(host: &Host, arguments: &Arguments) {
    let size = arguments.number(0) as usize;
    let blocks: Vec<_> = (0..200).map(|_| take(host.heap, size)).collect();
    blocks
        .iter()
        .for_each(|&block| free(host.heap, block, size));
    for block in &blocks[..100] {
        // SAFETY: not what is promised; the process ends.
        unsafe { block.cast::<usize>().write(blocks[150].addr()) };
    }
    for _ in 0..10_000 {
        black_box(take(host.heap, size));
    }
    println!("unnoticed");
}

/// Reaches to where the arguments say: a size, and bytes from the start of a
/// block of that size.
fn reach(host: &Host, arguments: &Arguments) {
    let size = arguments.number(0) as usize;
    let offset: isize = arguments.text(1).parse().expect("a number");
    // Memory on both sides that is in use.
    let _around = [0; 4].map(|_| take(host.heap, size));
    let block = take(host.heap, size);
    let _more = [0; 4].map(|_| take(host.heap, size));
    if arguments.text(2) == "freed" {
        free(host.heap, block, size);
    }
    let there = block.wrapping_offset(offset);
    // SAFETY: not what is promised; the process ends, or the byte is its own.
    unsafe { there.write_volatile(1) };
    println!("reached");
}

/// Runs fill chunk after chunk; the last page of each is out of reach.
fn chunk_ends(host: &Host, _: &Arguments) {
    let size = 4_096;
    let blocks: Vec<_> = (0..10_000).map(|_| take(host.heap, size)).collect();
    let mut pages: Vec<_> = blocks.iter().map(|block| block.addr()).collect();
    pages.sort_unstable();
    const CHUNK: usize = 8 << 20;
    let whole: Vec<_> = (pages[0].next_multiple_of(CHUNK)..pages[pages.len() - 1])
        .step_by(CHUNK)
        .collect();
    assert!(whole.len() >= 3, "chunks were filled");
    for chunk in whole {
        assert!(
            pages.binary_search(&chunk).is_ok(),
            "the first page is used"
        );
        let last = chunk - size;
        assert!(pages.binary_search(&last).is_err(), "the last page is not");
        let page = NonNull::new(std::ptr::with_exposed_provenance_mut::<u8>(last));
        assert!(!is_readable(page.expect("not null")), "it cannot be read");
    }
    blocks
        .into_iter()
        .for_each(|block| free(host.heap, block, size));
    // Where a block goes over it, it is a page like others.
    bursar::purge();
    let over = (pages[0] + 1).next_multiple_of(CHUNK) - size;
    let mut large = Vec::new();
    let is_there = |block: &*mut u8| (block.addr()..block.addr() + CHUNK).contains(&over);
    while !large.last().is_some_and(is_there) {
        assert!(large.len() < 100, "none lies over {over:#x}");
        let block = take(host.heap, CHUNK);
        // SAFETY: the block's own bytes.
        (0..CHUNK)
            .step_by(size)
            .for_each(|page| unsafe { block.add(page).write(1) });
        large.push(block);
    }
    large
        .into_iter()
        .for_each(|block| free(host.heap, block, CHUNK));
    host.check();
}

/// Whether the kernel can read a byte there.
fn is_readable(byte: NonNull<u8>) -> bool {
    let (reader, writer) = nix::unistd::pipe().expect("a pipe");
    use std::os::fd::AsRawFd;
    // SAFETY: the kernel looks whether the address can be read.
    let written = unsafe { libc::write(writer.as_raw_fd(), byte.as_ptr().cast(), 1) };
    drop(reader);
    written == 1
}

/// The same work again and again takes no more memory.
fn growth(host: &Host, _: &Arguments) {
    let round = || {
        let mut blocks = Vec::new();
        for (index, size) in SIZES.into_iter().cycle().take(4_000).enumerate() {
            if size <= 300_000 || index % 200 == 7 {
                blocks.push((take(host.heap, size), size));
            }
            if index % 3 == 0 {
                let (block, size) = blocks.swap_remove(blocks.len() / 2);
                free(host.heap, block, size);
            }
        }
        blocks
            .into_iter()
            .for_each(|(block, size)| free(host.heap, block, size));
        bursar::purge();
        let stats = bursar::stats();
        (
            stats.metadata_bytes + stats.resident_bytes,
            stats.mapped_bytes,
        )
    };
    let held: Vec<_> = (0..scaled(30, 8)).map(|_| round()).collect();
    let ((first, mapped_first), (last, mapped_last)) = (held[2], held[held.len() - 1]);
    assert_eq!(first, last, "metadata and resident");
    // Which large blocks are held back at the peak depends on the clock.
    let most = mapped_first + 8 * SIZES[SIZES.len() - 1] as u64;
    assert!(mapped_last <= most, "{mapped_first} then {mapped_last}");
    host.check();
}
