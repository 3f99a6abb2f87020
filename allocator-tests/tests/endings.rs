//! What `stats_at_exit` tells, in its forms, and in the ways in which a process ends.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use allocator_tests::scenarios::endings::{ALIVE, CODE, FREED, LARGE, SIZE};
use serde_json::Value;

/// The large block that the helper allocates before its main function, whatever the scenario.
const EARLY: u64 = 3 << 20;

/// A directory of one test, empty.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("endings-{name}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(directory).expect("it was made");
    let mut files: Vec<PathBuf> = listed.map(|file| file.expect("listed").path()).collect();
    files.sort();
    files
}

fn helper(scenario: &str, setting: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_child"));
    command
        .arg(scenario)
        .env_remove("BURSAR_POOLS")
        .env("BURSAR_CONF", format!("stats_at_exit={setting}"));
    command
}

/// Runs a scenario that ends with [`CODE`].
#[track_caller]
fn run(mut command: Command) -> Output {
    let output = command.output().expect("the helper starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(CODE), "{said}");
    output
}

#[track_caller]
fn json(text: &[u8]) -> Value {
    let parsed = serde_json::from_slice(text);
    parsed.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)))
}

/// Blocks alive, bytes alive and requests of the class of that size; 0 for larger blocks.
#[track_caller]
fn class(told: &Value, size: usize) -> [u64; 3] {
    let classes = told["stats"]["classes"].as_array().expect("a list");
    let class = classes.iter().find(|class| class["size"] == size);
    let class = class.unwrap_or_else(|| panic!("no class of {size}"));
    ["allocated_blocks", "allocated_bytes", "requests"]
        .map(|name| class[name].as_u64().expect("a number"))
}

/// The figures are those of the blocks that the helper allocated, and `more`.
#[track_caller]
fn figures_are_right(told: &Value, more: u64) {
    let size = bursar::block_size(std::alloc::Layout::from_size_align(SIZE, 8).unwrap());
    let alive = ALIVE + more;
    assert_eq!(
        class(told, size),
        [alive, alive * size as u64, alive + FREED]
    );
    let (blocks, bytes) = (LARGE.0 + 1, LARGE.0 * LARGE.1 as u64 + EARLY);
    assert_eq!(class(told, 0), [blocks, bytes, blocks]);
    let stats = &told["stats"];
    let sum = |field: &str, list: &str| -> i64 {
        let list = stats[list].as_array().expect("a list");
        list.iter().map(|one| one[field].as_i64().unwrap()).sum()
    };
    for field in ["allocated_bytes", "allocated_blocks"] {
        let total = stats[field].as_i64();
        assert_eq!(total, Some(sum(field, "classes")), "{field}");
        assert_eq!(total, Some(sum(field, "arenas")), "{field}");
    }
    assert_eq!(told["installed"], true);
}

fn process(told: &Value) -> u64 {
    told["process"].as_u64().expect("a number")
}

