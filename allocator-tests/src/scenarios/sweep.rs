//! Every system call of a run fails in turn: the nth, each whose number is a multiple of n, all from
//! the nth on; for each kind of call alone and for all together, each in a process of its own.
//!
//! Whatever fails, contents stay, errno survives frees, what cannot be had is null or an error, and
//! once nothing fails any more everything can be had, the invariants hold and the books are empty.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use bursar::fault::{Call, When, clear, fail, fail_any, made, made_any};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use super::sweep_parts::{PARTS, Part};
use super::{Arguments, Host, Run};
use crate::process::{Child, Fate};

pub(super) const ALL: &[(&str, Run)] = &[("fault_sweep", sweep), ("fault_case", case)];

/// Cases at a time.
const AT_ONCE: usize = 2;

/// The calls that fail: those of one kind, or all (`None`).
type Target = Option<Call>;

fn targets() -> impl Iterator<Item = Target> {
    Call::ALL.into_iter().map(Some).chain([None])
}

fn name(target: Target) -> String {
    target.map_or("any".to_owned(), |call| format!("{call:?}").to_lowercase())
}

fn begin(target: Target, when: When) {
    match target {
        // Made only where a move was refused before.
        Some(Call::Mend) => {
            fail(Call::Remap, When::From(1));
            fail(Call::Mend, when);
        }
        Some(call) => fail(call, when),
        None => fail_any(when),
    }
}

fn made_of(target: Target) -> u64 {
    target.map_or_else(made_any, made)
}

fn rule(name: &str) -> fn(u64) -> When {
    match name {
        "nth" => When::Nth,
        "every" => When::Every,
        "from" => When::From,
        other => panic!("no rule is named {other}"),
    }
}

/// What the processes of a sweep count together.
struct Counts(&'static [AtomicU64]);

const CALLS: usize = 0;
const REACHED: usize = 1;
const REFUSED: usize = 2;

impl Counts {
    fn new() -> Self {
        let bytes = NonZeroUsize::new(4096).expect("not zero");
        let (protection, flags) = (
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
        );
        // SAFETY: new memory, all zero, mapped for good, and reached as atomic words only.
        unsafe {
            let start = mmap_anonymous(None, bytes, protection, flags).expect("there is memory");
            Self(std::slice::from_raw_parts(start.as_ptr().cast(), 3))
        }
    }

    fn add(&self, what: usize, count: u64) {
        self.0[what].fetch_add(count, Ordering::Relaxed);
    }

    fn take(&self, what: usize) -> u64 {
        self.0[what].swap(0, Ordering::Relaxed)
    }
}

/// One case, in a process that has not used the allocator before, but to make consumers.
fn run_case(host: &Host, part: &Part, target: Target, when: When, warm: bool, counts: &Counts) {
    // SAFETY: the process has one thread.
    unsafe { std::env::set_var("BURSAR_CONF", part.settings) };
    part.prepare();
    if warm {
        part.must(host);
    }
    begin(target, when);
    let refused = part.may(host);
    let n = match when {
        When::Nth(n) | When::Every(n) | When::From(n) => n,
    };
    counts.add(CALLS, made_of(target));
    counts.add(REACHED, u64::from(made_of(target) >= n));
    counts.add(REFUSED, refused);
    clear();
    part.must(host);
}

/// How many calls a run makes; threads take turns differently each time.
fn calls_of(host: &Host, part: &Part, target: Target, warm: bool, counts: &Counts) -> u64 {
    counts.take(CALLS);
    let runs = (0..2).map(|_| {
        let never = When::Nth(u64::MAX >> 2);
        let child = Child::start(|| run_case(host, part, target, never, warm, counts));
        assert_eq!(child.wait(), Fate::Fine, "{} without a failure", part.name);
        counts.take(CALLS)
    });
    runs.max().unwrap_or(0)
}

/// Which numbers up to that of the calls are tried: all, or the first ones and then fewer and fewer.
fn numbers(calls: u64, density: &str) -> Vec<u64> {
    let next: fn(&u64) -> Option<u64> = match density {
        "all" => |&n| Some(n + 1),
        "some" => |&n| Some(if n < 4 { n + 1 } else { n + n.div_ceil(2) }),
        "few" => |&n| Some(4 * n - 1),
        other => panic!("no density is named {other}"),
    };
    std::iter::successors(Some(if density == "few" { 2 } else { 1 }), next)
        .take_while(|&n| n <= calls)
        .chain((density == "few" && calls > 0).then_some(1))
        .collect()
}

/// Cases that run beside each other.
#[derive(Default)]
struct Running {
    cases: VecDeque<(String, Child)>,
    begun: u64,
    failed: Vec<String>,
}

impl Running {
    fn start(&mut self, title: String, work: impl FnOnce()) {
        if self.cases.len() == AT_ONCE {
            self.settle();
        }
        self.cases.push_back((title, Child::start(work)));
        self.begun += 1;
    }

    /// Waits for the oldest. Whether there was one.
    fn settle(&mut self) -> bool {
        let Some((title, child)) = self.cases.pop_front() else {
            return false;
        };
        let fate = child.wait();
        if fate != Fate::Fine {
            self.failed.push(format!("{title}: {fate:?}"));
        }
        true
    }
}

/// Arguments: the rule; `fresh` if failures begin before the allocator's first call, or `warm`;
/// `all` numbers, `some` or `few`.
fn sweep(host: &Host, arguments: &Arguments) {
    let [rule_name, stage, density] = [0, 1, 2].map(|place| arguments.text(place));
    let (when, warm) = (rule(rule_name), stage == "warm");
    let counts = Counts::new();
    let mut running = Running::default();
    for target in targets() {
        let mut total = 0;
        for part in PARTS {
            let calls = calls_of(host, part, target, warm, &counts);
            total += calls;
            let before = running.begun;
            for n in numbers(calls, density) {
                let title = format!("{} {} {rule_name} {n} {stage}", part.name, name(target));
                running.start(title, || {
                    run_case(host, part, target, when(n), warm, &counts);
                });
            }
            while running.settle() {}
            let [reached, refused] = [REACHED, REFUSED].map(|what| counts.take(what));
            if calls > 0 {
                println!(
                    "{} {}: {calls} calls, {} cases, {reached} of which came to their number, {refused} refusals",
                    part.name,
                    name(target),
                    running.begun - before
                );
            }
        }
        // What was reserved before suffices.
        assert!(
            warm || total > 0,
            "no part makes a call of kind {}",
            name(target)
        );
    }
    println!("{} cases", running.begun);
    let failed = &running.failed;
    assert!(
        failed.is_empty(),
        "`fault_case` runs one:\n{}",
        failed.join("\n")
    );
}

/// One case of a sweep, in this process: the part, the kind of call or `any`, the rule, its number,
/// `fresh` or `warm`.
fn case(host: &Host, arguments: &Arguments) {
    let part = PARTS.iter().find(|part| part.name == arguments.text(0));
    let target = targets().find(|&target| name(target) == arguments.text(1));
    let when = rule(arguments.text(2))(arguments.number(3));
    let counts = Counts::new();
    run_case(
        host,
        part.expect("a part of that name"),
        target.expect("a kind of that name"),
        when,
        arguments.text(4) == "warm",
        &counts,
    );
    println!(
        "{} calls, {} refusals",
        counts.take(CALLS),
        counts.take(REFUSED)
    );
}
