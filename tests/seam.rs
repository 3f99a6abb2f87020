//! Every system call of the allocator goes through the seam at which tests have it fail
//! (`src/os/call.rs`), so that none is left out of the fault injection.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What of the C library is called past the seam, because there is nothing to be refused.
const EXEMPT: [&str; 25] = [
    // Reads or computes in the process; `clock_gettime` reads a page shared with the kernel.
    "CMSG_DATA",
    "CMSG_FIRSTHDR",
    "CMSG_LEN",
    "CMSG_SPACE",
    "CPU_COUNT",
    "__errno_location",
    "clock_gettime",
    "getauxval",
    "getenv",
    "sigaddset",
    "sigemptyset",
    "sigfillset",
    "sigismember",
    "strerror_r",
    "sysconf",
    // Cannot fail with the arguments that are passed.
    "getpid",
    "pthread_detach",
    "pthread_sigmask",
    "sched_yield",
    // Ends the process.
    "abort",
    // Types, whose constructors look like calls.
    "cmsghdr",
    "iovec",
    "msghdr",
    "rlimit",
    "timespec",
];

/// Where the seam is; the last makes a call that has no reason to be refused.
const SEAMS: [&str; 4] = ["attempt(", "attempt_posix(", "done(", "surely("];

/// How `memmap2` is asked for mappings.
const MAPPINGS: [&str; 2] = ["MmapOptions::new(", "::map_anon("];

struct Source {
    path: PathBuf,
    /// Without its tests and without comments.
    code: String,
}

fn sources(folder: &Path, all: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "tests") {
                sources(&path, all);
            }
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let end = text
            .find("#[cfg(test)]\nmod tests")
            .or(text.find("#[cfg(test)]\npub(crate) mod tests"))
            .unwrap_or(text.len());
        let lines = text[..end].lines();
        let code: Vec<&str> = lines
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        all.push(Source {
            path,
            code: code.join("\n"),
        });
    }
}

fn all_sources() -> Vec<Source> {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    all
}

/// From `open`, which is behind an opening bracket, to the closing one.
fn bracketed(code: &str, open: usize) -> Range<usize> {
    let mut depth = 1;
    let end = code[open..].find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    open..end.map_or(code.len(), |end| open + end)
}

/// The arguments of each call of the seam.
fn guarded(code: &str) -> Vec<Range<usize>> {
    let calls = SEAMS.iter().flat_map(|seam| {
        code.match_indices(seam)
            .filter(|&(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            .map(|(at, _)| bracketed(code, at + seam.len()))
    });
    calls.collect()
}

/// Names of functions of the C library that are called, and where.
fn calls(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices("libc::").filter_map(|(at, prefix)| {
        let rest = &code[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        rest[end..].starts_with('(').then_some((at, &rest[..end]))
    })
}

#[test]
fn no_system_call_goes_past_the_seam() {
    let (mut seen, mut past) = (BTreeSet::new(), Vec::new());
    for Source { path, code } in all_sources() {
        let guarded = guarded(&code);
        let is_guarded = |at: usize| guarded.iter().any(|range| range.contains(&at));
        for (at, name) in calls(&code).filter(|(_, name)| !EXEMPT.contains(name)) {
            seen.insert(name.to_owned());
            if !is_guarded(at) {
                past.push(format!("{}: libc::{name}", path.display()));
            }
        }
        for mapping in MAPPINGS {
            let found = code.match_indices(mapping);
            let unguarded = found.filter(|&(at, _)| !is_guarded(at));
            past.extend(unguarded.map(|_| format!("{}: {mapping}", path.display())));
        }
        // What is brought into scope by its name would not be found above.
        let imports = code.lines().filter(|line| line.contains("use libc::"));
        let imports = imports.filter(|line| *line != "use libc::c_int;");
        past.extend(imports.map(|line| format!("{}: {line}", path.display())));
    }
    assert!(past.is_empty(), "{past:#?}");
    assert!(seen.len() >= 20, "only {seen:?} were found");
}

/// The same table that the fault injection goes through.
#[cfg(feature = "fault-injection")]
#[test]
fn every_kind_of_call_is_made_somewhere() {
    use bursar::fault::Call;
    let all = all_sources();
    for call in Call::ALL {
        let name = format!("Call::{call:?}");
        let made = all.iter().any(|source| {
            guarded(&source.code)
                .into_iter()
                .any(|range| source.code[range].contains(&name))
                // Handed to a function that makes one of several kinds.
                || source.code.replace(char::is_whitespace, "").contains(&format!("map_at({name},"))
        });
        assert!(made, "{name} is made nowhere");
    }
}