#[test]
fn figures_as_json_are_those_of_the_blocks_alive() {
    for scenario in ["end", "end_in_thread"] {
        let output = run(helper(scenario, "json"));
        let told = json(&output.stderr);
        figures_are_right(&told, 0);
        assert_eq!(told["program"], env!("CARGO_BIN_EXE_child"));
        assert_eq!(told["pools"], Value::Null);
        assert_eq!(told["report"], Value::Null);
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_table_names_the_process() {
    for setting in ["text", "on"] {
        let output = run(helper("end", setting));
        let said = String::from_utf8(output.stderr).expect("text");
        let first = said.lines().next().unwrap_or_default();
        assert!(first.starts_with(env!("CARGO_BIN_EXE_child")), "{said}");
        assert!(first.contains(", process "), "{said}");
        let size = bursar::block_size(std::alloc::Layout::from_size_align(SIZE, 8).unwrap());
        let row = said
            .lines()
            .find(|line| line.trim_start().starts_with(&size.to_string()));
        let blocks = row.and_then(|row| row.split_whitespace().nth(1));
        assert_eq!(blocks, Some(&*ALIVE.to_string()), "{said}");
        assert!(!said.contains("consumer, bytes"), "{said}");
    }
}

#[test]
fn consumers_and_pools_are_told_of_where_there_are_any() {
    let mut command = helper("end_with_consumers", "json");
    command.env("BURSAR_POOLS", "1073741824");
    let told = json(&run(command).stderr);
    let pools = told["pools"].as_array().expect("a list");
    assert_eq!(pools.len(), 1, "{pools:?}");
    assert_eq!(pools[0]["size"], 1 << 30);
    let consumers = &told["report"]["consumers"]["consumers"];
    let named = |name: &str| {
        let consumers = consumers.as_array().expect("a list");
        let found = consumers.iter().find(|one| one["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {consumers:?}"))["usage"].clone()
    };
    let live = named("scan")["live_bytes"].as_u64().expect("a number");
    let known = ALIVE * SIZE as u64 + LARGE.0 * LARGE.1 as u64;
    assert!((known..known * 11 / 10).contains(&live), "{live}, {known}");
    assert_eq!(named("query \"1\"\n")["subtree_live_bytes"], live);

    let mut command = helper("end_with_consumers", "text");
    command.env("BURSAR_POOLS", "1073741824");
    let said = String::from_utf8(run(command).stderr).expect("text");
    assert!(
        said.contains("scan (#1") && said.contains("fragmented  backing"),
        "{said}"
    );
}

#[test]
fn a_file_takes_the_place_of_standard_error() {
    let directory = directory("file");
    let file = directory.join("told");
    fs::write(&file, "x".repeat(1 << 20)).expect("it can be written");
    for _ in 0..2 {
        let output = run(helper("end", &format!("json:{}", file.display())));
        assert!(output.stderr.is_empty());
        figures_are_right(&json(&fs::read(&file).unwrap()), 0);
    }
    assert_eq!(files(&directory), [file]);
}

#[test]
fn a_file_is_found_though_the_environment_was_written_over() {
    let file = directory("environment").join("told");
    run(helper(
        "end_with_other_environment",
        &format!("json:{}", file.display()),
    ));
    figures_are_right(&json(&fs::read(&file).unwrap()), 0);
}

/// A forked child has a file of its own, whether the name says so or not.
#[test]
fn a_forked_child_leaves_the_file_of_its_parent_alone() {
    for (name, expected) in [("told", ["told", "told.C"]), ("%p-%p", ["P-P", "C-C"])] {
        let directory = directory("fork");
        let setting = format!("json:{}", directory.join(name).display());
        let output = run(helper("end_forked", &setting));
        assert!(output.stderr.is_empty());
        let child = String::from_utf8(output.stdout).expect("text");
        let child: u64 = child.trim().parse().expect("a number");
        let tolds: Vec<Value> = files(&directory)
            .iter()
            .map(|file| json(&fs::read(file).unwrap()))
            .collect();
        assert_eq!(tolds.len(), 2);
        for told in tolds {
            let is_child = process(&told) == child;
            figures_are_right(&told, is_child.into());
            let own = expected[usize::from(is_child)]
                .replace('C', &child.to_string())
                .replace('P', &process(&told).to_string());
            let written = fs::read(directory.join(own)).expect("it has that name");
            assert_eq!(json(&written), told);
        }
    }
}

#[test]
fn a_program_that_takes_the_place_of_another_tells_for_itself() {
    let directory = directory("exec");
    let setting = format!("json:{}", directory.join("%p").display());
    let output = helper("end_another", &setting).output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let files = files(&directory);
    assert_eq!(files.len(), 1, "{files:?}");
    let told = json(&fs::read(&files[0]).unwrap());
    assert_eq!(class(&told, 0)[1], EARLY, "it is not the first program's");
}

#[test]
fn nothing_is_told_where_the_process_does_not_exit() {
    let file = directory("without").join("told");
    let output = run(helper(
        "end_without_exit",
        &format!("json:{}", file.display()),
    ));
    assert!(output.stderr.is_empty());
    assert!(!file.exists());
    assert!(run(helper("end", "off")).stderr.is_empty());
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_and_changes_nothing_else() {
    let missing = directory("missing").join("none/told");
    let said = run(helper("end", &format!("json:{}", missing.display()))).stderr;
    let said = String::from_utf8(said).expect("text");
    let expected = format!(
        "bursar: stats_at_exit: {}: No such file or directory\n",
        missing.display()
    );
    assert_eq!(said, expected);
    let said = run(helper("end", "text:/dev/full")).stderr;
    assert_eq!(
        String::from_utf8(said).expect("text"),
        "bursar: stats_at_exit: /dev/full: No space left on device\n"
    );
}

#[test]
fn a_limit_on_files_does_not_end_the_process() {
    let file = directory("limit").join("told");
    let mut command = helper("end", &format!("json:{}", file.display()));
    let limit = || {
        // SAFETY: only system calls are made between fork and exec.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_DFL) };
        nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_FSIZE, 100, 100)?;
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(limit) };
    let said = String::from_utf8(run(command).stderr).expect("text");
    assert!(said.contains("File too large"), "{said}");
}

#[test]
fn a_closed_standard_error_changes_nothing() {
    for setting in ["text", "json:/nowhere/at/all"] {
        let mut command = helper("end", setting);
        let close = || {
            // SAFETY: only a system call is made between fork and exec.
            unsafe { libc::close(2) };
            Ok(())
        };
        // SAFETY: as above.
        unsafe { command.pre_exec(close) };
        run(command);
    }
}

#[test]
fn a_reader_that_is_gone_changes_nothing() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut helper = helper("end_unheard", "text");
    let mut helper = helper
        .stdin(Stdio::piped())
        .stderr(OwnedFd::from(writer))
        .spawn()
        .expect("the helper starts");
    drop(reader);
    drop(helper.stdin.take());
    let status = helper.wait().expect("it ends");
    assert_eq!(status.code(), Some(CODE), "{status}");
}

#[test]
fn a_setting_that_is_not_understood_is_told_of_with_what_is() {
    for setting in ["xml", "json:", "on:file"] {
        let output = helper("use", setting).output().expect("it starts");
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains(&format!(
                "stats_at_exit={setting}: expected off, on, text or json"
            )),
            "{said}"
        );
    }
}
