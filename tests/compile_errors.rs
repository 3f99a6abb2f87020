//! What the compiler says of a program whose pools are no specification.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Checks a program with this allocator; what the compiler says, and whether it took it.
fn check(name: &str, allocator: &str) -> (bool, String) {
    let library = env!("CARGO_MANIFEST_DIR");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\nbursar = {{ path = {library:?}, default-features = false }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    fs::copy(
        Path::new(library).join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )
    .unwrap();
    let program = format!(
        "#[global_allocator]\nstatic GLOBAL: bursar::Bursar = {allocator};\nfn main() {{}}\n"
    );
    fs::write(folder.join("src/main.rs"), program).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--target-dir"])
        .arg(folder.with_file_name("compile_errors"))
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn a_bad_specification_is_an_error_that_says_what_is_wrong() {
    let (is_taken, said) = check("good_pools", r#"bursar::Bursar::with_pools("8192:8192")"#);
    assert!(is_taken, "{said}");
    for (name, pools, expected) in [
        (
            "bad_limit",
            "8192:9000",
            "the limit of pool 1, at byte 5, is 9000: expected 0 for none, or 1024 to 8192",
        ),
        (
            "bad_size",
            "8192,1 GiB",
            "the size of pool 2, at byte 5, is \"1 GiB\": expected 1024 to 274877906944",
        ),
    ] {
        let (is_taken, said) = check(name, &format!("bursar::Bursar::with_pools({pools:?})"));
        assert!(!is_taken, "{pools}");
        assert!(said.contains(expected), "{said}");
        assert!(
            said.contains("src/main.rs:2"),
            "where it stands, too: {said}"
        );
    }
}
