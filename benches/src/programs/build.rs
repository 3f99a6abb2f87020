//! Builds the programs, one binary for each allocator.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How much the linker optimises across crates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lto {
    /// Links in seconds, and no allocator is inlined into its callers.
    Off,
    /// In between.
    Thin,
    /// Two minutes for each allocator.
    Fat,
}

/// The lines of `cargo build --message-format=json` that name a binary.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: PathBuf,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// The cargo that started this process, or the one in the path.
pub(super) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Builds the programs on each of the named allocators and returns the
/// binaries in the same order.
///
/// # Errors
/// If cargo fails; it has then said why on standard error.
pub fn build(allocators: &[&str], lto: Lto) -> Result<Vec<PathBuf>, String> {
    let (own, peers): (Vec<&str>, Vec<&str>) =
        allocators.iter().partition(|name| **name == "bursar");
    // The peers' binaries are built without bursar, so that a change of
    // bursar leaves them as they are.
    let mut built = HashMap::new();
    built.extend(cargo_build(&own, "bursar,programs", lto)?);
    built.extend(cargo_build(&peers, "peers,programs", lto)?);
    allocators
        .iter()
        .map(|name| {
            built
                .remove(&binary(name))
                .ok_or(format!("cargo built no {}", binary(name)))
        })
        .collect()
}

fn binary(allocator: &str) -> String {
    format!("prog_{allocator}")
}

fn cargo_build(
    allocators: &[&str],
    features: &str,
    lto: Lto,
) -> Result<HashMap<String, PathBuf>, String> {
    if allocators.is_empty() {
        return Ok(HashMap::new());
    }
    let lto = lto.to_possible_value().expect("no value is hidden");
    let mut command = Command::new(cargo());
    command
        .args([
            "build",
            "--profile=bench",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--no-default-features", "--features", features])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("CARGO_PROFILE_BENCH_LTO", lto.get_name())
        .stderr(Stdio::inherit());
    for allocator in allocators {
        command.args(["--bin", &binary(allocator)]);
    }
    let output = command
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo build: {}", output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .map(|artifact| (artifact.target.name, artifact.executable))
        .collect())
}
