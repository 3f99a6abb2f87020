//! Strict accounting of memory. Alone in its program, since it is the whole machine's: what other
//! tests commit meanwhile, and are refused, would decide the outcome.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use allocator_tests::process::Scenario;

const OVERCOMMIT: &str = "/proc/sys/vm/overcommit_memory";

/// Strict accounting of the whole machine's memory, restored when this is
/// dropped and, by a helper, also if this process is ended before.
struct Strict {
    helper: std::process::Child,
}

impl Strict {
    fn begin() -> Result<Self, String> {
        let before = fs::read_to_string(OVERCOMMIT).map_err(|e| e.to_string())?;
        if before.trim() == "2" {
            return Err("it is in force already".to_owned());
        }
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
    let output = Scenario::new(env!("CARGO_BIN_EXE_child"), "work").run();
    drop(strict);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let mode = fs::read_to_string(OVERCOMMIT).expect("it was read before");
    assert_ne!(mode.trim(), "2", "the machine's setting is restored");
}
