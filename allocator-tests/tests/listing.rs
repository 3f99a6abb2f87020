//! The instructions of the fast paths against a listing that was read and found good. A change
//! that makes a fast path longer is a failing diff here; one that is meant goes into
//! `golden/fast_paths.txt` with `BURSAR_BLESS=1 cargo test --release -p allocator-tests --test
//! listing`.
//!
//! The listing holds for one compiler version on x86-64 with optimisation; elsewhere there is
//! nothing to compare, and the test says so.

use std::fmt::Write as _;
use std::process::Command;

/// The last one is what `listed_free_any` jumps to.
const FUNCTIONS: [&str; 4] = [
    "<listed_allocate_64>:",
    "<listed_free_64>:",
    "<listed_allocate_any>:",
    "<<bursar::facade::Bursar as core::alloc::global::GlobalAlloc>::dealloc",
];

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// One instruction without what the linker decides: addresses, offsets in thread-local storage.
fn normalised(line: &str) -> Option<String> {
    let instruction = line.split_once(":\t")?.1;
    let instruction = instruction.split('#').next()?.trim_end();
    let mut words: Vec<String> = Vec::new();
    for word in instruction.split_whitespace() {
        let word = match (word.find("fs:0x"), word.find(",0xffffffffffffff")) {
            (Some(at), _) => format!("{}fs:TLS", &word[..at]),
            (_, Some(at)) => format!("{},TLS", &word[..at]),
            _ => word.to_string(),
        };
        // A jump: the target is said again, by name, in the next word.
        let is_address = word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_address {
            words.push(match (word.find("[rip+"), word.find("::h")) {
                (Some(at), _) => format!("{}[rip+...]", &word[..at]),
                (_, Some(at)) => format!("{}>", &word[..at]),
                _ => word,
            });
        }
    }
    Some(words.join(" "))
}

fn listing() -> String {
    let program = env!("CARGO_BIN_EXE_fast_paths");
    let flags = ["-d", "-C", "--no-show-raw-insn", "-M", "intel", program];
    let all = run(Command::new("objdump").args(flags));
    let mut text = String::new();
    for function in FUNCTIONS {
        writeln!(text, "\n{function}").unwrap();
        let head = format!(" {function}");
        let body = all
            .lines()
            .skip_while(|line| !line.ends_with(">:") || !line.contains(&head));
        let instructions: Vec<String> = body
            .skip(1)
            .take_while(|line| !line.is_empty())
            .filter_map(normalised)
            .collect();
        assert!(!instructions.is_empty(), "{function} is not in the program");
        instructions
            .iter()
            .for_each(|line| writeln!(text, "    {line}").unwrap());
    }
    text
}

#[test]
fn fast_paths_are_as_short_as_they_were() {
    if cfg!(debug_assertions) || !cfg!(target_arch = "x86_64") {
        println!("nothing to compare: the listing is of an optimised x86-64 build");
        return;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/fast_paths.txt");
    let compiler = run(Command::new("rustc").arg("--version"));
    let found = format!("{compiler}{}", listing());
    if std::env::var_os("BURSAR_BLESS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    if golden.lines().next() != found.lines().next() {
        println!(
            "nothing to compare: the listing is of {}",
            golden.lines().next().unwrap()
        );
        return;
    }
    let (golden, found): (Vec<_>, Vec<_>) = (golden.lines().collect(), found.lines().collect());
    assert_eq!(golden, found, "the fast paths have changed");
}
