//! `libbursar.so`: the `malloc` family of C and the operators of C++ on bursar, for `LD_PRELOAD` or
//! linking, so that programs and libraries in any language share one heap and one set of books.
//!
//! ```sh
//! cargo build --release -p bursar-preload
//! LD_PRELOAD=target/release/libbursar.so python3 -c 'print("hello")'
//! ```
//!
//! A Rust program that depends on this crate (`use bursar as _;`) has its C libraries allocate from
//! the same heap. Settings then come from `BURSAR_CONF` alone: C allocates before `main`. What this
//! library's own Rust code allocates takes the same way, since std's `System` calls `malloc`.
//!
//! | file | what it has |
//! |---|---|
//! | `c.rs` | the functions of C, with glibc's errors and edge cases |
//! | `cxx.rs` | `operator new` and `delete` in all forms |
//! | `glibc.rs` | what only glibc has: `mallinfo2`, `mallopt`, other names of the same |
//! | `blocks.rs` | what these three are made of |
//! | `files.rs` | the order of locks in forks |
//! | `accounts.rs`, `tasks.rs` | `bursar.h`: consumers, scopes, reservations, figures; tasks |
//!
//! Nothing of the `malloc` family allocates by itself, panics, or touches `errno` but to say that
//! memory cannot be had or that an argument is wrong.

mod accounts;
mod blocks;
mod c;
mod cxx;
mod files;
mod glibc;
mod tasks;
mod text;

/// The dynamic linker allocates before the C library is up: what had to be left undone then.
extern "C" fn begin() {
    allocator::raw::begin();
    files::begin();
}

// SAFETY: a function without arguments, in the section of functions that are called at the start.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;
