//! Thread-local words, the hook at a thread's end, and threads of our own.

/// Declares a thread-local word that is read with one instruction where the linker allows it: it
/// is initialised by a constant and never dropped, so no access registers or checks anything.
///
/// In a shared object it would be read through a call, which may allocate. There, with the feature
/// `initial-exec`, words that begin as null or as the address of a static lie in sections of our
/// own, and are read at the offset that the dynamic linker stored. Other words are for rare cases.
macro_rules! thread_word {
    ($(#[$meta:meta])* $visibility:vis mod $name:ident: $type:ty = null();) => {
        $crate::os::thread::thread_word! {
            @module $(#[$meta])* $visibility mod $name: $type = ::core::ptr::null();
            ".tbss", "@nobits", ".zero 8"
        }
    };
    ($(#[$meta:meta])* $visibility:vis mod $name:ident: $type:ty = &raw const $first:ident;) => {
        $crate::os::thread::thread_word! {
            @module $(#[$meta])* $visibility mod $name: $type = (&raw const $first).cast();
            ".tdata", "@progbits", ".quad {first}", first = sym $first
        }
    };
    (
        @module $(#[$meta:meta])* $visibility:vis mod $name:ident: $type:ty = $initial:expr;
        $section:literal, $bits:literal, $content:literal $(, $operand:ident = sym $first:ident)?
    ) => {
        $(#[$meta])*
        $visibility mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[cfg(not(all(feature = "initial-exec", target_arch = "x86_64")))]
            $crate::os::thread::standard_word! { $type, $initial }
            #[cfg(all(feature = "initial-exec", target_arch = "x86_64"))]
            $crate::os::thread::initial_exec_word! {
                $name: $type, $section, $bits, $content $(, $operand = sym $first)?
            }
        }
    };
    ($(#[$meta:meta])* $visibility:vis mod $name:ident: $type:ty = $initial:expr;) => {
        $(#[$meta])*
        $visibility mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::os::thread::standard_word! { $type, $initial }
        }
    };
}
pub(crate) use thread_word;

/// A word in the storage that the compiler lays out.
macro_rules! standard_word {
    ($type:ty, $initial:expr) => {
        #[inline(always)]
        pub(crate) fn with<T>(work: impl FnOnce(&::core::cell::Cell<$type>) -> T) -> T {
            ::std::thread_local! {
                static WORD: ::core::cell::Cell<$type> =
                    const { ::core::cell::Cell::new($initial) };
            }
            WORD.with(work)
        }

        $crate::os::thread::word_access! { $type }
    };
}
pub(crate) use standard_word;

/// A word in a section of our own, whose distance from the thread pointer is known from the start.
#[cfg(all(feature = "initial-exec", target_arch = "x86_64"))]
macro_rules! initial_exec_word {
    (
        $name:ident: $type:ty, $section:literal, $bits:literal, $content:literal
        $(, $operand:ident = sym $first:ident)?
    ) => {
        const _: () = assert!(size_of::<$type>() == 8);

        ::core::arch::global_asm!(
            concat!(".pushsection ", $section, ".bursar_", stringify!($name), ",\"awT\",", $bits),
            concat!(".hidden bursar_", stringify!($name)),
            concat!(".globl bursar_", stringify!($name)),
            concat!(".type bursar_", stringify!($name), ",@tls_object"),
            concat!(".size bursar_", stringify!($name), ",8"),
            ".balign 8",
            concat!("bursar_", stringify!($name), ":"),
            $content,
            ".popsection",
            $($operand = sym $first)?
        );

        #[inline(always)]
        pub(crate) fn with<T>(work: impl FnOnce(&::core::cell::Cell<$type>) -> T) -> T {
            let word: *const ::core::cell::Cell<$type>;
            // SAFETY: the word is this thread's, of eight bytes, and lives as long as the thread.
            unsafe {
                ::core::arch::asm!(
                    concat!("mov {0}, qword ptr [rip + bursar_", stringify!($name), "@GOTTPOFF]"),
                    "add {0}, qword ptr fs:[0]",
                    out(reg) word,
                    options(pure, readonly, nostack),
                );
                work(&*word)
            }
        }

        #[allow(dead_code)]
        #[inline(always)]
        pub(crate) fn get() -> $type {
            let value: $type;
            // SAFETY: as above; one instruction less than by its place.
            unsafe {
                ::core::arch::asm!(
                    concat!("mov {0}, qword ptr [rip + bursar_", stringify!($name), "@GOTTPOFF]"),
                    "mov {0}, qword ptr fs:[{0}]",
                    out(reg) value,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            value
        }

        $crate::os::thread::word_set! { $type }
    };
}
#[cfg(all(feature = "initial-exec", target_arch = "x86_64"))]
pub(crate) use initial_exec_word;

/// What is done with a word.
macro_rules! word_access {
    ($type:ty) => {
        #[allow(dead_code)]
        #[inline(always)]
        pub(crate) fn get() -> $type {
            with(::core::cell::Cell::get)
        }

        $crate::os::thread::word_set! { $type }
    };
}
pub(crate) use word_access;

macro_rules! word_set {
    ($type:ty) => {
        #[allow(dead_code)]
        #[inline(always)]
        pub(crate) fn set(value: $type) {
            with(|word| word.set(value));
        }
    };
}
pub(crate) use word_set;

use super::call::{Refused, attempt, attempt_posix};
use super::fault::Call;
use super::sync::{AtomicU32, Ordering};

thread_word! {
    /// Nothing but its place.
    mod own: *const u8 = null();
}

/// An even number that no other living thread has: the address of a word of the thread's own.
pub(crate) fn identity() -> u64 {
    own::with(|place| core::ptr::from_ref(place).addr() as u64)
}

/// The key whose destructor tells of a thread's end.
pub(crate) struct ExitKey(AtomicU32);

const NO_KEY: u32 = u32::MAX;

impl ExitKey {
    pub(crate) const fn new() -> Self {
        ExitKey(AtomicU32::new(NO_KEY))
    }

    /// Makes the key; once, before [`arm`](Self::arm).
    pub(crate) fn create(&self, hook: unsafe extern "C" fn(*mut libc::c_void)) {
        let mut key = 0;
        // SAFETY: `key` is a valid place for the result.
        let created = attempt_posix(Call::Hook, || unsafe {
            libc::pthread_key_create(&mut key, Some(hook))
        });
        if created.is_ok() {
            // Release pairs with the Acquire in `arm`; the key is valid when it is seen.
            self.0.store(key, Ordering::Release);
        }
    }

    /// Has the hook called with `value`, which is not null, when this thread ends.
    pub(crate) fn arm(&self, value: *mut libc::c_void) {
        let key = self.0.load(Ordering::Acquire);
        if key != NO_KEY {
            // SAFETY: the key was made by `create` and is never deleted.
            let _ = attempt_posix(Call::Hook, || unsafe {
                libc::pthread_setspecific(key, value)
            });
        }
    }
}

/// Starts a detached thread that runs `body` with all signals blocked. Allocates only in the C
/// library.
pub(crate) fn spawn_detached(
    body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
) -> Result<(), Refused> {
    // SAFETY: plain calls on values that live through them; `body` is a function of this program.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut thread = core::mem::zeroed();
        let result = attempt_posix(Call::Thread, || {
            libc::pthread_create(&mut thread, core::ptr::null(), body, core::ptr::null_mut())
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, core::ptr::null_mut());
        result.map(|()| {
            libc::pthread_detach(thread);
        })
    }
}

/// Sleeps.
pub(crate) fn sleep_millis(millis: u64) {
    let time = libc::timespec {
        tv_sec: (millis / 1000) as libc::time_t,
        tv_nsec: (millis % 1000 * 1_000_000) as libc::c_long,
    };
    // SAFETY: `time` is valid; an early return only makes the sleep shorter.
    let _ = attempt(Call::Wait, || unsafe {
        libc::nanosleep(&time, core::ptr::null_mut())
    });
}

/// Lets another thread run.
pub(crate) fn give_way() {
    // SAFETY: no preconditions.
    unsafe { libc::sched_yield() };
}
