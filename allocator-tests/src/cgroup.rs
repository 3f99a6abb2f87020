//! Memory cgroups, of either version, where the machine permits making one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A group of processes that may together use so much memory. Gone when this is dropped, unless
/// there are processes in it.
pub struct Cgroup {
    folder: PathBuf,
    is_unified: bool,
}

fn told<T>(what: &str, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}

fn write(folder: &Path, file: &str, text: &str) -> Result<(), String> {
    let path = folder.join(file);
    told(
        &format!("{} = {text}", path.display()),
        fs::write(&path, text),
    )
}

/// Where a group may be made: at the root of a hierarchy, or in this process's own group of it;
/// `is_unified` for version 2.
fn parents(is_unified: bool) -> Result<[PathBuf; 2], String> {
    let mounts = told("mounts", fs::read_to_string("/proc/self/mounts"))?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match is_unified {
            true => kind == "cgroup2",
            false => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        };
        is_it.then(|| PathBuf::from(place))
    });
    let root = mount.ok_or("no such hierarchy is mounted")?;
    let groups = told("groups", fs::read_to_string("/proc/self/cgroup"))?;
    let own = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match is_unified {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|one| one == "memory"),
        };
        is_it.then(|| root.join(path.trim_start_matches('/')))
    });
    let own = own.unwrap_or_else(|| root.clone());
    Ok([root, own])
}

impl Cgroup {
    /// A group with at most `bytes` of memory, and no swap.
    ///
    /// # Errors
    /// Why there can be none, for each version.
    pub fn new(bytes: u64) -> Result<Self, String> {
        Self::of_version(false, bytes).or_else(|one| {
            Self::of_version(true, bytes)
                .map_err(|two| format!("version 1: {one}; version 2: {two}"))
        })
    }

    fn of_version(is_unified: bool, bytes: u64) -> Result<Self, String> {
        let [root, own] = parents(is_unified)?;
        Self::below(&root, is_unified, bytes).or_else(|at_root| {
            Self::below(&own, is_unified, bytes).map_err(|error| format!("{at_root}, {error}"))
        })
    }

    fn below(parent: &Path, is_unified: bool, bytes: u64) -> Result<Self, String> {
        if is_unified {
            let controllers = fs::read_to_string(parent.join("cgroup.controllers"));
            if !told("controllers", controllers)?.contains("memory") {
                return Err("memory is not controlled here".to_owned());
            }
            // It may be on already, and cannot be turned on where processes are.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let folder = parent.join(format!("bursar-test-{}", std::process::id()));
        told(&format!("{}", folder.display()), fs::create_dir(&folder))?;
        let group = Self { folder, is_unified };
        let limit = bytes.to_string();
        if is_unified {
            write(&group.folder, "memory.max", &limit)?;
            let _ = write(&group.folder, "memory.swap.max", "0");
        } else {
            write(&group.folder, "memory.limit_in_bytes", &limit)?;
            // There only where swap is counted.
            let _ = write(&group.folder, "memory.memsw.limit_in_bytes", &limit);
            let _ = write(&group.folder, "memory.swappiness", "0");
        }
        Ok(group)
    }

    /// Makes the calling process a member.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn join(&self) -> Result<(), String> {
        write(&self.folder, "cgroup.procs", "0")
    }

    /// Processes that were killed because the group had no more memory.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn killed(&self) -> Result<u64, String> {
        let file = match self.is_unified {
            true => "memory.events",
            false => "memory.oom_control",
        };
        let text = told(file, fs::read_to_string(self.folder.join(file)))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        let count = line.and_then(|count| count.trim().parse().ok());
        count.ok_or_else(|| format!("no count in {text:?}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What it was charged with may outlive it; the group itself then goes later.
        let _ = fs::remove_dir(&self.folder);
    }
}
