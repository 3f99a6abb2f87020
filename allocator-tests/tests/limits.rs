//! Less memory, address space or mappings than a program asks for.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use allocator_tests::process::Scenario;
use nix::sys::resource::Resource::{self, RLIMIT_AS, RLIMIT_DATA};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name).patience(Duration::from_secs(120))
}

/// At least two fifths of what the limit permits can be had, in blocks that are a
/// sixteenth of it and smaller.
fn exhaust(resource: Resource, limit: u64) {
    child("exhaust")
        .limit(resource, limit)
        .argument(limit / 16)
        .argument(limit / 5 * 2)
        .succeed();
}

#[test]
fn a_quarter_gib_of_address_space() {
    exhaust(RLIMIT_AS, 256 * MIB);
}

#[test]
fn one_gib_of_address_space() {
    exhaust(RLIMIT_AS, GIB);
}

#[test]
fn four_gib_of_address_space() {
    child("work").limit(RLIMIT_AS, 4 * GIB).succeed();
    exhaust(RLIMIT_AS, 4 * GIB);
}

#[test]
fn sixty_four_gib_of_address_space() {
    child("work").limit(RLIMIT_AS, 64 * GIB).succeed();
}

#[test]
fn half_a_gib_of_data() {
    exhaust(RLIMIT_DATA, 512 * MIB);
}

#[test]
fn ordinary_work_in_half_a_gib_of_address_space() {
    // Sixteen categories of up to 16 MiB in three threads, 150 blocks each.
    child("work").limit(RLIMIT_AS, 2 * GIB).succeed();
}

#[test]
fn no_mapping_to_be_had() {
    child("islands").succeed();
}

#[test]
fn memory_that_is_locked() {
    child("locked").succeed();
}

#[test]
fn a_region_of_64_mib() {
    child("work").settings("region=67108864").succeed();
}

const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

/// Strict accounting of the whole machine's memory, restored when this is
/// dropped and, by a helper, also if this process is ended before.
struct Strict {
    helper: std::process::Child,
}

impl Strict {
    fn begin() -> Result<Self, String> {
        let before = fs::read_to_string(OVERCOMMIT).map_err(|e| e.to_string())?;
        let meminfo = fs::read_to_string("/proc/meminfo").map_err(|e| e.to_string())?;
        let kib = |name: &str| -> Option<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        let limit = kib("CommitLimit:").ok_or("no CommitLimit")?;
        let used = kib("Committed_AS:").ok_or("no Committed_AS")?;
        if limit < used + (4 << 20) {
            return Err("other programs need what strict accounting would leave".to_owned());
        }
        fs::OpenOptions::new()
            .write(true)
            .open(OVERCOMMIT)
            .map_err(|e| e.to_string())?;
        let restore = format!(
            "trap '' INT TERM HUP; read _; printf %s {} > {OVERCOMMIT}",
            before.trim()
        );
        let helper = Command::new("sh")
            .args(["-c", &restore])
            .stdin(Stdio::piped())
            .spawn();
        let strict = Self {
            helper: helper.map_err(|e| e.to_string())?,
        };
        fs::write(OVERCOMMIT, "2").map_err(|e| e.to_string())?;
        Ok(strict)
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        if let Some(mut input) = self.helper.stdin.take() {
            input.write_all(b"\n").expect("the helper listens");
        }
        self.helper.wait().expect("the helper ends");
    }
}

/// Changes a setting of the machine for a second or so.
#[test]
fn strict_accounting_of_memory() {
    let strict = match Strict::begin() {
        Ok(strict) => strict,
        Err(reason) => return eprintln!("skipped: strict accounting cannot be tried: {reason}"),
    };
    let output = child("work").patience(Duration::from_secs(30)).run();
    drop(strict);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let mode = fs::read_to_string(OVERCOMMIT).expect("it was read before");
    assert_ne!(mode.trim(), "2", "the machine's setting is restored");
}
