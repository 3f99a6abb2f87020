//! Every range of a specification at its edges, every error text, and the way back to the string.

use super::spec::{MOST_POOLS, PoolConfig, PoolSpec};
use super::spec_error::{PoolField, PoolSpecError, PoolValue};
use proptest::prelude::*;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn pools(text: &str) -> Vec<(u64, Option<u64>)> {
    let spec = PoolSpec::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    spec.pools().map(|pool| (pool.size, pool.limit)).collect()
}

fn fault(text: &str) -> PoolSpecError {
    match PoolSpec::parse(text) {
        Err(fault) => fault,
        Ok(spec) => panic!("{text:?} gives {spec:?}"),
    }
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(fault(text).to_string(), expected, "{text:?}");
}

#[test]
fn the_examples_are_read() {
    assert_eq!(pools("10737418240"), [(10 * GIB, None)]);
    assert_eq!(
        pools("10737418240,2147483648:2097152"),
        [(10 * GIB, None), (2 * GIB, Some(2 * MIB))]
    );
    assert_eq!(
        pools("10737418240,2147483648:20971520,1073741824:2097152"),
        [
            (10 * GIB, None),
            (2 * GIB, Some(20 * MIB)),
            (GIB, Some(2 * MIB))
        ]
    );
    assert_eq!(PoolSpec::default(), PoolSpec::must_parse("10737418240"));
}

#[test]
fn the_examples_are_routed() {
    let two = PoolSpec::must_parse("10737418240,2147483648:2097152");
    assert_eq!(two.route(1), [1, 0]);
    assert_eq!(two.route(2 * MIB), [1, 0]);
    assert_eq!(two.route(2 * MIB + 1), [0]);
    let three = PoolSpec::must_parse("10737418240,2147483648:20971520,1073741824:2097152");
    assert_eq!(three.route(2 * MIB), [2, 1, 0]);
    assert_eq!(three.route(2 * MIB + 1), [1, 0]);
    assert_eq!(three.route(20 * MIB), [1, 0]);
    assert_eq!(three.route(20 * MIB + 1), [0]);
    assert_eq!(three.route(u64::MAX), [0]);
}

#[test]
fn equal_limits_keep_the_order_of_the_string() {
    let spec = PoolSpec::must_parse("4096,8192:2048,4096:0,2048:1024,9000:2048,1024:1024");
    assert_eq!(spec.order(), [3, 5, 1, 4, 0, 2]);
    assert_eq!(spec.route(1025), [1, 4, 0, 2]);
    let only_limited = PoolSpec::must_parse("4096:1024");
    assert_eq!(only_limited.route(1024), [0]);
    assert_eq!(only_limited.route(1025), [0; 0]);
}

#[test]
fn sizes_at_their_edges() {
    assert_eq!(pools("1024"), [(1024, None)]);
    assert_eq!(pools("274877906944"), [(256 * GIB, None)]);
    assert_eq!(pools("00001024:0001024"), [(1024, Some(1024))]);
    for (text, value) in [
        ("1023", "1023"),
        ("0", "0"),
        ("274877906945", "274877906945"),
    ] {
        let expected = format!(
            "the size of pool 1, at byte 0, is {value}: expected 1024 to 274877906944 (bytes)"
        );
        refused(text, &expected);
    }
    refused(
        "1024,18446744073709551615:0",
        "the size of pool 2, at byte 5, is 18446744073709551615: expected 1024 to 274877906944 \
         (bytes)",
    );
    refused(
        "18446744073709551616",
        "the size of pool 1, at byte 0, is \"18446744073709551616\": expected 1024 to 274877906944 \
         (bytes)",
    );
}

