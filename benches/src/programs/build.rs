//! Builds the programs, one binary for each allocator.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
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

/// Which programs a binary holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Those that only start: in a binary of megabytes, what the loader does
    /// would hide what the allocator costs.
    Start,
    /// Those that work, too.
    Work,
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

/// Builds the programs on each of the named allocators into `directory` and
/// returns the binaries in the same order.
///
/// # Errors
/// If cargo fails, which has then said why on standard error, or a binary
/// cannot be copied.
pub fn build(
    allocators: &[&str],
    content: Content,
    lto: Lto,
    directory: &Path,
) -> Result<Vec<PathBuf>, String> {
    let mut built = HashMap::new();
    for (feature, allocators) in groups(allocators) {
        let features = match content {
            Content::Start => feature.to_owned(),
            Content::Work => format!("programs,{feature}"),
        };
        let binaries: Vec<String> = allocators.iter().map(|name| binary(name)).collect();
        built.extend(cargo_build(&binaries, &features, lto).map_err(|error| error.to_string())?);
    }
    // Cargo gives the binaries of all contents and options one path.
    let place = directory.join(format!("{content:?}-{lto:?}").to_lowercase());
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    allocators
        .iter()
        .map(|allocator| {
            let name = binary(allocator);
            let from = built.get(&name).ok_or(format!("cargo built no {name}"))?;
            let to = place.join(&name);
            fs::copy(from, &to).map_err(|error| format!("{}: {error}", to.display()))?;
            Ok(to)
        })
        .collect()
}

fn binary(allocator: &str) -> String {
    format!("prog_{allocator}")
}

/// Without the peers, the system's allocator needs no feature.
const PEERS: &str = if cfg!(feature = "peers") { "peers" } else { "" };

/// Features and the allocators that are built with them. The peers go without
/// bursar, so that a change of bursar leaves their binaries as they are, and
/// rpmalloc, which meddles with threads, without the others. `bare` is bursar
/// without its account layer; names that end in `_bursar` are wrappers of it.
#[must_use]
pub fn groups<'a>(allocators: &[&'a str]) -> Vec<(&'static str, Vec<&'a str>)> {
    let feature = |allocator: &str| match allocator {
        "bursar" => "accounts",
        "bare" => "bursar",
        "tracking" | "stats_alloc" | "cap" => "wrappers",
        wrapper if wrapper.ends_with("_bursar") => "wrappers,accounts",
        "rpmalloc" => "rpmalloc",
        _ => PEERS,
    };
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for &name in allocators {
        let feature = feature(name);
        match groups.iter_mut().find(|(group, _)| *group == feature) {
            Some((_, members)) => members.push(name),
            None => groups.push((feature, vec![name])),
        }
    }
    groups
}

/// Builds binaries of this package with these features alone, and returns
/// where each lies.
///
/// # Errors
/// If cargo cannot be run or fails; it has then said why on standard error.
pub fn cargo_build(
    binaries: &[String],
    features: &str,
    lto: Lto,
) -> io::Result<HashMap<String, PathBuf>> {
    let lto = lto.to_possible_value().expect("no value is hidden");
    let output = Command::new(cargo())
        .args([
            "build",
            "--profile=bench",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--no-default-features", "--features", features])
        .args(binaries.iter().flat_map(|name| ["--bin", name]))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_PROFILE_BENCH_LTO", lto.get_name())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("cargo build: {}", output.status)));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .map(|artifact| (artifact.target.name, artifact.executable))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::{PEERS, groups};

    #[test]
    fn no_allocator_is_built_with_rpmalloc_or_bursar_beside_it() {
        let groups = groups(&["bursar", "system", "rpmalloc", "mimalloc"]);
        let expected = [
            ("accounts", vec!["bursar"]),
            (PEERS, vec!["system", "mimalloc"]),
            ("rpmalloc", vec!["rpmalloc"]),
        ];
        assert_eq!(groups, expected);
    }

    #[test]
    fn the_account_layer_is_in_no_binary_that_goes_without_it() {
        let groups = groups(&["bare", "bursar", "cap", "cap_bursar"]);
        let bare = ("bursar", vec!["bare"]);
        assert!(groups.contains(&bare), "{groups:?}");
        assert_eq!(groups.len(), 4);
    }
}
