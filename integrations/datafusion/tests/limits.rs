//! A limit on real bytes of the process, measured as resident memory. A program of its own, since
//! what other tests leave in caches would count.

mod support;

use bursar_datafusion::Options;
use bursar_tpch::{QUERIES, query};
use datafusion::arrow::array::{ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use support::{accounted, accounts, alone, assert_same, data_at, reported, rows, run, until};

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

const MIB: u64 = 1 << 20;
/// Twice that of other tests: there is to be something to spill.
const SCALE: f64 = 0.2;

/// Anonymous memory of the process that is resident, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

/// The most that was resident while `work` ran.
async fn peak_of<T>(work: impl Future<Output = T>) -> (u64, T) {
    let (most, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let sampler = std::thread::spawn({
        let (most, over) = (Arc::clone(&most), Arc::clone(&over));
        move || {
            while !over.load(Relaxed) {
                most.fetch_max(resident(), Relaxed);
                std::thread::sleep(Duration::from_micros(500));
            }
        }
    });
    let result = work.await;
    over.store(true, Relaxed);
    sampler.join().unwrap();
    (most.load(Relaxed), result)
}

const SORT: &str = "SELECT * FROM lineitem ORDER BY l_comment, l_orderkey, l_linenumber";

/// Rows and a sum that depends on their order; they are not kept.
async fn digest(session: &SessionContext, sql: &str) -> Result<(usize, u64, usize)> {
    let plan = session.sql(sql).await?.create_physical_plan().await?;
    let mut stream = execute_stream(Arc::clone(&plan), session.task_ctx())?;
    let (mut count, mut sum) = (0, 0_u64);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let keys = batch
            .column(0)
            .as_primitive::<datafusion::arrow::datatypes::Int64Type>();
        for key in keys.values() {
            count += 1;
            sum = sum.wrapping_mul(31).wrapping_add(*key as u64);
        }
    }
    Ok((count, sum, spills(plan.as_ref())))
}

fn spills(plan: &dyn ExecutionPlan) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.spill_count());
    let below = plan
        .children()
        .into_iter()
        .map(|child| spills(child.as_ref()));
    own.unwrap_or(0) + below.sum::<usize>()
}

/// A sort of so many partitions.
fn sorting(partitions: usize) -> SessionConfig {
    support::config().with_target_partitions(partitions)
}

/// Set for the process that makes the tables.
const MAKES_TABLES: &str = "MAKES_TABLES";

/// The tables, made by another process if need be: the text that they are made of stays in memory.
fn tables() {
    let made = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tables_are_made"])
        .env(MAKES_TABLES, "1")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    data_at(SCALE);
}

/// What [`tables`] runs in a process of its own.
#[test]
fn tables_are_made() {
    if std::env::var_os(MAKES_TABLES).is_some() {
        data_at(SCALE);
    } else {
        alone(async { tables() });
    }
}

/// What can spill does, and the process stays below the limit and the slack.
#[test]
fn a_sort_spills_within_the_limit() {
    alone(async {
        tables();
        bursar::purge();
        let free = accounted(sorting(1), Options::new()).await;
        let (unlimited, expected) = peak_of(digest(&free, SORT)).await;
        let expected = expected.unwrap();
        drop(free);
        bursar::purge();
        println!("{unlimited} B without a limit");
        assert!(
            unlimited > LIMIT + SLACK + 32 * MIB,
            "it takes only {unlimited} B"
        );
        let session = limited(sorting(1)).await;
        for _ in 0..2 {
            sorts_like(&session, expected).await;
        }
        // Eight that merge hold two batches of each file that they merge.
        let session = limited(sorting(8).with_batch_size(1024)).await;
        let fan_in = "SET datafusion.runtime.max_spill_merge_fan_in = '4'";
        run(&session, fan_in).await.unwrap();
        sorts_like(&session, expected).await;
    });
}

const LIMIT: u64 = 144 * MIB;
const SLACK: u64 = 48 * MIB;

async fn limited(config: SessionConfig) -> SessionContext {
    let options = Options::new().process_limit(LIMIT).process_slack(SLACK);
    accounted(config, options).await
}

async fn sorts_like(session: &SessionContext, expected: (usize, u64, usize)) {
    let (peak, found) = peak_of(digest(session, SORT)).await;
    let found = found.unwrap();
    assert_eq!((found.0, found.1), (expected.0, expected.1));
    assert!(found.2 > 0, "nothing was spilled");
    println!("{peak} B are resident, {} files were spilled", found.2);
    assert!(peak < LIMIT + SLACK, "{peak} B are resident");
}

