//! The micro benchmarks under criterion, one benchmark for each allocator:
//! `cargo bench --bench micro -- "pair, runtime layout/64 B"`.

use std::alloc::GlobalAlloc;
use std::time::Duration;

use bursar_benches::micro::{self, Row};
use bursar_benches::peers::{self, Peer, Visitor};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

struct Columns(Vec<(Peer, Vec<Row>)>);

impl Visitor for Columns {
    fn visit<A: GlobalAlloc + Sync>(&mut self, peer: Peer, allocator: &'static A) {
        self.0.push((peer, micro::rows(allocator)));
    }
}

fn benches(criterion: &mut Criterion) {
    let mut columns = Columns(Vec::new());
    peers::for_each(&mut columns);
    let rows = columns.0[0].1.len();
    for index in 0..rows {
        let mut group = criterion.benchmark_group(columns.0[0].1[index].path());
        for (peer, rows) in &columns.0 {
            group.bench_function(BenchmarkId::from_parameter(peer.name), |bencher| {
                bencher.iter_custom(|operations| rows[index].run(operations));
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = micro_benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = benches
}
criterion_main!(micro_benches);
