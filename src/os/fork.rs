//! Hooks that run around `fork`.

use super::call::attempt_posix;
use super::fault::Call;

/// Registers the three hooks. They must neither allocate nor take a lock that the forking thread
/// may hold. Returns whether that was possible.
pub(crate) fn register(
    before: unsafe extern "C" fn(),
    in_parent: unsafe extern "C" fn(),
    in_child: unsafe extern "C" fn(),
) -> bool {
    // SAFETY: the hooks are functions of this program with the type that is wanted.
    let registered = attempt_posix(Call::Hook, || unsafe {
        libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child))
    });
    registered.is_ok()
}
