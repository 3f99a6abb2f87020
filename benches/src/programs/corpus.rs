//! The inputs: sources, documentation and metadata of the locked
//! dependencies, gathered into one file a kind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Packages whose sources are parsed: five megabytes by several authors.
const SOURCES: [&str; 3] = ["egg", "regex-automata", "syn"];
/// What parts the texts of a file; no text contains it.
const SEPARATOR: char = '\0';

/// A directory with the gathered inputs.
pub struct Corpus {
    directory: PathBuf,
}

/// Texts one after the other in a single allocation.
pub struct Texts(String);

impl Texts {
    /// The texts, at least `least` of them and about a `divisor`th of all.
    #[must_use]
    pub fn portion(&self, divisor: usize, least: usize) -> Vec<&str> {
        let all: Vec<&str> = self.0.split(SEPARATOR).collect();
        let count = (all.len() / divisor).max(least).min(all.len());
        all[..count].to_vec()
    }
}

impl Corpus {
    /// The inputs that [`gather`] put into `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Rust sources, in order.
    ///
    /// # Panics
    /// As the two below, if the inputs are not there.
    #[must_use]
    pub fn rust(&self) -> Texts {
        Texts(self.read("rust.txt"))
    }

    /// Markdown documents, in order.
    #[must_use]
    pub fn markdown(&self) -> Texts {
        Texts(self.read("markdown.txt"))
    }

    /// A JSON document of a megabyte: what cargo knows of the packages.
    #[must_use]
    pub fn metadata(&self) -> String {
        self.read("metadata.json")
    }

    fn read(&self, name: &str) -> String {
        let path = self.directory.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Gathers the inputs into `directory`: asks cargo where the locked
/// dependencies lie, and copies their texts.
///
/// # Errors
/// If cargo fails or a file cannot be read or written.
pub fn gather(directory: &Path) -> io::Result<Corpus> {
    fs::create_dir_all(directory)?;
    let output = Command::new(super::build::cargo())
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--all-features",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = packages(&metadata);
    let mut rust = Vec::new();
    for name in SOURCES {
        let (_, root) = packages
            .iter()
            .rfind(|(package, _)| package == name)
            .ok_or_else(|| io::Error::other(format!("no package {name}")))?;
        collect(&root.join("src"), "rs", &mut rust)?;
    }
    let mut markdown = Vec::new();
    for (_, root) in &packages {
        collect(root, "md", &mut markdown)?;
    }
    fs::write(
        directory.join("rust.txt"),
        rust.join(&SEPARATOR.to_string()),
    )?;
    fs::write(
        directory.join("markdown.txt"),
        markdown.join(&SEPARATOR.to_string()),
    )?;
    fs::write(directory.join("metadata.json"), &output.stdout)?;
    Ok(Corpus::new(directory.to_owned()))
}

/// Names and directories of the packages from a registry, by name and version.
fn packages(metadata: &Value) -> Vec<(String, PathBuf)> {
    let mut packages: Vec<(String, PathBuf)> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| package["source"].is_string())
        .filter_map(|package| {
            let name = package["name"].as_str()?.to_owned();
            let root = Path::new(package["manifest_path"].as_str()?).parent()?;
            Some((name, root.to_owned()))
        })
        .collect();
    packages.sort();
    packages
}

/// Adds the texts below `directory` whose names end in `extension`, by path.
fn collect(directory: &Path, extension: &str, texts: &mut Vec<String>) -> io::Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, extension, texts)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read_to_string(&path)?;
            if !text.contains(SEPARATOR) {
                texts.push(text);
            }
        }
    }
    Ok(())
}
