//! Thousands of queries leave the process as it was.

use crate::support::{accounts, alone, config, empty, until};
use bursar_datafusion::Options;
use datafusion::arrow::array::RecordBatch;

const SQL: &str = "SELECT value % 17 AS k, count(*) AS n, sum(value) AS s \
                   FROM range(5000) GROUP BY value % 17 ORDER BY k LIMIT 5";

#[test]
fn a_thousand_queries_do_not_grow() {
    alone(async {
        let session = empty(config(), Options::new().keeping(10));
        let accounts = accounts(&session);
        let mut after_warming = None;
        // Each makes a plan of its own of it.
        let frame = session.sql(SQL).await.unwrap();
        for round in 1..=1_000 {
            let found = frame.clone().collect().await.unwrap();
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
            drop(found);
            if round % 100 == 0 {
                until("no query is open", || accounts.running().is_empty()).await;
                let held = bursar::stats().allocated_bytes;
                let consumers = bursar::consumers().iter().count();
                let (first_held, first_consumers) = *after_warming.get_or_insert((held, consumers));
                assert!(
                    held < first_held + (256 << 10),
                    "{first_held} B, then {held} B"
                );
                assert!(
                    consumers <= first_consumers + 8,
                    "{first_consumers} consumers, then {consumers}"
                );
            }
        }
        assert_eq!(accounts.reports().len(), 10);
    });
}