/// What is declared and not allocated takes no room; what is allocated does, declared or not.
#[test]
fn only_what_is_there_takes_room() {
    alone(async {
        let limit = bursar::stats().allocated_bytes + 64 * MIB;
        let options = Options::new().process_limit(limit).process_slack(32 * MIB);
        let session = support::empty(support::config(), options);
        let pool: Arc<dyn MemoryPool> = accounts(&session).pool().clone();
        let register = |name: &str| MemoryConsumer::new(name).register(&pool);
        let empty: Vec<MemoryReservation> = (0..100).map(|_| register("empty")).collect();
        for one in &empty {
            one.try_grow(40 << 20).unwrap();
        }
        let held = std::hint::black_box(vec![1_u8; 60 << 20]);
        let last = register("last");
        assert!(is_exhausted(&last.try_grow(40 << 20).unwrap_err()));
        drop(held);
        last.try_grow(40 << 20).unwrap();
    });
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// A join that cannot spill fails alone: the query beside it ends as it should, and the process
/// stays below the limit.
#[test]
fn what_cannot_spill_fails_alone() {
    alone(async {
        tables();
        bursar::purge();
        let (limit, slack) = (96 * MIB, 32 * MIB);
        let options = Options::new().process_limit(limit).process_slack(slack);
        let mut config = support::config();
        config
            .options_mut()
            .optimizer
            .hash_join_single_partition_threshold = usize::MAX;
        let session = accounted(config, options).await;
        let small = "SELECT count(*), sum(o_totalprice) FROM orders";
        let expected = rows(&session, small).await.unwrap();
        let join = "SELECT count(*) FROM lineitem a JOIN lineitem b ON a.l_comment = b.l_comment \
                    AND a.l_shipinstruct = b.l_shipinstruct AND a.l_orderkey < b.l_orderkey";
        let beside = {
            let session = session.clone();
            tokio::spawn(async move {
                let mut found = Vec::new();
                for _ in 0..5 {
                    found.push(rows(&session, small).await.unwrap());
                }
                found
            })
        };
        let (peak, failed) = peak_of(run(&session, join)).await;
        let error = failed.unwrap_err();
        assert!(is_exhausted(&error), "{error}");
        // Refused by the pool, or, if that comes first, at a poll.
        let told = error.to_string();
        let by_pool = told.contains("the process-bytes budget of 96.0 MiB refuses");
        assert!(by_pool || told.contains("more than any other"), "{told}");
        assert!(peak < limit + slack, "{peak} B are resident");
        for found in beside.await.unwrap() {
            assert_eq!(found, expected);
        }
        let accounts = accounts(&session);
        until("all is given back", || {
            accounts.pool().budget().reserved() == 0
        })
        .await;
    });
}

/// What is declared by nobody is stopped at a poll boundary.
#[test]
fn what_is_not_declared_ends_at_a_poll() {
    static HOARD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let hoard = |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let mut hoard = HOARD.lock().unwrap_or_else(PoisonError::into_inner);
        hoard.push(vec![1; 4 << 20]);
        let ColumnarValue::Array(values) = &arguments[0] else {
            return Ok(arguments[0].clone());
        };
        Ok(ColumnarValue::Array(ArrayRef::clone(values)))
    };
    alone(async {
        tables();
        bursar::purge();
        let options = Options::new()
            .process_limit(96 * MIB)
            .process_slack(32 * MIB);
        let session = accounted(support::config(), options).await;
        let arguments = vec![DataType::Int64];
        let hoard = create_udf(
            "hoard",
            arguments,
            DataType::Int64,
            Volatility::Volatile,
            Arc::new(hoard),
        );
        session.register_udf(hoard);
        let sql = "SELECT sum(hoard(l_orderkey)) FROM lineitem";
        let (peak, failed) = peak_of(run(&session, sql)).await;
        let report = reported(&accounts(&session), 1).await;
        HOARD.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let error = failed.unwrap_err().to_string();
        assert!(
            error.contains("more than any other, while the process holds"),
            "{error}"
        );
        // Four threads may each be in a poll when it is noticed.
        assert!(peak < 128 * MIB + 4 * 5 * MIB, "{peak} B are resident");
        assert!(report.live_bytes > 64 * MIB, "{report}");
        let projected = report
            .nodes
            .iter()
            .filter(|node| node.live_bytes > 64 * MIB);
        assert_eq!(projected.count(), 1, "{report}");
        // Once that is gone, the session goes on.
        assert_eq!(
            rows(&session, "SELECT count(*) FROM region").await.unwrap(),
            ["5"]
        );
    });
}

/// All 22 queries, four at once: each has the result it has without a limit, or fails for want of
/// memory, and the process stays below the limit.
#[test]
fn queries_at_once_stay_within_the_limit() {
    alone(async {
        tables();
        let free = accounted(support::config(), Options::new()).await;
        let mut expected = Vec::new();
        for number in 1..=QUERIES {
            expected.push(rows(&free, &query(number)).await.unwrap());
        }
        drop(free);
        bursar::purge();
        let (limit, slack) = (96 * MIB, 48 * MIB);
        let options = Options::new().process_limit(limit).process_slack(slack);
        let session = accounted(support::config(), options).await;
        let (peak, found) = peak_of(four_at_once(&session)).await;
        let mut succeeded = 0;
        for (number, found) in found {
            match found {
                Ok(found) => {
                    assert_same(&found, &expected[number - 1], number);
                    succeeded += 1;
                }
                Err(error) => assert!(is_exhausted(&error), "query {number}: {error}"),
            }
        }
        println!("{succeeded} queries succeeded, {peak} B were resident");
        assert!(
            succeeded >= QUERIES / 2,
            "only {succeeded} queries succeeded"
        );
        assert!(peak < limit + slack, "{peak} B are resident");
    });
}

async fn four_at_once(session: &SessionContext) -> Vec<(usize, Result<Vec<String>>)> {
    let (mut running, mut found) = (tokio::task::JoinSet::new(), Vec::new());
    for number in 1..=QUERIES {
        let session = session.clone();
        running.spawn(async move { (number, rows(&session, &query(number)).await) });
        if running.len() == 4 {
            found.extend(running.join_next().await.map(Result::unwrap));
        }
    }
    found.extend(running.join_all().await);
    found
}
