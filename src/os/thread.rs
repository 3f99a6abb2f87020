//! Thread-local words, the hook at a thread's end, and threads of our own.

/// Declares a thread-local word that is read with one instruction where the linker allows it: it
/// is initialised by a constant and never dropped, so no access registers or checks anything.
macro_rules! thread_word {
    ($(#[$meta:meta])* $visibility:vis mod $name:ident: $type:ty = $initial:expr;) => {
        $(#[$meta])*
        $visibility mod $name {
            #[allow(unused_imports)]
            use super::*;

            ::std::thread_local! {
                static WORD: ::core::cell::Cell<$type> = const { ::core::cell::Cell::new($initial) };
            }

            #[inline(always)]
            pub(crate) fn get() -> $type {
                WORD.with(|word| word.get())
            }

            #[inline(always)]
            pub(crate) fn set(value: $type) {
                WORD.with(|word| word.set(value));
            }
        }
    };
}
pub(crate) use thread_word;

use super::sync::{AtomicU32, Ordering};

/// An even number that no other living thread has: the address of a word of the thread's own.
pub(crate) fn identity() -> u64 {
    std::thread_local! {
        static PLACE: u64 = const { 0 };
    }
    PLACE.with(|place| core::ptr::from_ref(place).addr() as u64)
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
        if unsafe { libc::pthread_key_create(&mut key, Some(hook)) } == 0 {
            // Release pairs with the Acquire in `arm`; the key is valid when it is seen.
            self.0.store(key, Ordering::Release);
        }
    }

    /// Has the hook called with `value`, which is not null, when this thread ends.
    pub(crate) fn arm(&self, value: *mut libc::c_void) {
        let key = self.0.load(Ordering::Acquire);
        if key != NO_KEY {
            // SAFETY: the key was made by `create` and is never deleted.
            unsafe { libc::pthread_setspecific(key, value) };
        }
    }
}

/// Starts a detached thread that runs `body` with all signals blocked. Allocates only in the C
/// library. The error is the system's number.
pub(crate) fn spawn_detached(
    body: extern "C" fn(*mut libc::c_void) -> *mut libc::c_void,
) -> Result<(), i32> {
    // SAFETY: plain calls on values that live through them; `body` is a function of this program.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut thread = core::mem::zeroed();
        let result =
            libc::pthread_create(&mut thread, core::ptr::null(), body, core::ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, core::ptr::null_mut());
        if result != 0 {
            return Err(result);
        }
        libc::pthread_detach(thread);
        Ok(())
    }
}

/// Sleeps.
pub(crate) fn sleep_millis(millis: u64) {
    let time = libc::timespec {
        tv_sec: (millis / 1000) as libc::time_t,
        tv_nsec: (millis % 1000 * 1_000_000) as libc::c_long,
    };
    // SAFETY: `time` is valid; an early return only makes the sleep shorter.
    unsafe { libc::nanosleep(&time, core::ptr::null_mut()) };
}

/// Lets another thread run.
pub(crate) fn give_way() {
    // SAFETY: no preconditions.
    unsafe { libc::sched_yield() };
}
