//! Queries that are dropped half way leave nothing on the books.

use crate::support::{accounted, accounts, alone, config, run, spilling, until};
use bursar::Greedy;
use bursar_datafusion::Options;
use bursar_tpch::query;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// Bytes alive that were allocated for queries.
fn left_by_queries() -> u64 {
    let all = bursar::consumers();
    let of_queries = all.iter().filter(|one| one.name.contains("Exec ("));
    of_queries.map(|one| one.usage.live_bytes).sum()
}

#[test]
fn cancellation_leaves_nothing() {
    alone(async {
        let budget: Arc<dyn bursar::Budget> = Arc::new(Greedy::new(1 << 30));
        let options = Options::new().budget(Arc::clone(&budget)).keeping(1000);
        let session = accounted(config(), options).await;
        let accounts = accounts(&session);
        // Fills the caches, which are nobody's fault.
        for number in [3, 9, 13, 18] {
            run(&session, &query(number)).await.unwrap();
        }
        let mut cut = 0;
        for round in 0..24_u64 {
            let number = [3, 9, 13, 18][round as usize % 4];
            let frame = session.sql(&query(number)).await.unwrap();
            let mut stream = frame.execute_stream().await.unwrap();
            let patience = Duration::from_millis(3 * round);
            cut += u32::from(tokio::time::timeout(patience, stream.next()).await.is_err());
            drop(stream);
            until("its books are closed", || accounts.running().is_empty()).await;
            assert_eq!(budget.reserved(), 0, "round {round}");
        }
        assert!(cut > 8, "only {cut} queries were cut short");
        for report in accounts.reports().iter().skip(4) {
            let held = report.nodes.iter().map(|node| node.declared_bytes);
            assert_eq!(held.sum::<u64>(), 0, "{report}");
        }
        // Reads of files that were under way end by themselves. What threads and libraries keep
        // from its first use on is some kilobytes, however many queries there were.
        until("their blocks are freed", || left_by_queries() < 32 << 10).await;
    });
}

#[test]
fn a_failed_query_leaves_nothing() {
    alone(async {
        let budget: Arc<dyn bursar::Budget> = Arc::new(Greedy::new(1 << 20));
        let session = accounted(spilling(), Options::new().budget(Arc::clone(&budget))).await;
        let accounts = accounts(&session);
        let error = run(&session, &query(18)).await.unwrap_err().to_string();
        assert!(
            error.contains("the greedy budget of 1.0 MiB refuses"),
            "{error}"
        );
        assert!(error.contains("the largest holders: "), "{error}");
        until("its books are closed", || accounts.running().is_empty()).await;
        assert_eq!(budget.reserved(), 0);
    });
}
