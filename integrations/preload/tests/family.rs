//! The `malloc` family under `LD_PRELOAD`, called by a program that knows nothing of bursar, and
//! programs of the system.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Scenarios that come to their end.
const SOUND: [&str; 11] = [
    "blocks",
    "edges",
    "resizing",
    "alignment",
    "figures",
    "operators",
    "free_sized",
    "threads",
    "forks",
    "streams",
    "libraries",
];

/// `libbursar.so`, which cargo builds beside the tests.
fn library() -> PathBuf {
    let tests = std::env::current_exe().expect("a test is a file");
    let library = tests.with_file_name("libbursar.so");
    assert!(library.exists(), "{} is not there", library.display());
    library
}

fn preloaded(program: &str, arguments: &[&str], settings: &str) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .env("LD_PRELOAD", library())
        .env("BURSAR_CONF", settings)
        .output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn call(scenario: &str, settings: &str) -> Output {
    preloaded(env!("CARGO_BIN_EXE_caller"), &[scenario], settings)
}

#[track_caller]
fn succeeds(scenario: &str) -> String {
    succeeds_with(scenario, "")
}

#[track_caller]
fn succeeds_with(scenario: &str, settings: &str) -> String {
    let output = call(scenario, settings);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

/// With settings, and at most so much address space.
#[track_caller]
fn succeeds_within(scenario: &str, settings: &str, limit: Option<u64>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caller"));
    command
        .arg(scenario)
        .env("LD_PRELOAD", library())
        .env("BURSAR_CONF", settings);
    if let Some(limit) = limit {
        let limit = libc::rlimit {
            rlim_cur: limit,
            rlim_max: limit,
        };
        // SAFETY: a system call only between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let title = format!("{scenario} with {settings:?} under {limit:?}");
    assert!(
        output.status.success(),
        "{title}: {}: {said}",
        output.status
    );
}

#[test]
fn blocks_are_what_was_asked_for() {
    succeeds("blocks");
}

#[test]
fn errors_and_edge_cases_are_those_of_glibc() {
    succeeds("edges");
}

#[test]
fn contents_stay_when_blocks_are_resized() {
    succeeds("resizing");
}

#[test]
fn alignments_are_kept_or_refused() {
    succeeds("alignment");
}

#[test]
fn figures_follow_what_is_alive() {
    let said = succeeds("figures");
    assert!(
        said.contains("allocated") && said.contains("size class"),
        "{said}"
    );
}

/// Also with a decay that gives back what is freed at once, and with another thread doing that.
#[test]
fn errno_survives_whatever_a_free_does() {
    for settings in ["", "decay_ms=0", "background,decay_ms=1"] {
        succeeds_within("errno", settings, None);
    }
}

#[test]
fn errno_survives_what_the_kernel_refuses() {
    for settings in ["", "decay_ms=0"] {
        succeeds_within("errno_refused", settings, None);
    }
}

/// From 256 MiB to 64 GiB, each twice the one before.
#[test]
fn limits_on_address_space_are_respected() {
    for power in 0..9 {
        let limit = Some((256 << 20) << power);
        for scenario in ["blocks", "resizing", "alignment"] {
            succeeds_within(scenario, "", limit);
        }
    }
}

/// Every access is watched; the functions are bursar's, not valgrind's.
#[test]
fn memcheck_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        // Not captured with the output of tests that pass.
        let _ = std::fs::write("/dev/stderr", "NOT CHECKED: valgrind is not installed\n");
        return;
    }
    for scenario in ["edges", "errno"] {
        let output = Command::new("timeout")
            .args(["100", "valgrind", "--error-exitcode=99", "--quiet"])
            .arg("--soname-synonyms=somalloc=nouserintercepts")
            .args([env!("CARGO_BIN_EXE_caller"), scenario])
            .env("LD_PRELOAD", library())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
    }
}

#[test]
fn operators_of_cxx_are_there_in_all_forms() {
    succeeds("operators");
}

#[test]
fn blocks_are_freed_with_their_sizes() {
    succeeds("free_sized");
}

#[test]
fn threads_come_and_go() {
    succeeds("threads");
}

#[test]
fn children_of_a_busy_program_allocate() {
    succeeds("forks");
}

#[test]
fn threads_fork_while_others_flush_and_allocate() {
    succeeds("streams");
}

#[test]
fn libraries_are_loaded_and_unloaded() {
    succeeds("libraries");
}

