//! Configured pools: `BURSAR_POOLS`, pools in code, where requests go, limits that hold to
//! the byte, routers.

use allocator_tests::process::Scenario;
use bursar::PoolSpec;

fn bare(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_bare"), name)
}

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

fn routed(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_routed"), name)
}

const ONE: &str = "10737418240";
const TWO: &str = "10737418240,2147483648:2097152";
const THREE: &str = "10737418240,2147483648:20971520,1073741824:2097152";

#[test]
fn with_one_pool_small_blocks_keep_a_large_one_out() {
    bare("pools_acceptance")
        .pools(ONE)
        .argument("fails")
        .succeed();
}

#[test]
fn with_two_pools_it_finds_room() {
    bare("pools_acceptance")
        .pools(TWO)
        .argument("succeeds")
        .succeed();
}

fn routes(pools: &str, expected: &str) {
    bare("pools_routes")
        .pools(pools)
        .argument(expected)
        .succeed();
}

#[test]
fn the_examples_route_as_they_say() {
    routes(ONE, "1=0,1024=0,2097152=0,2097153=0,3221225472=0");
    routes(
        TWO,
        "1=1,1024=1,100000=1,2097151=1,2097152=1,2097153=0,3221225472=0",
    );
    routes(
        THREE,
        "1=2,70000=2,2097152=2,2097153=1,20971520=1,20971521=0,1073741824=0",
    );
}

#[test]
fn a_limit_inside_a_size_class_is_kept() {
    routes(
        "33554432:100000,67108864",
        "99000=0,100000=0,100001=1,114688=1,98304=0,99999=0",
    );
    routes(
        "33554432:1500,67108864",
        "1409=0,1500=0,1501=1,1536=1,1408=0,1537=1",
    );
    routes("33554432:1025,67108864", "1024=0,1025=0,1026=1,1152=1,1=0");
    routes(
        "1048576:200001,67108864",
        "200000=0,200001=0,200002=1,229376=1",
    );
    routes(
        "1048576:1024,2097152:2048,67108864:4096",
        "1024=0,1025=1,2048=1,2049=2,4097=none",
    );
}

#[test]
fn equal_limits_go_by_the_order_of_the_string() {
    routes(
        "33554432:4096,33554432:4096,33554432",
        "100=0,4096=0,4097=2",
    );
    routes("33554432,33554432:0", "100=0,50000=0");
}

#[test]
fn a_hundred_and_twenty_eight_pools() {
    let pools: Vec<String> = (0..128)
        .map(|n| format!("1048576:{}", 1024 + n * 700))
        .collect();
    let expected: Vec<String> = (0..128)
        .flat_map(|n| {
            let limit = 1024 + n * 700;
            let above = if n == 127 {
                "none".to_owned()
            } else {
                (n + 1).to_string()
            };
            [format!("{limit}={n}"), format!("{}={above}", limit + 1)]
        })
        .collect();
    routes(&pools.join(","), &expected.join(","));
    let printed = bare("pools_sizes").pools(pools.join(",")).succeed();
    assert_eq!(printed.trim(), pools.join(","));
}

#[test]
fn no_size_is_exceeded_by_a_byte() {
    for size in [
        1024, 1025, 1100, 4095, 4096, 4097, 5000, 12_288, 65_536, 100_000, 131_072, 132_000,
        1_000_000, 16_777_215, 16_777_216, 16_777_217, 16_900_000, 20_971_520, 30_000_001,
    ] {
        bare("pools_fill").pools(size.to_string()).succeed();
    }
}

#[test]
fn limits_hold_under_contention() {
    for pools in [
        "33554432:65536,50331648",
        "1000003:9000,20000001",
        "300000:1024,3000000",
        "16777216:100000,16777216",
    ] {
        bare("pools_crowd").pools(pools).succeed();
    }
}

#[test]
fn what_finds_no_room_falls_through_and_comes_back() {
    for request in ["64", "1000", "3000", "20000", "150000", "1000000"] {
        bare("pools_fall")
            .pools("33554432:1048576,134217728")
            .argument("loose")
            .argument(request)
            .succeed();
    }
    bare("pools_fall")
        .pools("65536:2048,1048576")
        .argument("loose")
        .argument(100)
        .succeed();
}

