//! What SQL shows: `EXPLAIN`, `EXPLAIN ANALYZE` and `bursar_memory()`.

use crate::support::{accounted, accounts, alone, config, empty, plain, reported, rows, run};
use bursar_datafusion::Options;
use bursar_tpch::query;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::UInt64Type;
use futures::StreamExt;

#[test]
fn explain_is_the_same() {
    alone(async {
        let plain = plain(config()).await;
        let accounted = accounted(config(), Options::new()).await;
        for number in [2, 9, 21] {
            let sql = format!("EXPLAIN {}", query(number));
            let expected = rows(&plain, &sql).await.unwrap();
            assert_eq!(
                rows(&accounted, &sql).await.unwrap(),
                expected,
                "query {number}"
            );
        }
        // A plan that is only explained is no query to report.
        assert!(accounts(&accounted).reports().is_empty());
    });
}

#[test]
fn explain_analyze_has_bytes_by_node() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let sql = "EXPLAIN ANALYZE SELECT * FROM orders ORDER BY o_comment";
        let shown = rows(&session, sql).await.unwrap().join("\n");
        let line = |operator: &str| {
            let found = shown.lines().find(|line| line.contains(operator));
            found.unwrap_or_else(|| panic!("no {operator} in {shown}"))
        };
        for operator in ["SortExec", "DataSourceExec"] {
            let line = line(operator);
            for metric in [" live_bytes=", " peak_bytes=", " peak_declared_bytes="] {
                assert!(line.contains(metric), "no {metric} in {line}");
            }
            assert!(!line.contains(" peak_bytes=0"), "{line}");
        }
        assert!(line("SortExec").contains("MB"), "{shown}");
        assert!(
            line("DataSourceExec").contains("peak_declared_bytes=0.0 B"),
            "{shown}"
        );
    });
}

fn number(batches: &[RecordBatch], column: usize) -> u64 {
    batches[0]
        .column(column)
        .as_primitive::<UInt64Type>()
        .value(0)
}

/// Its rows sum up to what the allocator has given out, and the operators of a query that runs
/// meanwhile are among them.
#[test]
fn memory_is_a_table() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let frame = session
            .sql("SELECT * FROM lineitem ORDER BY l_comment")
            .await
            .unwrap();
        let mut stream = frame.execute_stream().await.unwrap();
        let first = stream.next().await.unwrap().unwrap();
        let running = accounts(&session).running()[0].query;
        let sql = format!(
            "SELECT sum(declared_bytes), sum(live_bytes), count(distinct partition) \
             FROM bursar_memory() WHERE query = {running} AND consumer LIKE 'SortExec%'"
        );
        let sort = run(&session, &sql).await.unwrap();
        assert!(number(&sort, 1) > 1 << 20);
        let sql = "SELECT sum(live_bytes) FROM bursar_memory()";
        let all = number(&run(&session, sql).await.unwrap(), 0);
        let held = bursar::stats().allocated_bytes;
        assert!(all.abs_diff(held) < 8 << 20, "{all} and {held}");
        // Declared by consumers of the operators, which stand below its partitions.
        let sql = format!(
            "SELECT sum(below.declared_bytes) FROM bursar_memory() AS seat JOIN bursar_memory() AS \
             below ON below.parent_id = seat.consumer_id WHERE seat.query = {running} AND \
             seat.partition IS NOT NULL"
        );
        assert!(number(&run(&session, &sql).await.unwrap(), 0) > 10 << 20);
        drop((first, stream));
    });
}

#[test]
fn memory_takes_no_arguments_and_is_there_without_tables() {
    alone(async {
        let session = empty(config(), Options::new());
        let found = rows(&session, "SELECT consumer FROM bursar_memory()")
            .await
            .unwrap();
        assert!(
            found.iter().any(|name| name == "(unattributed)"),
            "{found:?}"
        );
        assert!(found.iter().any(|name| name == "datafusion"), "{found:?}");
        assert!(
            run(&session, "SELECT * FROM bursar_memory(1)")
                .await
                .is_err()
        );
    });
}

#[test]
fn a_report_is_a_table_too() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        run(&session, &query(1)).await.unwrap();
        let text = reported(&accounts(&session), 1).await.to_string();
        let mut lines = text.lines();
        let head = lines.next().unwrap();
        assert!(head.starts_with("query "), "{text}");
        for title in ["declared", "real", "difference", "left"] {
            assert!(head.contains(title), "{text}");
        }
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("  SortPreservingMergeExec (0)"),
            "{text}"
        );
        assert!(
            lines.next().unwrap().starts_with("    ProjectionExec (1)"),
            "{text}"
        );
        assert!(text.contains("AggregateExec"), "{text}");
        assert!(lines.last().unwrap().starts_with("  all at once"), "{text}");
    });
}
