//! Memory that processes share: sealed files without a name, the locks on their bytes that the
//! kernel drops with a process, and sending them over a Unix socket.

use super::call::{Refused, attempt};
use super::fault::Call;
use super::lock::Lock;
use super::sync::{AtomicBool, AtomicU32, Ordering::Relaxed};
use core::ffi::CStr;
use core::mem::{size_of, zeroed};
use core::ptr::null;
use core::sync::atomic::AtomicI32;
use memmap2::{MmapOptions, MmapRaw};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The size is fixed for good, and so are the seals.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
/// Not to be run as a program; since Linux 6.3, and in no libc's headers yet.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;

/// A file of `len` bytes in memory, all holes, whose size can never change.
pub(crate) fn create(name: &CStr, len: u64) -> Result<OwnedFd, Refused> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let make = |flags| {
        // SAFETY: the name is terminated.
        attempt(Call::Object, || unsafe {
            libc::memfd_create(name.as_ptr(), flags)
        })
    };
    let fd = match make(flags | MFD_NOEXEC_SEAL) {
        // A kernel that does not know the flag.
        Err(Refused(libc::EINVAL)) => make(flags)?,
        made => made?,
    };
    // SAFETY: just made, and nobody else's.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let len = len.try_into().map_err(|_| Refused(libc::EFBIG))?;
    // SAFETY: calls on a descriptor that is open.
    attempt(Call::Object, || unsafe { libc::ftruncate(fd, len) })?;
    // SAFETY: as above.
    attempt(Call::Object, || unsafe {
        libc::fcntl(fd, libc::F_ADD_SEALS, SEALS)
    })?;
    Ok(file)
}

/// The bytes of a file whose size is fixed for good; `None` if it is not, and could be cut short
/// under those who have it mapped.
pub(crate) fn sealed_len(file: BorrowedFd<'_>) -> Result<Option<u64>, Refused> {
    // SAFETY: a call on a descriptor that is open.
    let found = attempt(Call::Object, || unsafe {
        libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS)
    });
    let seals = match found {
        // No file that can have seals.
        Err(Refused(libc::EINVAL)) => return Ok(None),
        seals => seals?,
    };
    if seals & (libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) != SEALS & !libc::F_SEAL_SEAL {
        return Ok(None);
    }
    // SAFETY: all zeroes is a value of these structs of integers.
    let (mut status, mut system): (libc::stat, libc::statfs) = unsafe { zeroed() };
    // SAFETY: a valid place for the result.
    attempt(Call::Object, || unsafe {
        libc::fstat(file.as_raw_fd(), &mut status)
    })?;
    // SAFETY: as above.
    attempt(Call::Object, || unsafe {
        libc::fstatfs(file.as_raw_fd(), &mut system)
    })?;
    // Pages of other memory files, huge ones, need not be there when they are touched.
    let is_plain = system.f_type == libc::TMPFS_MAGIC;
    Ok(u64::try_from(status.st_size).ok().filter(|_| is_plain))
}

/// Maps all of a file of `len` bytes, for everybody who maps it.
pub(crate) fn map(file: BorrowedFd<'_>, len: usize) -> Result<MmapRaw, Refused> {
    let mut map = None;
    attempt(Call::Object, || {
        map = MmapOptions::new().len(len).map_raw(&file).ok();
        if map.is_some() { 0 } else { -1 }
    })?;
    map.ok_or(Refused(libc::ENOMEM))
}

/// By which a file can be opened once more: locks belong to what is opened, not to the file.
fn path_of(file: BorrowedFd<'_>) -> std::string::String {
    std::format!("/proc/self/fd/{}\0", file.as_raw_fd())
}

fn open(path: &str) -> Result<RawFd, Refused> {
    // SAFETY: the path is terminated.
    attempt(Call::Object, || unsafe {
        libc::open(path.as_ptr().cast(), libc::O_RDWR | libc::O_CLOEXEC)
    })
}

