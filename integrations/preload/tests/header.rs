//! `include/bursar.h` declares what the library has, and a program in C can use it. `BURSAR_BLESS=1`
//! writes it anew.

use cbindgen::{Builder, Config, Language, RenameRule};
use std::path::Path;
use std::process::Command;

const HEAD: &str =
    "/* libbursar.so: accounts of the heap for C. The malloc family is declared where
 * C and POSIX have it. */";

/// The header that follows from the sources.
fn generated(package: &Path) -> String {
    let mut config = Config {
        language: Language::C,
        cpp_compat: true,
        pragma_once: true,
        documentation: true,
        usize_is_size_t: true,
        header: Some(HEAD.to_owned()),
        style: cbindgen::Style::Both,
        ..Config::default()
    };
    config.function.args = cbindgen::Layout::Auto;
    config.enumeration.rename_variants = RenameRule::None;
    for (ours, theirs) in [
        ("Consumer", "bursar_consumer"),
        ("Scope", "bursar_scope"),
        ("SharedBudget", "bursar_budget"),
        ("Reservation", "bursar_reservation"),
        ("Task", "bursar_task"),
        ("Usage", "bursar_usage"),
        ("EndHook", "bursar_end_hook"),
        ("Release", "bursar_release"),
        ("Work", "bursar_work"),
    ] {
        config
            .export
            .rename
            .insert(ours.to_owned(), theirs.to_owned());
    }
    let mut builder = Builder::new().with_config(config);
    for file in ["accounts.rs", "tasks.rs"] {
        builder = builder.with_src(package.join("src").join(file));
    }
    let mut text = Vec::new();
    builder
        .generate()
        .expect("the sources are read")
        .write(&mut text);
    String::from_utf8(text).expect("it is text")
}

#[test]
fn the_header_is_what_the_sources_say() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = package.join("include/bursar.h");
    let generated = generated(package);
    if std::env::var_os("BURSAR_BLESS").is_some() {
        std::fs::write(&path, &generated).expect("it can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, generated, "run this test with BURSAR_BLESS=1");
}

/// `cc` compiles `accounts.c` without a warning, and it finds everything as it should be.
#[test]
fn a_program_in_c_uses_the_accounts() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = std::env::current_exe().expect("a test is a file");
    let libraries = tests.parent().expect("it is in a directory");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("accounts");
    let built = Command::new("cc")
        .args([
            "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", "-g", "-I",
        ])
        .arg(package.join("include"))
        .arg(package.join("tests/accounts.c"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(libraries)
        .args(["-lbursar", "-Wl,-rpath"])
        .arg(libraries)
        .output()
        .expect("a C compiler is there");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let run = Command::new(&program).output().expect("it was built");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}: {said}", run.status);
    assert_eq!(run.stdout, b"all well\n");
}
