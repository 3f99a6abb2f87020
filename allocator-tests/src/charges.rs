//! What consumers hold, in figures to compare.

use std::alloc::Layout;

use bursar::{Consumer, ConsumerSnapshot};

/// Live blocks and bytes of a consumer.
pub fn held(consumer: &Consumer) -> [u64; 2] {
    let usage = consumer.usage();
    [usage.live_blocks, usage.live_bytes]
}

/// The blocks and bytes of so many values of a type, a block each.
pub fn boxes<T>(count: u64) -> [u64; 2] {
    [count, count * bursar::block_size(Layout::new::<T>()) as u64]
}

/// The blocks and bytes of buffers for so many values of a type each.
///
/// # Panics
/// If there is no such layout.
pub fn buffers<T>(capacities: impl IntoIterator<Item = usize>) -> [u64; 2] {
    capacities.into_iter().fold([0; 2], |sum, capacity| {
        let layout = Layout::array::<T>(capacity).expect("a layout");
        [sum[0] + 1, sum[1] + bursar::block_size(layout) as u64]
    })
}

/// The sum of two such figures.
pub fn both(one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    [one[0] + other[0], one[1] + other[1]]
}

/// The id of the consumer whose scope the thread is in.
pub fn current() -> Option<u64> {
    bursar::current().map(|consumer| consumer.id())
}

/// What a snapshot of all says of one consumer.
pub fn listed(id: u64) -> Option<ConsumerSnapshot> {
    bursar::consumers().into_iter().find(|one| one.id == id)
}

/// The same, after all that can leave the books have left.
pub fn listed_still(id: u64) -> Option<ConsumerSnapshot> {
    let report = bursar::report();
    report.consumers().iter().find(|one| one.id == id).cloned()
}
