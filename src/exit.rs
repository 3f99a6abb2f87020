//! What is told at exit, where the setting `stats_at_exit` asks for it.
//!
//! A process that comes to its end by `exit`, on whichever thread, runs the functions in
//! `.fini_array` after those of `atexit`; one that ends by `_exit`, `exec` or a signal does not.
//! Nothing is registered for it, so nothing can fail or wait inside the first request. Figures are
//! read and written without a lock, since exit may have begun anywhere, and without allocation but
//! for the report of consumers.

use crate::config::{self, Form};
use crate::os::map::Refused;
use crate::os::output::{NoSignals, Output};
use crate::os::process::{self, Line};
use crate::pool::fixed;
use crate::pools::{Pools, pools};
use crate::stats::Stats;
use core::ffi::CStr;
use core::fmt::{self, Write};

// SAFETY: a function without arguments, in the section of functions that are called at the end.
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = tell;

extern "C" fn tell() {
    let Some(settled) = config::for_exit().filter(|settled| settled.form != Form::None) else {
        return;
    };
    let _unharmed = NoSignals::new();
    if settled.file.text().is_empty() {
        // Standard error may be closed: then nobody wants to know.
        let _ = write(settled.form, Output::stderr());
        return;
    }
    let name = file_name(settled.file.text(), process::id(), settled.process);
    let written = Output::create(terminated(name.text()));
    if let Err(why) = written.and_then(|output| write(settled.form, output)) {
        let mut line = Line::<512>::new();
        let name = name.text().trim_end_matches('\0');
        let _ = writeln!(line, "bursar: stats_at_exit: {name}: {why}");
        line.print();
    }
}

/// The longest number of a process, twice, beyond what the kernel takes for a name.
const NAME: usize = libc::PATH_MAX as usize + 32;

/// The name of the file, terminated. `%p` stands for the number of the process; where it is missing,
/// a forked child's file has the child's number at the end, so that it is not its parent's.
fn file_name(pattern: &str, process: u32, first: u32) -> Line<NAME> {
    let mut name = Line::new();
    let mut parts = pattern.split("%p");
    let _ = name.write_str(parts.next().unwrap_or_default());
    for part in parts {
        let _ = write!(name, "{process}{part}");
    }
    if process != first && !pattern.contains("%p") {
        let _ = write!(name, ".{process}");
    }
    let _ = name.write_char('\0');
    name
}

/// An empty name, which no file has, if it was cut off.
fn terminated(name: &str) -> &CStr {
    CStr::from_bytes_until_nul(name.as_bytes()).unwrap_or(c"")
}

/// What is told.
#[cfg_attr(feature = "json", derive(serde::Serialize))]
struct Told<'a> {
    process: u32,
    /// Where the program lies.
    program: Option<&'a str>,
    /// Whether the program's allocations are bursar's.
    installed: bool,
    stats: Stats,
    /// If there are any but the one that grows.
    pools: Option<Pools>,
    /// If there ever was a consumer.
    #[cfg(feature = "accounts")]
    report: Option<crate::account::Report>,
}

fn write(form: Form, mut output: Output) -> Result<(), Refused> {
    let mut place = [0; 512];
    let told = Told {
        process: process::id(),
        program: process::program(&mut place),
        stats: Stats::take(),
        installed: crate::is_installed(),
        pools: fixed::fixed().next().map(|_| pools()),
        #[cfg(feature = "accounts")]
        report: crate::account::report_if_any(),
    };
    match form {
        #[cfg(feature = "json")]
        Form::Json => write_json(&told, &mut output),
        _ => {
            // Refusals are kept by the output.
            let _ = write!(output, "{told}");
        }
    }
    output.finish()
}

#[cfg(feature = "json")]
fn write_json(told: &Told<'_>, output: &mut Output) {
    // As above; keys are names of fields.
    let _ = serde_json::to_writer(&mut *output, told);
    let _ = output.write_char('\n');
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.unwrap_or("a program");
        writeln!(f, "{program}, process {}, at exit", self.process)?;
        if !self.installed {
            writeln!(f, "bursar is not installed as this program's allocator")?;
        }
        write!(f, "{}", self.stats)?;
        if let Some(pools) = &self.pools {
            write!(f, "{pools}")?;
        }
        #[cfg(feature = "accounts")]
        if let Some(report) = &self.report {
            write!(f, "{report}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{file_name, terminated};
    use std::ffi::{CStr, CString};

    #[test]
    fn processes_have_files_of_their_own() {
        let name = |pattern, process, first| {
            let name = file_name(pattern, process, first);
            CString::from(terminated(name.text()))
        };
        let is = |name: CString, expected: &CStr| assert_eq!(&*name, expected);
        is(name("a", 7, 7), c"a");
        is(name("a", 8, 7), c"a.8");
        is(name("%pa%p", 7, 7), c"7a7");
        is(name("%pa%p", 8, 7), c"8a8");
        let long = "x".repeat(libc::PATH_MAX as usize - 1);
        assert_eq!(name(&long, 1, 1).as_bytes(), long.as_bytes());
        is(name(&"%p".repeat(2000), 4_000_000, 1), c"");
    }
}
