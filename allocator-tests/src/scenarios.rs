//! What the helper programs do. Each scenario runs in a process of its own
//! and panics if something is wrong; the tests in `tests/` start them.
//!
//! The same scenarios are built into programs that differ in how bursar is
//! installed: `child` (plainly), `guarded` (behind a wrapper that ends the
//! program at any allocation made inside the allocator), `configured` (with
//! settings in code), `pooled` (with pools in code), `routed` (with a router of
//! its own) and `bare` (not at all; the scenarios drive it directly).

use std::process::ExitCode;

use crate::blocks::Heap;

pub mod account_faults;
pub mod account_forks;
pub mod accounts;
pub mod endings;
pub mod exits;
pub mod faults;
pub mod fork_storm;
pub mod forks;
pub mod killed;
pub mod limits;
pub mod mbufs;
pub mod pools;
pub mod purging;
pub mod routers;
mod secure;
mod settings;
pub mod signals;
pub mod statistics;
pub mod sweep;
mod sweep_parts;
pub mod threads;
mod unextended;

/// What a helper program brings along.
#[derive(Clone, Copy)]
pub struct Host {
    /// The allocator.
    pub heap: &'static Heap,
    /// From the bytes of a scenario's own blocks, the bytes that should be on
    /// bursar's books in all; `None` if the program cannot tell.
    pub books: Option<fn(u64) -> u64>,
    /// Runs calls of bursar's interface as if inside the allocator.
    pub inside: fn(&mut dyn FnMut()),
    /// From this call on the thread may not allocate.
    pub seal: fn(),
}

impl Host {
    /// Runs a call of bursar's interface, which must not allocate.
    pub fn inside<R>(&self, call: impl FnOnce() -> R) -> R {
        let mut call = Some(call);
        let mut result = None;
        (self.inside)(&mut || result = call.take().map(|call| call()));
        result.expect("the host makes the call")
    }

    /// Panics if `bursar::check()` finds a broken invariant, or if the books
    /// can be compared and differ. No other thread may use the allocator.
    pub fn check(&self) {
        if let Err(broken) = bursar::check() {
            panic!("check(): {broken}");
        }
        if let Some(books) = self.books {
            let ours = books(0);
            assert_eq!(bursar::stats().allocated_bytes, ours, "bytes on the books");
        }
    }
}

/// `release` with optimisation, `debug` without.
pub fn scaled(release: u64, debug: u64) -> u64 {
    if cfg!(debug_assertions) {
        debug
    } else {
        release
    }
}

/// The arguments after the scenario's name.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// The argument at `place`.
    ///
    /// # Panics
    /// If there is none.
    pub fn text(&self, place: usize) -> &str {
        self.0
            .get(place)
            .unwrap_or_else(|| panic!("argument {place} is missing"))
    }

    /// The argument at `place` as a number.
    ///
    /// # Panics
    /// If there is none, or it is not a number.
    pub fn number(&self, place: usize) -> u64 {
        let text = self.text(place);
        text.parse()
            .unwrap_or_else(|_| panic!("{text} is not a number"))
    }
}

type Run = fn(&Host, &Arguments);

const ALL: [&[(&str, Run)]; 21] = [
    account_faults::ALL,
    account_forks::ALL,
    accounts::ALL,
    endings::ALL,
    exits::ALL,
    faults::ALL,
    fork_storm::ALL,
    forks::ALL,
    killed::ALL,
    limits::ALL,
    mbufs::ALL,
    pools::ALL,
    purging::ALL,
    routers::ALL,
    secure::ALL,
    settings::ALL,
    signals::ALL,
    statistics::ALL,
    sweep::ALL,
    threads::ALL,
    unextended::ALL,
];

/// Runs the scenario that the command line names.
pub fn main(host: &Host) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let found = ALL
        .iter()
        .copied()
        .flatten()
        .find(|(known, _)| *known == name);
    let Some((_, run)) = found else {
        eprintln!("no scenario {name:?}; there are:");
        ALL.iter()
            .copied()
            .flatten()
            .for_each(|(known, _)| eprintln!("  {known}"));
        return ExitCode::from(2);
    };
    run(host, &Arguments(arguments.collect()));
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::ALL;

    #[test]
    fn no_two_scenarios_have_one_name() {
        let mut names = HashSet::new();
        for (name, _) in ALL.iter().copied().flatten() {
            assert!(names.insert(name), "{name}");
        }
    }
}
