//! Sites: the call paths that allocated what is still alive, estimated from samples.

use super::consumer::Consumer;
use super::epoch;
use super::record::Account;
use crate::arena::sites::{Sample, for_each};
use crate::extent::large::block_size;
use crate::os::clock::coarse_millis;
use crate::units::OwnerTag;
use backtrace::Symbol;
use core::cmp::Reverse;
use core::ffi::c_void;
use core::fmt;
use core::time::Duration;
use std::boxed::Box;
use std::collections::HashMap;
use std::string::{String, ToString};
use std::vec::Vec;

/// A call path, and what was allocated by it and is still alive. Feature `sites`.
///
/// The bytes and blocks are estimates from the blocks that happened to be sampled: right on
/// average, whatever the sizes. A site whose bytes are many times the mean of
/// [`sample_bytes`](crate::Bursar::sample_bytes) is close to the truth (with `n` samples to about
/// one part in the square root of `n`); one that is smaller may be missing.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Site {
    /// Bytes alive, estimated.
    pub estimated_bytes: u64,
    /// Blocks alive, estimated.
    pub estimated_blocks: u64,
    /// How many blocks were sampled.
    pub samples: u64,
    /// How long the oldest of these has been alive, to some milliseconds.
    pub oldest: Duration,
    /// The call path.
    pub trace: Trace,
}

/// The return addresses of a call path, the innermost first; at most 44. Its `Display` looks up the
/// functions and their places in the source, as far as the program has symbols: some lines of it,
/// all with `{:#}`. Costs what a panic's backtrace does, the first time some milliseconds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Trace(Box<[usize]>);

/// What is alive of everybody, by the call paths that allocated it, the largest first. Feature
/// `sites`.
///
/// Takes a lock for some microseconds, which samples and frees of sampled blocks wait for.
///
/// ```
/// # #[cfg(feature = "sites")] {
/// # #[global_allocator]
/// # static GLOBAL: bursar::Bursar = bursar::Bursar::new();
/// let rows = vec![0_u8; 64 << 20];
/// let sites = bursar::sites();
/// assert!(sites[0].estimated_bytes >= 64 << 20);
/// println!("{}", sites[0]);
/// # drop(rows);
/// # }
/// ```
pub fn sites() -> Vec<Site> {
    Site::collect(|_| true)
}

impl Consumer {
    /// What it holds, by the call paths that allocated it, the largest first; as
    /// [`sites`](crate::sites). Feature `sites`.
    pub fn sites(&self) -> Vec<Site> {
        let tags = tags(self.account());
        Site::collect(|tag| tags.contains(&tag))
    }
}

/// The tags of a consumer: its own, and those of its reservations.
fn tags(account: &Account) -> Vec<OwnerTag> {
    let held = epoch::pin();
    let parts = account.children(&held);
    let parts = parts.filter(|part| part.is_part_of(account));
    core::iter::once(account.tag())
        .chain(parts.map(Account::tag))
        .collect()
}

/// Samples, each with the probability that it was taken. Under the samples' lock nothing may
/// allocate, so room is made before, and more of it if it was too little.
fn samples(which: impl Fn(OwnerTag) -> bool) -> Vec<(Sample, f64)> {
    let mut room = 0;
    loop {
        let mut found = Vec::with_capacity(room);
        let mut count = 0;
        for_each(&which, |sample, probability| {
            count += 1;
            if found.len() < found.capacity() {
                found.push((*sample, probability));
            }
        });
        if count == found.len() {
            return found;
        }
        room = count + count / 4;
    }
}

impl Site {
    fn collect(which: impl Fn(OwnerTag) -> bool) -> Vec<Site> {
        let now = coarse_millis();
        let mut by_trace: HashMap<Trace, (f64, f64, u64, u64)> = HashMap::new();
        for (sample, probability) in samples(which) {
            let sum = by_trace
                .entry(Trace(sample.trace().into()))
                .or_insert((0.0, 0.0, 0, 0));
            sum.0 += block_size(sample.layout) as f64 / probability;
            sum.1 += 1.0 / probability;
            sum.2 += 1;
            sum.3 = sum.3.max(now.saturating_sub(sample.since));
        }
        let site =
            |(trace, (bytes, blocks, samples, millis)): (Trace, (f64, f64, u64, u64))| Site {
                estimated_bytes: bytes.round() as u64,
                estimated_blocks: blocks.round() as u64,
                samples,
                oldest: Duration::from_millis(millis),
                trace,
            };
        let mut sites: Vec<Site> = by_trace.into_iter().map(site).collect();
        sites.sort_by_key(|site| Reverse(site.estimated_bytes));
        sites
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "about {} bytes in {} blocks ({} sampled), at most {:.1?} old",
            self.estimated_bytes, self.estimated_blocks, self.samples, self.oldest
        )?;
        self.trace.fmt(f)
    }
}

/// Lines of a trace that are shown without `#`.
const LINES: usize = 6;

/// What the entry of an allocator is called, also that of one around this.
const ENTRIES: [&str; 3] = ["GlobalAlloc>::", "__rust_alloc", "__rust_realloc"];

/// What functions between there and the caller begin with.
const ABOVE: [&str; 4] = ["alloc::", "<alloc::", "bursar::", "<bursar::"];

impl Trace {
    /// The return addresses, the innermost first.
    pub fn addresses(&self) -> &[usize] {
        &self.0
    }

    /// What is known of each function on the path, those inlined into others included, from the
    /// first on that is not part of allocating.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for &address in &self.0 {
            let known = lines.len();
            backtrace::resolve(address as *mut c_void, |symbol| lines.push(line(symbol)));
            if lines.len() == known {
                lines.push(std::format!("{address:#x}"));
            }
        }
        let is_entry = |line: &String| ENTRIES.iter().any(|name| line.contains(name));
        let is_above = |line: &String| ABOVE.iter().any(|start| line.starts_with(start));
        let entered = lines.iter().rposition(is_entry).map_or(0, |last| last + 1);
        let above = lines[entered..].iter().position(|line| !is_above(line));
        lines.split_off(entered + above.unwrap_or(0))
    }
}

fn line(symbol: &Symbol) -> String {
    let name = symbol
        .name()
        .map_or("?".into(), |name| std::format!("{name:#}"));
    match (symbol.filename(), symbol.lineno()) {
        (Some(file), Some(number)) => std::format!("{name} ({}:{number})", file.display()),
        _ => name.to_string(),
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines();
        let shown = if f.alternate() { lines.len() } else { LINES };
        lines
            .iter()
            .take(shown)
            .try_for_each(|line| writeln!(f, "      at {line}"))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|address| std::format!("{address:#x}")))
            .finish()
    }
}

/// As the lines that are displayed.
#[cfg(feature = "serde")]
impl serde::Serialize for Trace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.lines())
    }
}