#[test]
fn strict_pools_refuse() {
    for request in ["64", "3000", "150000", "1000000"] {
        bare("pools_fall")
            .pools("33554432:1048576,134217728")
            .settings("strict_pools")
            .argument("strict")
            .argument(request)
            .succeed();
    }
}

#[test]
fn blocks_that_grow_beyond_a_limit_move() {
    bare("pools_resize")
        .pools("1048576:100000,1073741824")
        .succeed();
}

#[test]
fn memory_of_pools_goes_back() {
    for how in ["now", "later"] {
        let pools = "134217728:65536,268435456";
        bare("pools_purge")
            .pools(pools)
            .settings("decay_ms=200")
            .argument(how)
            .succeed();
    }
}

#[test]
fn whole_programs_run_in_pools() {
    child("work").pools("1073741824").succeed();
    child("work").pools("268435456:4096,1073741824").succeed();
    child("work")
        .pools("4096:1024,65536:2048,1048576:8192,1073741824")
        .succeed();
    child("fork_busy")
        .pools("268435456:4096,1073741824")
        .succeed();
}

/// Nothing allocates inside, with pools in which requests fall through.
#[test]
fn nothing_allocates_inside() {
    let guarded = |name: &str| {
        Scenario::new(env!("CARGO_BIN_EXE_guarded"), name).pools("4096,1048576:1024,1073741824")
    };
    guarded("interface").succeed();
    guarded("snapshots").succeed();
    guarded("remote_frees").succeed();
    guarded("fork_quiet").succeed();
}

#[test]
fn address_space_may_be_limited() {
    use nix::sys::resource::Resource::RLIMIT_AS;
    child("use")
        .pools("67108864:4096,134217728")
        .limit(RLIMIT_AS, 512 << 20)
        .succeed();
    let output = child("use").pools(TWO).limit(RLIMIT_AS, 512 << 20).run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert_eq!(
        said.lines().next(),
        Some("bursar: pool 1: no address space for a pool of 10737418240 bytes (errno 12)")
    );
}

#[test]
fn the_environment_goes_before_the_code() {
    let pooled = |name: &str| Scenario::new(env!("CARGO_BIN_EXE_pooled"), name);
    let in_code = pooled("pools_sizes").succeed();
    assert_eq!(in_code.trim(), "1073741824:0,268435456:65536");
    let replaced = pooled("pools_sizes")
        .pools("536870912,33554432:1024")
        .succeed();
    assert_eq!(replaced.trim(), "536870912:0,33554432:1024");
}

#[test]
fn backings_go_with_the_pools_of_either() {
    let pooled = |name: &str| Scenario::new(env!("CARGO_BIN_EXE_pooled"), name);
    let printed = pooled("pools_backings").succeed();
    assert!(
        printed.starts_with("memory, transparent huge;"),
        "{printed}"
    );
    let printed = pooled("pools_backings")
        .pools("33554432,33554432,33554432")
        .succeed();
    assert!(
        printed.starts_with("memory, transparent huge, memory;"),
        "{printed}"
    );
}

#[test]
fn a_backing_that_cannot_be_had_ends_the_process() {
    let output = Scenario::new(env!("CARGO_BIN_EXE_huge"), "").run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    assert!(
        said.starts_with(
            "bursar: pool 2: too few huge pages are set aside for a pool of 274810798080 bytes (errno "
        ),
        "{said}"
    );
}

