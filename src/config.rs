//! Settings: in code, and over them from the environment variable `BURSAR_CONF`. A leaf: what a
//! setting changes is told by those who read it, once, at the first allocation.

use crate::os::lock::Lock;
use crate::os::process::{Line, end_with, environment};
use crate::os::sync::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::pool::{Backing, PoolSpec, PoolSpecError, Router};
use core::fmt::{self, Write};

/// The decay time where no setting says otherwise, in milliseconds.
pub(crate) const DECAY_MILLIS: u64 = 500;

/// Bytes for each sampled block where no setting says otherwise.
pub(crate) const SAMPLE_BYTES: u64 = 512 << 10;

/// All settings.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Milliseconds after which what was freed has been given back; `u64::MAX` for never.
    pub(crate) decay_ms: u64,
    /// Start the background thread with the first allocation.
    pub(crate) background: bool,
    /// Ask for transparent huge pages.
    pub(crate) huge_pages: bool,
    /// Print the stats table at exit.
    pub(crate) stats_at_exit: bool,
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
            .field("stats_at_exit", &self.stats_at_exit)
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
            stats_at_exit: false,
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
enum Form {
    Millis,
    Switch,
    Bytes,
}

impl Form {
    fn text(self) -> &'static str {
        match self {
            Form::Millis => "milliseconds from 0 to 86400000, or never",
            Form::Switch => "on or off",
            Form::Bytes => "bytes from 67108864 to 1099511627776",
        }
    }
}

const KEYS: [(&str, Form); 8] = [
    ("decay_ms", Form::Millis),
    ("background", Form::Switch),
    ("huge_pages", Form::Switch),
    ("stats_at_exit", Form::Switch),
    ("junk", Form::Switch),
    ("secure", Form::Switch),
    ("region", Form::Bytes),
    ("strict_pools", Form::Switch),
];

/// What is wrong with one setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault<'a> {
    Key(&'a str),
    Value(&'a str, &'a str, Form),
    NotText,
}

const MOST_MILLIS: u64 = 86_400_000;
const LEAST_REGION: u64 = 64 << 20;
const MOST_REGION: u64 = 1 << 40;

/// Applies `key=value,key=value,…` over `settings`; each fault is told, and its setting left.
fn parse<'a>(text: &'a [u8], settings: &mut Settings, mut fault: impl FnMut(Fault<'a>)) {
    let Ok(text) = core::str::from_utf8(text) else {
        return fault(Fault::NotText);
    };
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (key, value) = item.split_once('=').unwrap_or((item, "on"));
        let Some(&(_, form)) = KEYS.iter().find(|known| known.0 == key) else {
            fault(Fault::Key(key));
            continue;
        };
        if !apply(settings, key, value, form) {
            fault(Fault::Value(key, value, form));
        }
    }
}

fn apply(settings: &mut Settings, key: &str, value: &str, form: Form) -> bool {
    match form {
        Form::Millis => match (value, value.parse::<u64>()) {
            ("never", _) => settings.decay_ms = u64::MAX,
            (_, Ok(millis)) if millis <= MOST_MILLIS => settings.decay_ms = millis,
            _ => return false,
        },
        Form::Bytes => match value.parse::<u64>() {
            Ok(bytes) if (LEAST_REGION..=MOST_REGION).contains(&bytes) => {
                settings.region_bytes = bytes as usize;
            }
            _ => return false,
        },
        Form::Switch => {
            let on = match value {
                "on" | "true" | "1" => true,
                "off" | "false" | "0" => false,
                _ => return false,
            };
            match key {
                "background" => settings.background = on,
                "huge_pages" => settings.huge_pages = on,
                "secure" => settings.secure = on,
                "stats_at_exit" => settings.stats_at_exit = on,
                "strict_pools" => settings.strict_pools = on,
                _ => settings.junk = on,
            }
        }
    }
    true
}

fn report(fault: Fault<'_>) {
    let mut line = Line::<512>::new();
    let _ = line.write_str("bursar: BURSAR_CONF: ");
    let _ = match fault {
        Fault::NotText => writeln!(line, "not UTF-8; ignored"),
        Fault::Value(key, value, form) => {
            writeln!(
                line,
                "{key}={value}: expected {}; the default stands",
                form.text()
            )
        }
        Fault::Key(key) => {
            let _ = write!(line, "unknown key {key}; the keys are");
            KEYS.iter().enumerate().for_each(|(index, known)| {
                let _ = write!(line, "{} {}", if index == 0 { "" } else { "," }, known.0);
            });
            writeln!(line)
        }
    };
    line.print();
}

/// What the facade hands down: settings in code, and what prints the stats table.
#[derive(Clone, Copy)]
struct Offer {
    settings: Settings,
    report: extern "C" fn(),
}

static OFFERED: Lock<Option<Offer>> = Lock::new(None);
static LOADED: AtomicBool = AtomicBool::new(false);
static JUNK: AtomicBool = AtomicBool::new(false);
static SECURE: AtomicBool = AtomicBool::new(false);
static SAMPLED: AtomicU64 = AtomicU64::new(0);

/// Settings in code, from whichever allocator is used first, and what prints the stats table.
#[inline]
pub(crate) fn offer(settings: &Settings, report: extern "C" fn()) {
    if !LOADED.load(Relaxed) {
        OFFERED.lock().get_or_insert(Offer {
            settings: *settings,
            report,
        });
    }
}

/// What prints the stats table at exit, if that is wanted and somebody has offered it.
pub(crate) fn report_at_exit(settings: &Settings) -> Option<extern "C" fn()> {
    let offered = *OFFERED.lock();
    offered
        .filter(|_| settings.stats_at_exit)
        .map(|offer| offer.report)
}

/// The settings of this process; faults are reported on standard error. Once, at the start.
pub(crate) fn load() -> Settings {
    let offered = *OFFERED.lock();
    let mut settings = offered.map_or(Settings::new(), |offer| offer.settings);
    if let Some(text) = environment(c"BURSAR_CONF") {
        parse(text, &mut settings, report);
    }
    JUNK.store(settings.junk, Relaxed);
    SECURE.store(settings.secure, Relaxed);
    SAMPLED.store(settings.sample_bytes, Relaxed);
    LOADED.store(true, Relaxed);
    settings
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

    fn parsed(text: &str) -> (Settings, Vec<Fault<'_>>) {
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
            stats_at_exit: true,
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
                Fault::Value("decay_ms", "-1", Form::Millis),
                Fault::Key("colour"),
                Fault::Value("junk", "perhaps", Form::Switch),
                Fault::Value("region", "1", Form::Bytes),
            ]
        );
        let mut settings = Settings::new();
        let mut faults = 0;
        parse(&[0xff], &mut settings, |_| faults += 1);
        assert_eq!(faults, 1);
    }
}
