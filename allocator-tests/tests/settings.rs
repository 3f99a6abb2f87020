//! `BURSAR_CONF`, settings in code, and whether bursar is installed.

use allocator_tests::process::Scenario;

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

/// What a program with these settings says on its standard error; it must
/// come to its end whatever they are.
fn said(settings: &str) -> String {
    let output = child("use").settings(settings).run();
    assert!(output.status.success(), "{settings}: {}", output.status);
    assert_eq!(output.stdout, b"1000 names, installed: true\n");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn settings_that_are_understood_are_not_remarked_upon() {
    for settings in [
        "",
        "decay_ms=200",
        "background",
        "huge_pages",
        "junk",
        "secure",
        "decay_ms=0",
        "region=1073741824",
    ] {
        assert_eq!(said(settings), "", "{settings}");
    }
    assert_eq!(
        said("decay_ms=200,background,huge_pages,junk,region=1073741824"),
        ""
    );
}

#[test]
fn an_unknown_key_is_reported_in_one_line_with_what_is_accepted() {
    let said = said("colour=7");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("bursar"), "{said}");
    assert!(said.contains("unknown key colour"), "{said}");
    for key in [
        "decay_ms",
        "background",
        "huge_pages",
        "stats_at_exit",
        "junk",
        "region",
    ] {
        assert!(said.contains(key), "{key} is accepted, but not in: {said}");
    }
}

#[test]
fn a_bad_value_is_reported_in_one_line_with_the_accepted_form() {
    let bad = [
        "decay_ms=fast",
        "decay_ms",
        "decay_ms=",
        "decay_ms=-1",
        "region=big",
        "region=99999999999999999999",
    ];
    for settings in bad {
        let said = said(settings);
        assert_eq!(said.lines().count(), 1, "{settings}: {said}");
        let key = settings.split('=').next().unwrap_or_default();
        assert!(
            said.starts_with("bursar") && said.contains(&format!("{key}=")),
            "{settings}: {said}"
        );
    }
}

#[test]
fn what_is_right_beside_what_is_wrong_is_heeded() {
    let said = said("nonsense=1,stats_at_exit");
    assert!(
        said.lines()
            .next()
            .is_some_and(|line| line.contains("nonsense")),
        "{said}"
    );
    assert!(said.lines().count() > 5, "the table follows: {said}");
}

#[test]
fn the_default_stands_where_a_value_is_bad() {
    let reserved = |settings: &str| child("reserved").settings(settings).succeed();
    assert_eq!(reserved("region=big"), reserved(""));
    assert_ne!(reserved("region=1073741824"), reserved(""));
}

#[test]
fn settings_that_are_not_text_are_survived() {
    use std::os::unix::ffi::OsStrExt;
    let settings = std::ffi::OsStr::from_bytes(b"\xff\xfe=\x80,decay_ms=5");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_child"))
        .arg("use")
        .env("BURSAR_CONF", settings)
        .output()
        .expect("the helper starts");
    assert!(output.status.success(), "{}", output.status);
    assert!(!output.stderr.is_empty(), "it is remarked upon");
}

#[test]
fn statistics_are_printed_at_exit_only_when_asked_for() {
    let table = said("stats_at_exit");
    assert!(table.contains("allocated"), "{table}");
    assert!(table.lines().count() > 5, "{table}");
    let configured = Scenario::new(env!("CARGO_BIN_EXE_configured"), "use").run();
    assert!(configured.status.success(), "{}", configured.status);
    let table = String::from_utf8_lossy(&configured.stderr);
    assert!(table.contains("allocated"), "set in code: {table}");
}

#[test]
fn a_report_says_where_bursar_is_not_installed() {
    let bare = Scenario::new(env!("CARGO_BIN_EXE_bare"), "junk")
        .settings("stats_at_exit")
        .run();
    let said = String::from_utf8_lossy(&bare.stderr);
    assert!(
        bare.status.success() && said.contains("not installed"),
        "{said}"
    );
    let table = self::said("stats_at_exit");
    assert!(!table.contains("not installed"), "{table}");
}

#[test]
fn freed_blocks_are_overwritten_with_junk_when_asked_for() {
    let stale = |printed: &str| -> Vec<u32> {
        printed
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok())
            .collect()
    };
    let plain = stale(&child("junk").succeed());
    assert!(
        plain[0] > 3 && plain[1] > 0,
        "without junk, what comes again is stale: {plain:?}"
    );
    let junk = stale(&child("junk").settings("junk").succeed());
    assert!(
        junk[0] > 3 && junk[1] == 0,
        "with junk, nothing is: {junk:?}"
    );
    let configured = stale(&Scenario::new(env!("CARGO_BIN_EXE_configured"), "junk").succeed());
    assert!(
        configured[0] > 3 && configured[1] == 0,
        "set in code: {configured:?}"
    );
}

#[test]
fn a_thread_purges_only_when_asked_for() {
    assert_eq!(child("background").succeed(), "1000 names, 1 threads\n");
    assert_eq!(
        child("background").settings("background").succeed(),
        "1000 names, 2 threads\n"
    );
}

#[test]
fn a_program_and_its_forked_child_each_start_the_purging_thread_once() {
    child("start_background").succeed();
}

#[test]
fn a_program_can_tell_whether_bursar_is_installed() {
    let bare = Scenario::new(env!("CARGO_BIN_EXE_bare"), "use").succeed();
    assert_eq!(bare, "1000 names, installed: false\n");
    let child = child("use").succeed();
    assert_eq!(child, "1000 names, installed: true\n");
    let guarded = Scenario::new(env!("CARGO_BIN_EXE_guarded"), "use").succeed();
    assert_eq!(guarded, "1000 names, installed: true\n");
}
