//! Snapshots and reports as JSON.

#![cfg(feature = "serde")]

use bursar::{Budget, Consumer, Greedy, Tracking};
use std::sync::Arc;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

#[test]
fn snapshots_are_readable_by_machines() {
    let query = Consumer::new("query \"1\"");
    let sort = query.child("sort").with_can_spill(true);
    let rows = sort.run(|| vec![0_u8; 1 << 20]);

    let usage = serde_json::to_value(sort.usage()).unwrap();
    assert_eq!(usage["live_bytes"], 1 << 20);
    assert_eq!(usage["live_blocks"], 1);

    let listed = serde_json::to_value(bursar::consumers()).unwrap();
    let one = listed["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|consumer| consumer["id"] == sort.id())
        .unwrap();
    assert_eq!(one["name"], "sort");
    assert_eq!(one["parent"], query.id());
    assert_eq!(one["can_spill"], true);
    assert_eq!(one["usage"]["subtree_live_bytes"], 1 << 20);
    let parts: u64 = listed["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .chain([&serde_json::json!({ "usage": listed["unattributed"] })])
        .map(|consumer| consumer["usage"]["live_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(listed["heap_bytes"], parts);

    let report = serde_json::to_value(bursar::report()).unwrap();
    assert_eq!(report["installed"], true);
    let class = serde_json::to_value(sort.classes().next().unwrap()).unwrap();
    assert_eq!(class["live_bytes"], 1 << 20);
    let stats = serde_json::to_value(bursar::stats()).unwrap();
    assert!(stats["allocated_bytes"].as_u64().unwrap() >= 1 << 20);

    let tracking = Arc::new(Tracking::new(Arc::new(Greedy::new(100))));
    let budget: Arc<dyn Budget> = tracking.clone();
    let reservation = sort.register(&budget);
    reservation.grow(70);
    let tracked = serde_json::to_value(tracking.report()).unwrap();
    assert_eq!(tracked["consumers"][0]["declared_bytes"], 70);
    drop(rows);
}

#[test]
fn pools_are_readable_by_machines() {
    let pool = bursar::Pool::builder(20 << 20).limit(4096).build().unwrap();
    let listed = serde_json::to_value(bursar::pools()).unwrap();
    let one = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == serde_json::to_value(pool.id()).unwrap())
        .unwrap();
    assert_eq!(one["size"], 20 << 20);
    assert_eq!(one["limit"], 4096);
    assert_eq!(one["used_bytes"], 0);
    assert_eq!(one["free_bytes"], 20 << 20);
    assert_eq!(one["largest_free_span"], 20 << 20);
    assert_eq!(one["backing"], "memory");
}
