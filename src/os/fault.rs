//! Which system calls fail, by the plan of a test. Without the feature `fault-injection` none does.

/// A kind of system call that the allocator makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Call {
    /// Reserving address space (`mmap`).
    Reserve,
    /// Making reserved memory usable (`mprotect`, `fallocate`).
    Commit,
    /// Giving pages back (`madvise`, `process_madvise`).
    Purge,
    /// Moving pages, or mapping afresh what was moved (`mremap`, `mmap`).
    Remap,
    /// Mapping again what a refused move left unmapped (`mprotect`, `mmap`).
    Mend,
    /// Giving address space up, or what lies in it (`munmap`, `mmap`).
    Release,
    /// Advice that changes nothing but speed (`madvise`).
    Advise,
    /// Mapping the allocator's own records (`mmap`).
    Metadata,
    /// Making guard pages (`madvise`, `mprotect`).
    Guard,
    /// Making, mapping and opening the files and the shared memory of pools, with or without other
    /// processes (`open`, `unlink`, `memfd_create`, `ftruncate`, `mmap`, `mremap`, `madvise`, `fcntl`,
    /// `fstat`, `fstatfs`).
    Object,
    /// Closing them (`close`, `munmap`).
    Close,
    /// Giving back memory that processes share (`fallocate`).
    Punch,
    /// The locks by which processes know that others are alive (`fcntl`).
    ByteLock,
    /// Sending and receiving a descriptor (`sendmsg`, `recvmsg`).
    Send,
    /// Waiting for a lock, or for some time (`futex`, `nanosleep`).
    Wait,
    /// Starting a thread (`pthread_create`).
    Thread,
    /// Hooks at forks, at a thread's end and at exit (`pthread_atfork`, `pthread_key_create`,
    /// `pthread_setspecific`, `atexit`).
    Hook,
    /// Asking for a limit, for random numbers, for the program's name, for processors, or whether pages
    /// are resident (`getrlimit`, `getrandom`, `readlink`, `sched_getaffinity`, `mincore`).
    Ask,
    /// Telling something on standard error or in a file (`open`, `write`).
    Write,
}

impl Call {
    /// All kinds.
    pub const ALL: [Call; 19] = [
        Call::Reserve,
        Call::Commit,
        Call::Purge,
        Call::Remap,
        Call::Mend,
        Call::Release,
        Call::Advise,
        Call::Metadata,
        Call::Guard,
        Call::Object,
        Call::Close,
        Call::Punch,
        Call::ByteLock,
        Call::Send,
        Call::Wait,
        Call::Thread,
        Call::Hook,
        Call::Ask,
        Call::Write,
    ];
}

// A kind that is added without a place in the table is noticed here.
const _: () = {
    let mut index = 0;
    while index < Call::ALL.len() {
        assert!(Call::ALL[index] as usize == index);
        index += 1;
    }
    assert!(Call::Write as usize + 1 == Call::ALL.len());
};

#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub(super) fn injected(_call: Call) -> bool {
    false
}

#[cfg(feature = "fault-injection")]
pub(super) use plan::injected;
#[cfg(feature = "fault-injection")]
pub use plan::{When, clear, fail, fail_any, made, made_any};

#[cfg(feature = "fault-injection")]
mod plan {
    use super::Call;
    use crate::os::sync::{AtomicU64, Ordering::Relaxed};

    /// Which calls of a kind fail, counted from the moment of [`fail`]; the first is number 1.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub enum When {
        /// Only this one.
        Nth(u64),
        /// Each whose number is a multiple.
        Every(u64),
        /// This one and all that follow.
        From(u64),
    }

    /// One for each kind, and one for all together.
    const PLANS: usize = Call::ALL.len() + 1;
    const ANY: usize = Call::ALL.len();
    static MADE: [AtomicU64; PLANS] = [const { AtomicU64::new(0) }; PLANS];
    static PLAN: [AtomicU64; PLANS] = [const { AtomicU64::new(0) }; PLANS];
    const NTH: u64 = 1 << 62;
    const EVERY: u64 = 2 << 62;
    const FROM: u64 = 3 << 62;

    /// Makes calls of one kind fail as the kernel would refuse them; replaces an earlier plan for
    /// that kind. Process-wide.
    pub fn fail(call: Call, when: When) {
        begin(call as usize, when);
    }

    /// The same for calls of all kinds, counted together; plans for single kinds stay.
    pub fn fail_any(when: When) {
        begin(ANY, when);
    }

    fn begin(index: usize, when: When) {
        let plan = match when {
            When::Nth(n) => NTH | n,
            When::Every(n) => EVERY | n.max(1),
            When::From(n) => FROM | n,
        };
        MADE[index].store(0, Relaxed);
        PLAN[index].store(plan, Relaxed);
    }

    /// Ends all plans.
    pub fn clear() {
        PLAN.iter().for_each(|plan| plan.store(0, Relaxed));
    }

    /// How many calls of the kind were made since the last [`fail`] for it.
    pub fn made(call: Call) -> u64 {
        MADE[call as usize].load(Relaxed)
    }

    /// How many calls of all kinds were made since the last [`fail_any`].
    pub fn made_any() -> u64 {
        MADE[ANY].load(Relaxed)
    }

    pub(in crate::os) fn injected(call: Call) -> bool {
        // Both are counted, whatever the first says.
        is_due(call as usize) | is_due(ANY)
    }

    fn is_due(index: usize) -> bool {
        let number = MADE[index].fetch_add(1, Relaxed) + 1;
        let plan = PLAN[index].load(Relaxed);
        let n = plan & !FROM;
        match plan & FROM {
            NTH => number == n,
            EVERY => number.is_multiple_of(n),
            FROM => number >= n,
            _ => false,
        }
    }
}
