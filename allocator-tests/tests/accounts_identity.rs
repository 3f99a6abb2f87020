//! Who a consumer is: ids, names, the tree; and how many there may be.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::thread;

use allocator_tests::charges::{boxes, held, listed, listed_still};
use allocator_tests::process::Scenario;
use bursar::{Bursar, Consumer};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new();

fn child(name: &str) -> Scenario {
    Scenario::new(env!("CARGO_BIN_EXE_child"), name)
}

#[test]
fn ids_ascend_from_0_and_are_never_given_twice() {
    child("consumer_ids").succeed();
}

#[test]
fn hundreds_of_thousands_of_consumers_use_slots_again() {
    print!("{}", child("many_consumers").succeed());
}

#[test]
fn consumers_that_a_pool_of_threads_serves_leave_nothing() {
    let printed = child("consumers_of_a_pool")
        .settings("decay_ms=20")
        .succeed();
    print!("{printed}");
}

#[test]
fn consumers_that_a_pool_of_threads_serves_leave_nothing_without_decay() {
    let printed = child("consumers_of_a_pool")
        .settings("decay_ms=never")
        .succeed();
    print!("{printed}");
}

#[test]
fn consumers_that_follow_each_other_take_turns_in_few_slots() {
    print!("{}", child("slots_in_turn").succeed());
}

#[test]
fn the_parts_are_exactly_the_heap() {
    child("consumer_sums").succeed();
}

#[test]
fn two_consumers_of_a_name_are_two() {
    let [one, two] = ["scan"; 2].map(Consumer::new);
    assert_ne!(one, two);
    assert_ne!(one.id(), two.id());
    assert_eq!((one.name(), two.name()), ("scan", "scan"));
    let clone = one.clone();
    assert_eq!(clone, one);
    assert_eq!(clone.id(), one.id());
    let block = clone.run(|| black_box(Box::new(5)));
    assert_eq!((held(&one), held(&two)), (boxes::<i32>(1), [0, 0]));
    drop(block);
    let set: HashSet<Consumer> = [one.clone(), two.clone(), clone, two].into();
    assert_eq!(set.len(), 2);
    let map: HashMap<&Consumer, u8> = [(&one, 1)].into();
    assert_eq!(map.get(&one.clone()), Some(&1));
}

#[test]
fn a_clone_with_a_new_id_is_another_consumer_of_the_same_kind() {
    let parent = Consumer::new("parent");
    let one = parent.child("child").with_can_spill(true);
    let two = one.clone_with_new_id();
    assert_ne!(one, two);
    assert!(two.id() > one.id());
    assert_eq!(
        (two.name(), two.can_spill(), two.parent()),
        ("child", true, Some(parent))
    );
    assert!(!one.with_can_spill(false).can_spill());
    assert!(two.can_spill(), "theirs are apart");
}

#[test]
fn names_are_text_of_any_kind() {
    for name in ["", " ", "größer\n→ 𝔸", &"x".repeat(100_000)] {
        let consumer = Consumer::new(name);
        assert_eq!(consumer.name(), name);
        let listed = listed(consumer.id()).expect("a handle");
        assert_eq!(&*listed.name, name);
    }
    let consumer = Consumer::new(String::from("owned"));
    let text = format!("{consumer:?}");
    assert!(
        text.contains("owned") && text.contains(&consumer.id().to_string()),
        "{text}"
    );
}

/// A name and an account are bursar's own, whoever's scope this is.
#[test]
fn a_consumer_costs_its_maker_nothing() {
    let maker = Consumer::new("maker");
    let made: Vec<Consumer> = {
        let mut made = Vec::with_capacity(100);
        let _scope = maker.enter();
        (0..100).for_each(|_| made.push(maker.child("a name of some length")));
        made
    };
    assert_eq!(held(&maker), [0, 0]);
    drop(made);
    assert_eq!(held(&maker), [0, 0]);
}

