//! The return addresses on the thread's stack, from the unwinder that panics use too.
//!
//! It reads tables of the program and takes no lock of ours. With glibc from 2.35 on it finds them
//! without any lock; before that it waits for the loader's, which a thread may take twice and holds
//! for moments. Programs have frame pointers only if they ask for them, so following those would
//! end, at best, after the first frame.

use core::ffi::{c_int, c_void};

/// The unwinder's view of one frame.
#[repr(C)]
struct Context {
    _private: [u8; 0],
}

type Step = extern "C" fn(*mut Context, *mut c_void) -> c_int;

/// Goes on to the next frame.
const GO_ON: c_int = 0;
/// Ends the walk: `_URC_NORMAL_STOP`.
const STOP: c_int = 4;

// Of the library that `std` unwinds with, which every program has.
unsafe extern "C" {
    fn _Unwind_Backtrace(step: Step, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut Context) -> usize;
}

/// What is filled, and how far.
struct Walk<'a> {
    frames: &'a mut [usize],
    len: usize,
}

extern "C" fn step(context: *mut Context, walk: *mut c_void) -> c_int {
    // SAFETY: the walk that `return_addresses` passed, whose borrow lasts as long as the call; the
    // context is the unwinder's.
    let (walk, address) = unsafe { (&mut *walk.cast::<Walk<'_>>(), _Unwind_GetIP(context)) };
    match walk.frames.get_mut(walk.len) {
        Some(place) if address != 0 => {
            *place = address;
            walk.len += 1;
            GO_ON
        }
        _ => STOP,
    }
}

/// Notes the return addresses on this thread's stack, the innermost first. How many there are, or
/// there is room for. Some microseconds; allocates nothing.
#[inline(never)]
pub(crate) fn return_addresses(frames: &mut [usize]) -> usize {
    let mut walk = Walk { frames, len: 0 };
    // SAFETY: `step` has the signature that is wanted, and does not unwind.
    unsafe { _Unwind_Backtrace(step, core::ptr::from_mut(&mut walk).cast()) };
    walk.len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn deeper(depth: usize, frames: &mut [usize]) -> usize {
        match depth {
            0 => return_addresses(frames),
            _ => core::hint::black_box(deeper(depth - 1, frames)),
        }
    }

    #[test]
    fn callers_are_found_and_no_more_than_there_is_room_for() {
        let mut frames = [0; 64];
        let (shallow, deep) = (deeper(0, &mut frames), deeper(10, &mut frames));
        assert!(shallow >= 2 && deep >= shallow, "{shallow} {deep}");
        assert!(frames[..deep].iter().all(|&frame| frame != 0));
        let mut few = [0; 3];
        assert_eq!(deeper(10, &mut few), 3);
        assert!(few.iter().all(|&frame| frame != 0));
    }
}
