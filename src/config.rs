//! Settings: in code, and over them from the environment variable `BURSAR_CONF`. A leaf: what a
//! setting changes is told by those who read it, once, at the first allocation.

use crate::os::lock::{Guard, Lock};
use crate::os::process::{self, Line, end_with, environment};
use crate::os::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::pool::{Backing, PoolExcerpt, PoolSpec, PoolSpecError, Router};
use core::fmt::{self, Write};

/// The decay time where no setting says otherwise, in milliseconds.
pub(crate) const DECAY_MILLIS: u64 = 500;

/// Bytes for each sampled block where no setting says otherwise.
pub(crate) const SAMPLE_BYTES: u64 = 512 << 10;

/// How figures are written at exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Not at all.
    None,
    Text,
    #[cfg(feature = "json")]
    Json,
}

/// What is told at exit: the setting `stats_at_exit`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AtExit {
    pub(crate) form: Form,
    /// Where to; standard error if there is none.
    pub(crate) file: Option<&'static str>,
}

impl AtExit {
    const NOTHING: AtExit = AtExit {
        form: Form::None,
        file: None,
    };

    /// `None` if the value is not understood.
    fn parse(value: &'static str) -> Option<AtExit> {
        if let Some(on) = switch(value) {
            let form = if on { Form::Text } else { Form::None };
            return Some(AtExit { form, file: None });
        }
        let (form, file) = match value.split_once(':') {
            Some((form, file)) => (form, Some(file)),
            None => (value, None),
        };
        let form = match form {
            "text" => Form::Text,
            #[cfg(feature = "json")]
            "json" => Form::Json,
            _ => return None,
        };
        let fits = |file: &str| (1..=FILE_MAX).contains(&file.len());
        file.is_none_or(fits).then_some(AtExit { form, file })
    }
}

/// The longest name of a file that the kernel takes.
const FILE_MAX: usize = libc::PATH_MAX as usize - 1;

/// What a switch says; `None` if that is not understood.
fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "true" | "1" => Some(true),
        "off" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// All settings.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Milliseconds after which what was freed has been given back; `u64::MAX` for never.
    pub(crate) decay_ms: u64,
    /// Start the background thread with the first allocation.
    pub(crate) background: bool,
    /// Ask for transparent huge pages.
    pub(crate) huge_pages: bool,
    /// What is told at exit.
    pub(crate) at_exit: AtExit,
    /// Fill small blocks with a pattern when they are allocated and freed.
    pub(crate) junk: bool,
    /// The secure profile.
    pub(crate) secure: bool,
    /// Bytes of a region; 0 for as much as an address allows.
    pub(crate) region_bytes: usize,
    /// Bytes for each sampled block, on average; 0 for none.
    pub(crate) sample_bytes: u64,
    /// Refuse what the first pool that admits it does not serve.
    pub(crate) strict_pools: bool,
    /// Which pools there are to be; none for the growing one alone.
    pub(crate) pools: Option<&'static str>,
    /// What the pools are made of, as far as it goes; the rest is of ordinary memory.
    pub(crate) backings: &'static [Backing<'static>],
    /// The program's router.
    pub(crate) router: Option<&'static dyn Router>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("decay_ms", &self.decay_ms)
            .field("background", &self.background)
            .field("huge_pages", &self.huge_pages)
            .field("stats_at_exit", &self.at_exit)
            .field("junk", &self.junk)
            .field("secure", &self.secure)
            .field("region_bytes", &self.region_bytes)
            .field("sample_bytes", &self.sample_bytes)
            .field("strict_pools", &self.strict_pools)
            .field("pools", &self.pools)
            .field("backings", &self.backings)
            .field("router", &self.router.is_some())
            .finish()
    }
}

