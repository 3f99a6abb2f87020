//! Scenarios that need a process of their own: those that fork, that live
//! under a limit, that fail system calls, or that look at what is printed.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork};

/// Seconds that a scenario may take: one that takes longer hangs, however busy the machine.
const PATIENCE: u32 = 900;
/// The same for a child that it forks.
pub(crate) const PATIENCE_WITH_CHILD: u32 = 600;

/// One run of a helper program.
pub struct Scenario {
    command: Command,
    title: String,
    limits: Vec<(Resource, u64)>,
}

impl Scenario {
    /// The scenario `name` of the helper at `program`, with no settings from
    /// the environment. The C library allocates for threads; it is held to one
    /// arena, so that address space is not measured that is not bursar's.
    pub fn new(program: &str, name: &str) -> Self {
        let mut command = Command::new(program);
        command
            .arg(name)
            .env_remove("BURSAR_CONF")
            .env_remove("BURSAR_POOLS")
            .env("MALLOC_ARENA_MAX", "1");
        Self {
            command,
            title: name.to_owned(),
            limits: Vec::new(),
        }
    }

    /// Settings for the allocator.
    #[must_use]
    pub fn settings(mut self, settings: &str) -> Self {
        self.command.env("BURSAR_CONF", settings);
        self
    }

    /// Pools for the allocator.
    #[must_use]
    pub fn pools(mut self, pools: impl AsRef<std::ffi::OsStr>) -> Self {
        self.title = format!("{} in {:?}", self.title, pools.as_ref());
        self.command.env("BURSAR_POOLS", pools);
        self
    }

    /// A further argument.
    #[must_use]
    pub fn argument(mut self, argument: impl ToString) -> Self {
        self.title = format!("{} {}", self.title, argument.to_string());
        self.command.arg(argument.to_string());
        self
    }

    /// A limit that is in force before the helper begins.
    #[must_use]
    pub fn limit(mut self, resource: Resource, most: u64) -> Self {
        self.limits.push((resource, most));
        self
    }

    /// Runs the helper to its end. A helper that hangs is ended by `SIGALRM`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(self) -> Output {
        let Self {
            mut command,
            title,
            limits,
        } = self;
        let prepare = move || {
            alarm::set(PATIENCE);
            limits
                .iter()
                .try_for_each(|&(resource, most)| setrlimit(resource, most, most))?;
            Ok(())
        };
        // SAFETY: only system calls are made between fork and exec.
        unsafe { command.pre_exec(prepare) };
        command
            .output()
            .unwrap_or_else(|error| panic!("{title}: {error}"))
    }

    /// Runs the helper, which must succeed; what it printed.
    ///
    /// # Panics
    /// If it fails or hangs; the message holds all that it said.
    pub fn succeed(self) -> String {
        let title = self.title.clone();
        let output = self.run();
        let [printed, said] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        match output.status.signal() {
            _ if output.status.success() => {}
            Some(libc::SIGALRM) => panic!("{title} hangs\n{printed}{said}"),
            _ => panic!("{title}: {}\n{printed}{said}", output.status),
        }
        printed.into_owned()
    }
}

/// What became of a forked child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It came to its end.
    Fine,
    /// It panicked.
    Panicked,
    /// A signal ended it; `SIGALRM` if it hung.
    Killed(Signal),
}

/// A forked child. One that is not waited for is killed.
pub struct Child {
    pid: Pid,
    is_waited_for: bool,
}

impl Child {
    /// Forks; the child runs `work` and ends without the parent's exit handlers.
    ///
    /// # Panics
    /// If there can be no further process.
    pub fn start(work: impl FnOnce()) -> Self {
        // SAFETY: what the child may do after a fork of a program with threads is
        // the subject of the tests; nothing in it relies on another thread.
        match unsafe { fork() }.expect("there can be another process") {
            ForkResult::Child => {
                alarm::set(PATIENCE_WITH_CHILD);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(i32::from(result.is_err())) }
            }
            ForkResult::Parent { child } => Self {
                pid: child,
                is_waited_for: false,
            },
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is no more.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("it is our child, and not waited for");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it is no more.
    pub fn wait(mut self) -> Fate {
        self.is_waited_for = true;
        match waitpid(self.pid, None).expect("it is our child") {
            WaitStatus::Exited(_, 0) => Fate::Fine,
            WaitStatus::Signaled(_, signal, _) => Fate::Killed(signal),
            _ => Fate::Panicked,
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_waited_for {
            // It may be gone already; then there is nothing to do.
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// Forks; the child runs `work` and ends without the parent's exit handlers.
///
/// # Panics
/// If there can be no further process.
pub fn in_child(work: impl FnOnce()) -> Fate {
    Child::start(work).wait()
}
