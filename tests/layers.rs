//! A module imports only from its own layer and those below it.

use std::fs;
use std::path::Path;

/// From the lowest up. Files at the top of `src` that are not listed belong to the facade.
const LAYERS: [&str; 7] = ["os", "pool", "extent", "run", "arena", "account", "mbuf"];
/// Leaves, which every layer may use.
const LEAVES: [&str; 3] = ["units", "class", "config"];

fn rank(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|&layer| layer == module)
        .unwrap_or(LAYERS.len())
}

/// The first segments of all paths that begin with `crate::` in code.
fn imported(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
}

fn check(folder: &Path, module: Option<&str>, seen: &mut usize, upward: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
        let own = module.unwrap_or(&stem);
        if path.is_dir() {
            check(&path, Some(own), seen, upward);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let own_rank = if LEAVES.contains(&own) { 1 } else { rank(own) };
        for used in imported(&text).filter(|used| !LEAVES.contains(used)) {
            *seen += 1;
            if rank(used) > own_rank {
                upward.push(format!("{} uses crate::{used}", path.display()));
            }
        }
    }
}

#[test]
fn no_layer_uses_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut upward) = (0, Vec::new());
    check(&source, None, &mut seen, &mut upward);
    assert!(seen > 100, "only {seen} imports were found");
    assert!(upward.is_empty(), "{upward:#?}");
}