impl Settings {
    pub(crate) const fn new() -> Settings {
        Settings {
            decay_ms: DECAY_MILLIS,
            background: false,
            huge_pages: false,
            at_exit: AtExit::NOTHING,
            junk: false,
            secure: false,
            region_bytes: 0,
            sample_bytes: SAMPLE_BYTES,
            strict_pools: false,
            pools: None,
            backings: &[],
            router: None,
        }
    }
}

/// What a value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Millis,
    Switch,
    Bytes,
    AtExit,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Kind::Millis => "milliseconds from 0 to 86400000, or never",
            Kind::Switch => "on or off",
            Kind::Bytes => "bytes from 67108864 to 1099511627776",
            #[cfg(feature = "json")]
            Kind::AtExit => "off, on, text or json, the last two perhaps with :FILE",
            #[cfg(not(feature = "json"))]
            Kind::AtExit => "off, on, text, or text:FILE (json is not built in)",
        }
    }
}

const KEYS: [(&str, Kind); 8] = [
    ("decay_ms", Kind::Millis),
    ("background", Kind::Switch),
    ("huge_pages", Kind::Switch),
    ("stats_at_exit", Kind::AtExit),
    ("junk", Kind::Switch),
    ("secure", Kind::Switch),
    ("region", Kind::Bytes),
    ("strict_pools", Kind::Switch),
];

/// What is wrong with one setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault<'a> {
    Key(&'a str),
    Value(&'a str, &'a str, Kind),
    NotText,
}

const MOST_MILLIS: u64 = 86_400_000;
const LEAST_REGION: u64 = 64 << 20;
const MOST_REGION: u64 = 1 << 40;

/// Applies `key=value,key=value,…` over `settings`; each fault is told, and its setting left.
fn parse(text: &'static [u8], settings: &mut Settings, mut fault: impl FnMut(Fault<'static>)) {
    let Ok(text) = core::str::from_utf8(text) else {
        return fault(Fault::NotText);
    };
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (key, value) = item.split_once('=').unwrap_or((item, "on"));
        let Some(&(_, kind)) = KEYS.iter().find(|known| known.0 == key) else {
            fault(Fault::Key(key));
            continue;
        };
        if apply(settings, key, value, kind).is_none() {
            fault(Fault::Value(key, value, kind));
        }
    }
}

/// `None`, with nothing changed, if the value is not understood.
fn apply(settings: &mut Settings, key: &str, value: &'static str, kind: Kind) -> Option<()> {
    match kind {
        Kind::Millis if value == "never" => settings.decay_ms = u64::MAX,
        Kind::Millis => settings.decay_ms = number(value, 0, MOST_MILLIS)?,
        Kind::Bytes => settings.region_bytes = number(value, LEAST_REGION, MOST_REGION)? as usize,
        Kind::AtExit => settings.at_exit = AtExit::parse(value)?,
        Kind::Switch => {
            let on = switch(value)?;
            match key {
                "background" => settings.background = on,
                "huge_pages" => settings.huge_pages = on,
                "secure" => settings.secure = on,
                "strict_pools" => settings.strict_pools = on,
                _ => settings.junk = on,
            }
        }
    }
    Some(())
}