#[test]
fn limits_at_their_edges() {
    assert_eq!(pools("4096:0"), [(4096, None)]);
    assert_eq!(pools("4096:1024"), [(4096, Some(1024))]);
    assert_eq!(pools("4096:4096"), [(4096, Some(4096))]);
    assert_eq!(pools("2147483648:2147483648"), [(2 * GIB, Some(2 * GIB))]);
    assert_eq!(pools("4294967296:2147483648"), [(4 * GIB, Some(2 * GIB))]);
    for (limit, most) in [
        ("1", 4096),
        ("1023", 4096),
        ("4097", 4096),
        ("2147483649", 4096),
    ] {
        let expected = format!(
            "the limit of pool 1, at byte 5, is {limit}: expected 0 for none, or 1024 to {most} \
             (bytes, at most 2147483648 and at most the size of the pool)"
        );
        refused(&format!("4096:{limit}"), &expected);
    }
    refused(
        "1024,4294967296:2147483649",
        "the limit of pool 2, at byte 16, is 2147483649: expected 0 for none, or 1024 to \
         2147483648 (bytes, at most 2147483648 and at most the size of the pool)",
    );
}

#[test]
fn the_sum_at_its_edge() {
    assert_eq!(pools("274877905920,1024").len(), 2);
    refused(
        "274877905920,1025",
        "the sum of all sizes, up to pool 2, at byte 13, is 274877906945: expected 1024 to \
         274877906944 (bytes)",
    );
    let most = ["274877906944"; 3].join(",");
    assert_eq!(fault(&most).field, PoolField::Sum { pool: 1 });
    assert_eq!(fault(&most).value, PoolValue::Number(512 * GIB));
}

#[test]
fn the_number_of_pools_at_its_edges() {
    let most = ["2048:1024"; MOST_POOLS].join(",");
    assert_eq!(pools(&most), [(2048, Some(1024)); MOST_POOLS]);
    let spec = PoolSpec::must_parse(&most);
    assert!(spec.order().iter().copied().eq(0..MOST_POOLS as u8));
    assert_eq!(spec.total_bytes(), 2048 * 128);
    refused(
        &["1024"; MOST_POOLS + 2].join(","),
        "the number of pools, at byte 640, is 130: expected 1 to 128, written \
         SIZE[:LIMIT](,SIZE[:LIMIT])*",
    );
    refused(
        "",
        "the number of pools, at byte 0, is \"\": expected 1 to 128, written \
         SIZE[:LIMIT](,SIZE[:LIMIT])*",
    );
}

#[test]
fn nothing_but_digits_is_a_number() {
    for text in [
        " ", " 1024", "1024 ", "+1024", "-1024", "1_024", "0x400", "1e4", "1024B", "x",
    ] {
        refused(
            text,
            &format!(
                "the size of pool 1, at byte 0, is \"{text}\": expected 1024 to 274877906944 (bytes)"
            ),
        );
        refused(
            &format!("9999:{text}"),
            &format!(
                "the limit of pool 1, at byte 5, is \"{text}\": expected 0 for none, or 1024 to \
                 9999 (bytes, at most 2147483648 and at most the size of the pool)"
            ),
        );
    }
}

#[test]
fn empty_and_surplus_fields_are_refused() {
    for (text, field, position, value) in [
        (",", PoolField::Size { pool: 0 }, 0, ""),
        (":", PoolField::Size { pool: 0 }, 0, ""),
        (":1024", PoolField::Size { pool: 0 }, 0, ""),
        (",1024", PoolField::Size { pool: 0 }, 0, ""),
        ("1024,", PoolField::Size { pool: 1 }, 5, ""),
        ("1024,,1024", PoolField::Size { pool: 1 }, 5, ""),
        (
            "1024:",
            PoolField::Limit {
                pool: 0,
                size: 1024,
            },
            5,
            "",
        ),
        (
            "1024:,1024",
            PoolField::Limit {
                pool: 0,
                size: 1024,
            },
            5,
            "",
        ),
        (
            "1024:0:0",
            PoolField::Limit {
                pool: 0,
                size: 1024,
            },
            5,
            "0:0",
        ),
        ("2048,1024\0", PoolField::Size { pool: 1 }, 5, "1024?"),
        ("１", PoolField::Size { pool: 0 }, 0, "???"),
    ] {
        let fault = fault(text);
        assert_eq!((fault.field, fault.position), (field, position), "{text:?}");
        let PoolValue::Text(excerpt) = fault.value else {
            panic!("{text:?}: {fault:?}");
        };
        assert_eq!((excerpt.as_str(), excerpt.is_cut()), (value, false));
    }
}