/// Gives the pages of a range back to the system; they read as zero from then on.
pub(crate) fn punch(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<(), Refused> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (offset, len) = (offset as libc::off_t, len as libc::off_t);
    // SAFETY: a call on a descriptor that is open.
    attempt(Call::Punch, || unsafe {
        libc::fallocate(file.as_raw_fd(), mode, offset, len)
    })
    .map(|_| ())
}

/// How often this process, counted from the one that first used such files, has been forked. What
/// was made under another number belongs to the parent.
pub(crate) fn forks() -> u32 {
    FORKS.load(Relaxed)
}

static FORKS: AtomicU32 = AtomicU32::new(0);
/// The files opened for locks. A forked child closes them: it would keep its parent's locks.
static OPENED: [AtomicI32; 64] = [const { AtomicI32::new(CLOSED) }; 64];
const CLOSED: RawFd = -1;
/// Held while such a file is open and not in the list, and during a fork: a child that inherited
/// one that it does not know of would keep its parent's locks.
static OPENING: Lock<()> = Lock::new(());

extern "C" fn before_fork() {
    OPENING.before_fork();
}

extern "C" fn in_parent() {
    OPENING.after_fork(false);
}

extern "C" fn in_child() {
    OPENING.after_fork(true);
    FORKS.store(FORKS.load(Relaxed).wrapping_add(1), Relaxed);
    for place in &OPENED {
        let fd = place.swap(CLOSED, Relaxed);
        if fd != CLOSED {
            // SAFETY: the child's copy of a descriptor that only `ByteLocks` knows, and that
            // closes nothing once `forks` has changed.
            let _ = attempt(Call::Close, || unsafe { libc::close(fd) });
        }
    }
}

/// Registers the hooks: what is made without them would be a forked child's too. Two threads may do
/// it at once, which does no harm: hooks that run twice count one fork twice.
fn register_hooks() -> Result<(), Refused> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if !REGISTERED.load(Relaxed) {
        if !super::fork::register(before_fork, in_parent, in_child) {
            return Err(Refused(libc::ENOMEM));
        }
        REGISTERED.store(true, Relaxed);
    }
    Ok(())
}

/// Locks on bytes of a file, at most one holder each, which is this value of this process or
/// somebody else's. The kernel drops them with the process, when none of its threads runs any
/// more; a forked child does not have them.
pub(crate) struct ByteLocks {
    fd: RawFd,
    /// In `OPENED`.
    place: usize,
    forks: u32,
}

impl ByteLocks {
    /// Holding none. Fails with `EMFILE` if the process has 64 of these.
    pub(crate) fn new(file: BorrowedFd<'_>) -> Result<ByteLocks, Refused> {
        register_hooks()?;
        let path = path_of(file);
        // Nothing is allocated under the lock: a fork takes the allocator's locks too.
        let _opening = OPENING.lock();
        let fd = open(&path)?;
        let is_free =
            |place: &AtomicI32| place.compare_exchange(CLOSED, fd, Relaxed, Relaxed).is_ok();
        match OPENED.iter().position(is_free) {
            Some(place) => Ok(ByteLocks {
                fd,
                place,
                forks: forks(),
            }),
            None => {
                // SAFETY: opened above, and nobody else's.
                let _ = attempt(Call::Close, || unsafe { libc::close(fd) });
                Err(Refused(libc::EMFILE))
            }
        }
    }