fn number(value: &str, least: u64, most: u64) -> Option<u64> {
    let number = value.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

fn report(fault: Fault<'_>) {
    message(fault).print();
}

/// The line that tells of a fault.
fn message(fault: Fault<'_>) -> Line<512> {
    let mut line = Line::<512>::new();
    let _ = line.write_str("bursar: BURSAR_CONF: ");
    let _ = match fault {
        Fault::NotText => writeln!(line, "not UTF-8; ignored"),
        Fault::Value(key, value, kind) => {
            let (value, expected) = (excerpt(value), kind.text());
            writeln!(
                line,
                "{key}={value}: expected {expected}; the default stands"
            )
        }
        Fault::Key(key) => {
            let _ = write!(line, "unknown key {}; the keys are", excerpt(key));
            KEYS.iter().enumerate().for_each(|(index, known)| {
                let _ = write!(line, "{} {}", if index == 0 { "" } else { "," }, known.0);
            });
            writeln!(line)
        }
    };
    line
}

/// What the environment has, as far as a line takes it.
fn excerpt(text: &str) -> PoolExcerpt {
    PoolExcerpt::of(text.as_bytes(), 0, text.len())
}

/// What a text makes of settings; `told` is given the line that each fault in it would be reported
/// by.
#[cfg(feature = "check")]
pub(crate) fn parsed(
    text: &'static [u8],
    mut settings: Settings,
    mut told: impl FnMut(&str),
) -> Settings {
    parse(text, &mut settings, |fault| told(message(fault).text()));
    settings
}

/// What the facade hands down: settings in code.
static OFFERED: Lock<Option<Settings>> = Lock::new(None);
static LOADED: AtomicBool = AtomicBool::new(false);
static JUNK: AtomicBool = AtomicBool::new(false);
static SECURE: AtomicBool = AtomicBool::new(false);
static SAMPLED: AtomicU64 = AtomicU64::new(0);

/// What is kept for the end of the process, with a copy of the file's name: programs write over
/// their environment.
pub(crate) struct KeptForExit {
    pub(crate) form: Form,
    /// Empty for standard error.
    pub(crate) file: Line<FILE_MAX>,
    /// Which process read the settings: its forked children are others.
    pub(crate) process: u32,
}

static FOR_EXIT: Lock<KeptForExit> = Lock::new(KeptForExit {
    form: Form::None,
    file: Line::new(),
    process: 0,
});

/// What was settled about the end of the process; `None` if exit began in a signal handler that
/// interrupted the settling.
pub(crate) fn for_exit() -> Option<Guard<'static, KeptForExit>> {
    FOR_EXIT.try_lock()
}

/// Settings in code, from whichever allocator is used first.
#[inline]
pub(crate) fn offer(settings: &Settings) {
    if !LOADED.load(Relaxed) {
        OFFERED.lock().get_or_insert(*settings);
    }
}

/// The settings of this process; faults are reported on standard error. Once, at the start.
pub(crate) fn load() -> Settings {
    let offered = *OFFERED.lock();
    let mut settings = offered.unwrap_or(Settings::new());
    if let Some(text) = environment(c"BURSAR_CONF") {
        parse(text, &mut settings, report);
    }
    keep_for_exit(settings.at_exit);
    JUNK.store(settings.junk, Relaxed);
    SECURE.store(settings.secure, Relaxed);
    SAMPLED.store(settings.sample_bytes, Relaxed);
    LOADED.store(true, Relaxed);
    settings
}

fn keep_for_exit(at_exit: AtExit) {
    if at_exit.form == Form::None {
        return;
    }
    let mut kept = FOR_EXIT.lock();
    let _ = kept.file.write_str(at_exit.file.unwrap_or_default());
    kept.process = process::id();
    kept.form = at_exit.form;
}

/// The pools that are configured: those of `BURSAR_POOLS`, or else those in code. A text that is no
/// specification ends the process, since no other layout of memory is what it asks for.
pub(crate) fn pools(settings: &Settings) -> Option<PoolSpec> {
    let in_environment = environment(c"BURSAR_POOLS");
    let text = in_environment.or(settings.pools.map(str::as_bytes))?;
    match PoolSpec::parse_bytes(text) {
        Ok(spec) => Some(spec),
        Err(fault) => refuse(&fault),
    }
}

fn refuse(fault: &PoolSpecError) -> ! {
    let mut line = Line::<512>::new();
    let _ = write!(line, "bursar: BURSAR_POOLS: {}", fault.message().as_str());
    end_with(line.text())
}

/// Whether blocks are filled with patterns.
#[inline]
pub(crate) fn junk() -> bool {
    JUNK.load(Relaxed)
}

/// Whether the secure profile is in force.
#[inline]
pub(crate) fn is_secure() -> bool {
    SECURE.load(Relaxed)
}