/// A program that runs with more rights than its caller does not heed the caller's environment.
#[test]
fn setuid_programs_ignore_the_environment() {
    use std::os::unix::fs::PermissionsExt;
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let copy = folder.join(format!("setuid-{}", std::process::id()));
    // Not by this process: a child that another test forks meanwhile would have the copy open for
    // writing, and a program that is being written cannot be run.
    let copied = std::process::Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_pooled"))
        .arg(&copy)
        .status();
    assert!(copied.expect("there is cp").success());
    let nobody = std::os::unix::fs::chown(&copy, Some(65_534), None);
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o4755)).expect("it is ours");
    let program = copy.to_str().expect("text");
    let secure = Scenario::new(program, "pools_backings").run();
    let printed = String::from_utf8_lossy(&secure.stdout);
    if nobody.is_ok() && printed.trim().ends_with("secure: true") {
        let printed = Scenario::new(program, "pools_sizes")
            .pools("536870912")
            .succeed();
        assert_eq!(printed.trim(), "1073741824:0,268435456:65536");
        Scenario::new(program, "pools_sizes")
            .pools("no pools")
            .succeed();
    } else {
        eprintln!("skipped: programs cannot be made setuid here");
    }
    std::fs::remove_file(&copy).expect("it is ours");
}

/// System calls fail under pools as they do without.
#[test]
fn refused_system_calls_are_survived() {
    for (call, rules) in [
        ("commit", &[("nth", 3), ("every", 2), ("from", 5)][..]),
        ("purge", &[("every", 2), ("from", 1)]),
        ("remap", &[("every", 2), ("from", 1)]),
        ("metadata", &[("every", 3), ("from", 3)]),
    ] {
        for (rule, number) in rules {
            bare("fault")
                .pools("16777217:5000,2000000:700000,402653184")
                .argument(call)
                .argument(rule)
                .argument(number)
                .argument("warm")
                .settings("decay_ms=5")
                .succeed();
        }
    }
}

#[test]
fn a_program_without_pools_has_the_growing_one() {
    let printed = child("pools_sizes").succeed();
    assert!(printed.trim().ends_with(":0"), "{printed}");
    assert!(!printed.contains(','), "{printed}");
}

/// The first allocation ends the process, with what the parser says.
#[test]
fn a_bad_text_ends_the_process() {
    let long = "1048576,".repeat(128) + "1048576";
    for bad in [
        "",
        " ",
        "1023",
        "1024,",
        ",1024",
        "1024:",
        "x",
        "-1",
        "1e9",
        "1024 ,1024",
        "99999999999999999999",
        "274877906945",
        "274877906944,1024",
        "1024:1023",
        "2048:1023",
        "2048:2049",
        "4294967296:2147483649",
        "1024:1024:1024",
        &long,
    ] {
        let fault = PoolSpec::parse(bad).expect_err(bad);
        let output = child("use").pools(bad).run();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{bad}");
        assert_eq!(
            said.trim_end(),
            format!("bursar: BURSAR_POOLS: {fault}"),
            "{bad}"
        );
        assert!(output.stdout.is_empty(), "{bad}");
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let output = child("use")
        .pools(std::ffi::OsStr::from_bytes(b"1024\xff"))
        .run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.starts_with("bursar: BURSAR_POOLS: the size of pool 1, at byte 0"),
        "{said}"
    );
}

#[test]
fn the_ranges_hold_at_their_edges() {
    let sizes = |pools: &str| child("pools_sizes").pools(pools).run();
    for good in [
        "274877906944:2147483648",
        "274877905920,1024:1024",
        "17179869184:2147483648",
    ] {
        let output = sizes(good);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{good}: {output:?}");
        assert_eq!(printed.trim().replace(":0", ""), good);
    }
}

#[test]
fn a_router_of_the_programs_own_is_asked() {
    routed("router_aligned").succeed();
    routed("router_owner").succeed();
    routed("router_refuses").succeed();
    routed("work").succeed();
    routed("fork_busy").succeed();
}

#[test]
fn no_router_is_asked_while_a_run_is_at_hand() {
    routed("router_quiet").succeed();
}

#[test]
fn a_router_that_allocates_is_served_by_the_default_one() {
    routed("router_allocates").succeed();
}

#[test]
fn a_router_that_panics_ends_the_process() {
    let output = routed("router_panics").run();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "it went on");
    assert!(said.contains("this router has had enough"), "{said}");
    assert!(
        said.ends_with(
            "bursar: the router of pools panicked; a request for memory cannot unwind\n"
        ),
        "{said}"
    );
}
