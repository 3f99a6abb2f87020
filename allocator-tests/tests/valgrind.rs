//! Under valgrind, which refuses large reservations and watches every access.

use std::process::Command;

use allocator_tests::scenarios::scaled;

/// Runs a scenario of a helper under memcheck, which must find nothing.
fn memcheck(program: &str, arguments: &[&str]) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        // Not captured with the output of tests that pass.
        let _ = std::fs::write("/dev/stderr", "NOT CHECKED: valgrind is not installed\n");
        return;
    }
    let output = Command::new("timeout")
        .args(["100", "valgrind", "--error-exitcode=99", "--quiet"])
        .arg(program)
        .args(arguments)
        .env_remove("BURSAR_POOLS")
        .env("BURSAR_CONF", "decay_ms=50")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(!said.contains("=="), "{said}");
}

#[test]
fn a_stress_of_the_allocator_alone() {
    let operations = scaled(200_000, 30_000).to_string();
    let stress = env!("CARGO_BIN_EXE_stress");
    memcheck(
        stress,
        &["--ops", &operations, "--threads", "2", "--seed", "1"],
    );
}

#[test]
fn a_program_on_the_allocator() {
    memcheck(env!("CARGO_BIN_EXE_child"), &["before_main"]);
    memcheck(env!("CARGO_BIN_EXE_child"), &["at_exit"]);
}