/// Whether each request takes the slow path, which looks at settings.
pub(crate) fn looks_at_each() -> bool {
    junk() || is_secure()
}

/// Bytes for each sampled block, on average; 0 for none, and before the first request.
#[cfg(feature = "sites")]
pub(crate) fn sample_bytes() -> u64 {
    SAMPLED.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    fn parsed(text: &'static str) -> (Settings, Vec<Fault<'static>>) {
        let mut settings = Settings::new();
        let mut faults = Vec::new();
        parse(text.as_bytes(), &mut settings, |fault| faults.push(fault));
        (settings, faults)
    }

    #[test]
    fn every_key_is_heeded() {
        let (settings, faults) = parsed(
            "decay_ms=200,background,huge_pages=on,stats_at_exit=true,junk=1,region=67108864,\
             strict_pools,secure",
        );
        assert_eq!(faults, []);
        let expected = Settings {
            decay_ms: 200,
            background: true,
            huge_pages: true,
            at_exit: AtExit {
                form: Form::Text,
                file: None,
            },
            junk: true,
            secure: true,
            region_bytes: 64 << 20,
            strict_pools: true,
            ..Settings::new()
        };
        assert_eq!(format!("{settings:?}"), format!("{expected:?}"));
        assert_eq!(parsed("decay_ms=never").0.decay_ms, u64::MAX);
        assert_eq!(parsed(" , ,junk=off,").1, []);
    }

    #[test]
    fn a_fault_leaves_its_setting() {
        let (settings, faults) = parsed("decay_ms=-1,colour=red,junk=perhaps,region=1,background");
        let expected = Settings {
            background: true,
            ..Settings::new()
        };
        assert_eq!(format!("{settings:?}"), format!("{expected:?}"));
        assert_eq!(
            faults,
            [
                Fault::Value("decay_ms", "-1", Kind::Millis),
                Fault::Key("colour"),
                Fault::Value("junk", "perhaps", Kind::Switch),
                Fault::Value("region", "1", Kind::Bytes),
            ]
        );
        let mut settings = Settings::new();
        let mut faults = 0;
        parse(&[0xff], &mut settings, |_| faults += 1);
        assert_eq!(faults, 1);
    }

    #[test]
    fn what_is_told_at_exit_has_a_form_and_perhaps_a_file() {
        let told = |value: &'static str| AtExit::parse(value).map(|it| (it.form, it.file));
        assert_eq!(told("on"), Some((Form::Text, None)));
        assert_eq!(told("off"), Some((Form::None, None)));
        assert_eq!(told("text"), Some((Form::Text, None)));
        assert_eq!(told("text:a:%p"), Some((Form::Text, Some("a:%p"))));
        #[cfg(feature = "json")]
        assert_eq!(told("json:=/a b"), Some((Form::Json, Some("=/a b"))));
        for value in ["", "text:", "xml", "off:a", "on:a", "TEXT", ":a"] {
            assert_eq!(told(value), None, "{value}");
        }
        let long = std::string::String::from("text:") + &"x".repeat(FILE_MAX);
        assert!(AtExit::parse(long.clone().leak()).is_some());
        assert!(AtExit::parse((long + "x").leak()).is_none());
        assert_eq!(
            parsed("stats_at_exit=text:").1,
            [Fault::Value("stats_at_exit", "text:", Kind::AtExit)]
        );
    }

    #[test]
    fn a_fault_is_told_in_one_whole_line() {
        let long = "x".repeat(5000);
        let (long, value) = (long.clone().leak(), format!("decay_ms={long}").leak());
        for text in ["two\nlines", "junk=a\u{1b}[2Jb", long, value] {
            let (_, faults) = parsed(text);
            let line = message(faults[0]);
            assert!(line.text().ends_with('\n'), "{:?}", line.text());
            let graphic = |byte: u8| matches!(byte, b' '..=b'~');
            assert!(line.text().trim_end_matches('\n').bytes().all(graphic));
        }
    }
}
