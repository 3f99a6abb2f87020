//! A Rust program whose C libraries share its heap: the crate is linked in, not preloaded. Run by the
//! tests; it ends with 0 if all was as it should be.

// Brings `malloc` and its family with it.
use bursar as _;
use std::hint::black_box;

#[global_allocator]
static GLOBAL: allocator::Bursar = allocator::Bursar::new();

fn main() {
    assert!(allocator::is_installed());
    let consumer = allocator::Consumer::new("C and Rust");
    let (text, boxed, stream) = consumer.run(|| {
        // SAFETY: the text is terminated, and both results are used and given back.
        let text = unsafe { libc::strdup(c"what the C library allocates".as_ptr()) };
        // SAFETY: plain names.
        let stream = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr()) };
        // The compiler knows these functions, and would leave them out.
        black_box((text, Box::new([0_u8; 1000]), stream))
    });
    let usage = consumer.usage();
    assert_eq!(usage.live_blocks, 3, "{usage:?}");
    assert!(usage.live_bytes > 1000 + 29, "{usage:?}");
    // C may free what Rust allocated. (Rust may not free what C did: it goes by layouts.)
    // SAFETY: blocks that are alive and not used any more.
    unsafe {
        libc::free(Box::into_raw(boxed).cast());
        libc::fclose(stream);
        libc::free(text.cast());
    }
    assert_eq!(consumer.usage().live_bytes, 0);
}
