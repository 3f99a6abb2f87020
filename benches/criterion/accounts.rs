//! What consumers cost, under criterion: `cargo bench -p bursar-benches
//! --bench accounts -- "calls/enter and leave"`.

use std::time::Duration;

use bursar_benches::micro::consumers;
use criterion::{Criterion, criterion_group, criterion_main};

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn benches(criterion: &mut Criterion) {
    for row in consumers::rows() {
        let mut group = criterion.benchmark_group(row.group);
        group.bench_function(row.name.clone(), |bencher| {
            bencher.iter_custom(|operations| row.run(operations));
        });
        group.finish();
    }
}

criterion_group! {
    name = account_benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = benches
}
criterion_main!(account_benches);