#[track_caller]
fn aborts(scenario: &str, said: &str) {
    aborts_with(scenario, "", said);
}

#[track_caller]
fn aborts_with(scenario: &str, settings: &str, said: &str) {
    let output = call(scenario, settings);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
}

#[test]
fn what_is_no_block_ends_the_process_when_it_is_freed() {
    aborts("free_foreign", "not from this allocator");
    aborts("free_inside", "inside a block");
    aborts("free_small_twice", "already free");
    aborts("free_large_twice", "already free");
}

#[test]
fn the_secure_profile_serves_all_of_it() {
    for scenario in SOUND {
        succeeds_with(scenario, "secure");
    }
}

#[test]
fn the_secure_profile_sees_more() {
    for (scenario, said) in [
        ("free_foreign", "not from this allocator"),
        ("free_inside", "inside a block"),
        ("free_small_twice", "already free"),
        ("free_small_twice_apart", "already free"),
        ("resize_freed", "already free"),
        ("free_large_twice", "already free"),
        ("free_small_as_another", "freed as a block of 300 bytes"),
        ("delete_small_as_another", "freed as a block of 300 bytes"),
        ("delete_large_as_another", "freed as a block of 300 bytes"),
    ] {
        aborts_with(scenario, "secure", said);
    }
}

#[test]
fn new_without_memory_and_without_exceptions_ends_the_process() {
    aborts("refused", "");
}

#[test]
fn settings_count_from_the_first_request() {
    let output = Command::new(env!("CARGO_BIN_EXE_caller"))
        .arg("blocks")
        .env("LD_PRELOAD", library())
        .env("BURSAR_CONF", "stats_at_exit,decay_ms=100,colour=red")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unknown key colour"), "{said}");
    assert!(said.contains("size class"), "{said}");
}

/// A directory of one test, empty.
fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    directory
}

fn told(file: &Path) -> serde_json::Value {
    let text = std::fs::read(file).expect("it was written");
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn figures_are_told_at_exit() {
    let file = directory("exit").join("told");
    let output = call("end", &format!("stats_at_exit=json:{}", file.display()));
    assert_eq!(output.status.code(), Some(7));
    let told = told(&file);
    assert_eq!(told["program"], env!("CARGO_BIN_EXE_caller"));
    let classes = told["stats"]["classes"].as_array().expect("a list");
    let class = classes.iter().find(|class| class["size"] == 14_336);
    let class = class.expect("the class of 14,000 bytes");
    assert_eq!(class["allocated_blocks"], 37);
    assert_eq!(class["requests"], 37);
    assert_eq!(class["allocated_bytes"], 37 * 14_336);
}

#[test]
fn an_exit_amid_requests_is_told_of() {
    for turn in 0..10 {
        let file = directory("amid").join("told");
        let settings = format!("stats_at_exit=json:{}", file.display());
        let output = call("end_in_handler", &settings);
        assert_eq!(output.status.code(), Some(7), "turn {turn}");
        assert!(told(&file)["stats"]["allocated_blocks"].as_u64() > Some(100));
    }
}

/// Each process of a script has the library, and tells of itself.
#[test]
fn each_program_that_a_program_starts_tells_of_itself() {
    let directory = directory("each");
    let setting = format!("stats_at_exit=json:{}", directory.join("%p").display());
    let output = Command::new("sh")
        .args(["-c", "ls / | sort | wc -l; (exit 3)"])
        .env("LD_PRELOAD", library())
        .env("BURSAR_CONF", setting)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stderr.is_empty());
    let files = std::fs::read_dir(&directory).expect("it was made");
    let programs: Vec<String> = files
        .map(|file| told(&file.expect("listed").path())["program"].to_string())
        .collect();
    for name in ["sort\"", "wc\"", "ls\""] {
        let found = programs.iter().any(|program| program.ends_with(name));
        assert!(found, "{name} is not among {programs:?}");
    }
}

#[test]
fn programs_of_the_system_run() {
    // Files that nobody else changes meanwhile.
    let script = "for i in 1 2 3; do echo $i | cat | sort; done; ls -lR src include tests | wc -l";
    let plain = Command::new("sh").args(["-c", script]).output().unwrap();
    let output = preloaded("sh", &["-c", script], "");
    assert!(output.status.success());
    assert_eq!(output.stdout, plain.stdout);
}

#[test]
fn a_rust_program_shares_its_heap_with_c() {
    let output = Command::new(env!("CARGO_BIN_EXE_sharing"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}