    fn call(&self, command: libc::c_int, kind: libc::c_int, byte: u32) -> Result<i32, Refused> {
        // SAFETY: all zeroes is a value of this struct of integers.
        let mut lock: libc::flock = unsafe { zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        lock.l_start = byte.into();
        lock.l_len = 1;
        // SAFETY: `lock` is a valid place; the descriptor is open while `self` lives.
        attempt(Call::ByteLock, || unsafe {
            libc::fcntl(self.fd, command, &mut lock)
        })?;
        Ok(lock.l_type.into())
    }

    /// Takes the lock on a byte; whether nobody else had it.
    pub(crate) fn try_lock(&self, byte: u32) -> Result<bool, Refused> {
        match self.call(libc::F_OFD_SETLK, libc::F_WRLCK, byte) {
            Ok(_) => Ok(true),
            Err(Refused(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(refused) => Err(refused),
        }
    }

    /// Gives the lock on a byte up.
    pub(crate) fn unlock(&self, byte: u32) {
        // Cannot fail for a byte that is locked; for others it does nothing.
        let _ = self.call(libc::F_OFD_SETLK, libc::F_UNLCK, byte);
    }

    /// Whether anybody else has the lock on a byte; so it is said, too, where the kernel gives no
    /// answer.
    pub(crate) fn is_locked_by_another(&self, byte: u32) -> bool {
        let found = self.call(libc::F_OFD_GETLK, libc::F_WRLCK, byte);
        found != Ok(libc::F_UNLCK)
    }
}

impl Drop for ByteLocks {
    fn drop(&mut self) {
        let _opening = OPENING.lock();
        if self.forks == forks() {
            OPENED[self.place].store(CLOSED, Relaxed);
            // SAFETY: ours, and not closed by the hook, since there was no fork.
            let _ = attempt(Call::Close, || unsafe { libc::close(self.fd) });
        }
    }
}

/// Room for the one control message that carries a descriptor, aligned as its header.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: RawFd,
    padding: [u8; 16],
}

/// Sends a descriptor over a Unix socket, with one byte of data.
pub(crate) fn send(socket: BorrowedFd<'_>, file: BorrowedFd<'_>) -> Result<(), Refused> {
    let mut byte = 0_u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all zeroes is a value of these structs of integers and pointers.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: arithmetic only; `message` describes `control`, which has room for one descriptor.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(file.as_raw_fd());
    }
    loop {
        // SAFETY: `message` describes memory that is alive.
        let sent = attempt(Call::Send, || unsafe {
            libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL) as libc::c_int
        });
        match sent {
            Err(Refused(libc::EINTR)) => {}
            sent => return sent.map(|_| ()),
        }
    }
}