#[test]
fn a_long_value_is_cut() {
    let PoolValue::Text(excerpt) = fault(&"9".repeat(41)).value else {
        panic!("41 digits are no 64-bit number");
    };
    assert_eq!(
        (excerpt.as_str(), excerpt.is_cut()),
        (&*"9".repeat(40), true)
    );
    assert!(fault(&"9".repeat(4000)).to_string().contains("999...\""));
    let PoolValue::Text(excerpt) = fault(&"9".repeat(40)).value else {
        panic!("40 digits are no 64-bit number");
    };
    assert!(!excerpt.is_cut());
}

#[test]
fn the_longest_text_has_room() {
    let pools = ["1024"; MOST_POOLS - 1].join(",");
    let text = format!("{pools},2147483648:{}", "x".repeat(99));
    assert!(fault(&text).to_string().ends_with("size of the pool)"));
}

#[test]
fn what_is_no_text_is_refused() {
    let fault = PoolSpec::parse_bytes(b"10\xff24").unwrap_err();
    assert!(fault.to_string().contains("is \"10?24\""), "{fault}");
}

/// All of it at compile time.
const SPEC: PoolSpec = PoolSpec::must_parse("10737418240,2147483648:2097152");
const SECOND: Option<PoolConfig> = SPEC.get(1);
const ROUTE: &[u8] = SPEC.route(1024);
const REFUSED: PoolSpecError = match PoolSpec::parse("1024:1") {
    Err(fault) => fault,
    Ok(_) => panic!("a limit of 1 is refused"),
};

#[test]
fn compile_time_gives_what_run_time_gives() {
    let text = std::hint::black_box("10737418240,2147483648:2097152");
    let spec = PoolSpec::parse(text).unwrap();
    assert_eq!(SPEC, spec);
    assert_eq!(SECOND, spec.get(1));
    assert_eq!(ROUTE, spec.route(1024));
    assert_eq!(REFUSED, fault(std::hint::black_box("1024:1")));
    assert_eq!(SPEC.get(2), None);
}

#[test]
#[should_panic(expected = "the size of pool 1, at byte 0, is 1000: expected 1024 to 274877906944")]
fn must_parse_panics_with_the_text() {
    PoolSpec::must_parse(std::hint::black_box("1000"));
}

/// Sizes and limits that are allowed, 0 for no limit.
fn allowed() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let size = prop_oneof![1024..=4096_u64, 1024..=2 * GIB];
    let limit = prop_oneof![Just(0), Just(1024), 1024..=2 * GIB];
    let pool = (size, limit).prop_map(|(size, limit)| (size, limit.min(size)));
    proptest::collection::vec(pool, 1..=MOST_POOLS)
}

fn written(pools: &[(u64, u64)]) -> String {
    let one = |&(size, limit): &(u64, u64)| match limit {
        0 => size.to_string(),
        limit => format!("{size}:{limit}"),
    };
    pools.iter().map(one).collect::<Vec<_>>().join(",")
}

proptest! {
    #[test]
    fn the_string_comes_back(allowed in allowed()) {
        let text = written(&allowed);
        let spec = PoolSpec::parse(&text).unwrap();
        prop_assert_eq!(spec.to_string(), text);
        prop_assert_eq!(spec.total_bytes(), allowed.iter().map(|pool| pool.0).sum::<u64>());
    }

    #[test]
    fn routes_are_the_admitting_pools_by_limit(allowed in allowed(), bytes in 1..3 * GIB) {
        let spec = PoolSpec::parse(&written(&allowed)).unwrap();
        let admits = |pool: &usize| spec.get(*pool).unwrap().admits(bytes);
        let mut expected: Vec<usize> = (0..spec.len()).filter(admits).collect();
        expected.sort_by_key(|&pool| spec.get(pool).unwrap().limit.unwrap_or(u64::MAX));
        let route: Vec<usize> = spec.route(bytes).iter().map(|&pool| pool.into()).collect();
        prop_assert_eq!(route, expected);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9:,x ]{0,40}|.{0,60}") {
        match PoolSpec::parse(&text) {
            Ok(spec) => prop_assert_eq!(PoolSpec::parse(&spec.to_string()).unwrap(), spec),
            Err(fault) => prop_assert!(fault.position <= text.len()),
        }
    }
}