#[test]
fn children_keep_their_parents() {
    let root = Consumer::new("root");
    assert_eq!(root.parent(), None);
    let mut lowest = root.clone();
    let mut ids = vec![root.id()];
    for depth in 1..2_000 {
        lowest = lowest.child(format!("depth {depth}"));
        ids.push(lowest.id());
    }
    drop(root);
    let block = lowest.run(|| black_box(Box::new([1_u8; 100])));
    let report = bursar::report();
    let mut found = 0;
    for one in report
        .consumers()
        .iter()
        .filter(|one| ids.contains(&one.id))
    {
        let place = ids
            .iter()
            .position(|&id| id == one.id)
            .expect("it is one of them");
        assert_eq!(one.parent, place.checked_sub(1).map(|above| ids[above]));
        assert_eq!(one.usage.subtree_live_bytes, boxes::<[u8; 100]>(1)[1]);
        assert!(!one.departed, "it has a handle or children that have");
        found += 1;
    }
    assert_eq!(found, 2_000);
    let mut up = Some(lowest.clone());
    for &id in ids.iter().rev() {
        let consumer = up.take().expect("a parent");
        assert_eq!(consumer.id(), id);
        up = consumer.parent();
    }
    assert_eq!(up, None);
    drop((lowest, block));
    let report = bursar::report();
    let left = report
        .consumers()
        .iter()
        .filter(|one| ids.contains(&one.id));
    assert_eq!(left.count(), 0, "the whole chain leaves at once");
}

#[test]
fn a_report_has_the_largest_first_and_children_below_their_parents() {
    let small = Consumer::new("in order: small");
    let large = Consumer::new("in order: large");
    let children = [("first", 10), ("second", 20)].map(|(name, thousands)| {
        let child = large.child(format!("in order: {name}"));
        let held: Vec<u8> = child.run(|| black_box(Vec::with_capacity(thousands * 1_000)));
        (child, held)
    });
    let held: Vec<u8> = small.run(|| black_box(Vec::with_capacity(25_000)));
    let text = bursar::report().to_string();
    let rows: Vec<&str> = text
        .lines()
        .filter(|row| row.contains("in order: "))
        .collect();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row.split("%  ").nth(1).expect("a share, then the name"))
        .collect();
    let wanted = [
        format!("in order: large (#{})", large.id()),
        format!("  in order: second (#{})", children[1].0.id()),
        format!("  in order: first (#{})", children[0].0.id()),
        format!("in order: small (#{})", small.id()),
    ];
    assert_eq!(names, wanted, "{text}");
    let columns: Vec<&str> = rows[0].split_whitespace().take(5).collect();
    let usage = large.usage();
    let below = usage.subtree_live_bytes.to_string();
    assert_eq!(columns[..2], ["0", below.as_str()], "{}", rows[0]);
    drop(held);
}

#[test]
fn the_departed_are_listed_until_their_last_byte_is_gone() {
    let consumer = Consumer::new("departed");
    let id = consumer.id();
    assert!(listed(id).is_some_and(|one| !one.departed));
    let blocks = consumer.run(|| [1_u64, 2].map(|number| black_box(Box::new(number))));
    drop(consumer);
    let [first, second] = blocks;
    let listed_with = |blocks| {
        let one = listed_still(id).expect("it has live blocks");
        assert_eq!((&*one.name, one.departed), ("departed", true));
        assert_eq!(
            [one.usage.live_blocks, one.usage.live_bytes],
            boxes::<u64>(blocks)
        );
    };
    listed_with(2);
    thread::scope(|scope| scope.spawn(|| drop(first)).join().expect("it is fine"));
    listed_with(1);
    drop(second);
    assert!(listed_still(id).is_none());
    // Its slot is another's; that one has a fresh id and begins with nothing.
    for _ in 0..50 {
        let next = Consumer::new("next");
        assert!(next.id() > id);
        assert_eq!((held(&next), next.usage().allocated_bytes), ([0, 0], 0));
        assert_eq!((next.usage().peak_bytes, next.usage().freed_blocks), (0, 0));
        drop(next.run(|| black_box(Box::new(1))));
    }
}