/// Receives a descriptor that was sent with [`send`]; `None` if the other side hung up or sent
/// something else.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Refused> {
    let mut byte = 0_u8;
    let mut data = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all zeroes is a value of these structs of integers and pointers.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    // SAFETY: arithmetic only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as _;
    let received = loop {
        // SAFETY: `message` describes memory that is alive.
        let received = attempt(Call::Send, || unsafe {
            libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_int
        });
        match received {
            Err(Refused(libc::EINTR)) => {}
            received => break received?,
        }
    };
    // SAFETY: the kernel filled `message` in; the header lies in `control`, or is null.
    let header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    if received == 0 || core::ptr::eq(header, null()) {
        return Ok(None);
    }
    // SAFETY: as above; a message of this kind and length carries one descriptor, now ours.
    unsafe {
        let is_ours = (*header).cmsg_level == libc::SOL_SOCKET
            && (*header).cmsg_type == libc::SCM_RIGHTS
            && (*header).cmsg_len as usize == libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        let fd = || libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Ok(is_ours.then(|| OwnedFd::from_raw_fd(fd())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, PoisonError};

    #[test]
    fn a_sealed_file_keeps_its_size() {
        let file = create(c"test", 12_345).unwrap();
        assert_eq!(sealed_len(file.as_fd()), Ok(Some(12_345)));
        for len in [0, 1 << 20] {
            // SAFETY: a call on a descriptor that is open.
            let result = unsafe { libc::ftruncate(file.as_raw_fd(), len) };
            let errno = std::io::Error::last_os_error().raw_os_error();
            assert_eq!((result, errno), (-1, Some(libc::EPERM)));
        }
        let socket = UnixStream::pair().unwrap().0;
        assert_eq!(sealed_len(socket.as_fd()), Ok(None));
        // SAFETY: the name is terminated; the descriptor is new.
        let unsealed = unsafe {
            let fd = libc::memfd_create(c"test".as_ptr(), libc::MFD_ALLOW_SEALING);
            OwnedFd::from_raw_fd(fd)
        };
        assert_eq!(sealed_len(unsealed.as_fd()), Ok(None));
    }

    static CHILDREN: Mutex<()> = Mutex::new(());

    /// Runs `work` while no child of this process lives that a test has forked. A child has what
    /// was open, and the locks with it, until its hook has run: what is closed meanwhile keeps its
    /// locks until then.
    pub(crate) fn without_children<T>(work: impl FnOnce() -> T) -> T {
        let _none = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    #[test]
    fn a_byte_has_one_holder() {
        let file = create(c"test", 1).unwrap();
        let [a, b] = [(); 2].map(|()| ByteLocks::new(file.as_fd()).unwrap());
        assert_eq!(a.try_lock(7), Ok(true));
        assert_eq!(a.try_lock(7), Ok(true), "its holder may have it again");
        assert_eq!(b.try_lock(7), Ok(false));
        assert_eq!(b.try_lock(8), Ok(true));
        assert!(b.is_locked_by_another(7) && !b.is_locked_by_another(8));
        without_children(|| drop(a));
        assert!(!b.is_locked_by_another(7));
        assert_eq!(b.try_lock(7), Ok(true));
        b.unlock(7);
        let c = ByteLocks::new(file.as_fd()).unwrap();
        assert_eq!((c.try_lock(7), c.try_lock(8)), (Ok(true), Ok(false)));
    }

    /// Forked at any moment of another thread's, a child has no file that was opened for locks.
    #[test]
    fn a_forked_child_keeps_no_locks() {
        let file = create(c"kept by no child", 1).unwrap();
        let is_over = AtomicBool::new(false);
        let inherited = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    drop(ByteLocks::new(file.as_fd()).unwrap());
                }
            });
            let one = |_| without_children(|| in_fork(open_files_of_that_name));
            let inherited = (0..200).map(one).max();
            is_over.store(true, Relaxed);
            inherited
        });
        assert_eq!(inherited, Some(1), "the file itself");
    }

    /// What `work`, which allocates nothing, says in a forked child.
    fn in_fork(work: fn() -> u8) -> libc::c_int {
        let mut status = 0;
        // SAFETY: the child calls nothing but `work` and ends; `status` is a valid place.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(work().into());
            }
            assert_eq!(libc::waitpid(child, &mut status, 0), child);
        }
        assert!(libc::WIFEXITED(status));
        libc::WEXITSTATUS(status)
    }

    fn open_files_of_that_name() -> u8 {
        let mut found = 0;
        for fd in 0..1024 {
            let mut path = [0_u8; 32];
            let _ =
                std::io::Write::write_fmt(&mut &mut path[..], format_args!("/proc/self/fd/{fd}\0"));
            let mut name = [0_u8; 64];
            // SAFETY: a path that is terminated, and a place of that length.
            let len = unsafe {
                libc::readlink(path.as_ptr().cast(), name.as_mut_ptr().cast(), name.len())
            };
            let name = &name[..len.max(0) as usize];
            found += u8::from(name.starts_with(b"/memfd:kept by no child"));
        }
        found
    }

    #[test]
    fn a_descriptor_travels() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = create(c"test", 4321).unwrap();
        send(a.as_fd(), file.as_fd()).unwrap();
        let received = receive(b.as_fd()).unwrap().unwrap();
        assert_eq!(sealed_len(received.as_fd()), Ok(Some(4321)));
        std::io::Write::write_all(&mut &a, b"x").unwrap();
        assert!(receive(b.as_fd()).unwrap().is_none());
        drop(a);
        assert!(receive(b.as_fd()).unwrap().is_none());
    }
}
