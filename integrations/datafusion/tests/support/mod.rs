//! Sessions and data for the tests.
#![allow(dead_code, reason = "each test program uses a part of it")]

use bursar_datafusion::{Accounts, Options, QueryReport, install};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::JoinSetTracer;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::BoxFuture;
use std::any::Any;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Partitions of each query.
pub const PARTITIONS: usize = 8;

/// Runs a test on threads of its own, while no other test of this program runs.
pub fn alone<T>(test: impl Future<Output = T>) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// The tables at scale factor 0.1, or what the test program asks for first. They are made when they
/// are not there.
pub fn data() -> PathBuf {
    data_at(0.1)
}

/// The tables at a scale factor, of which there is one for each test program.
pub fn data_at(scale: f64) -> PathBuf {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    let data = DATA.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tpch-{scale}"));
        bursar_tpch::generate(&folder, scale, |_, _| ()).unwrap();
        folder
    });
    data.clone()
}

/// The configuration of all sessions, with and without accounts.
pub fn config() -> SessionConfig {
    SessionConfig::new().with_target_partitions(PARTITIONS)
}

/// A configuration in which everything that can spill does: sorts instead of hash tables.
pub fn spilling() -> SessionConfig {
    let mut config = config();
    config.options_mut().optimizer.prefer_hash_join = false;
    config.options_mut().execution.sort_spill_reservation_bytes = 256 << 10;
    config
}

/// A session of plain DataFusion.
pub async fn plain(config: SessionConfig) -> SessionContext {
    let session = SessionContext::new_with_config(config);
    bursar_tpch::register(&session, &data()).await.unwrap();
    session
}

/// A session with accounts.
pub async fn accounted(config: SessionConfig, options: Options) -> SessionContext {
    let session = empty(config, options);
    bursar_tpch::register(&session, &data()).await.unwrap();
    session
}

/// A session with accounts and without tables.
pub fn empty(config: SessionConfig, options: Options) -> SessionContext {
    let builder = SessionStateBuilder::new_with_default_features().with_config(config);
    let state = install(builder, options.tracer(&TRACED)).build();
    SessionContext::new_with_state(state)
}

/// The accounts of a session.
pub fn accounts(session: &SessionContext) -> Arc<Accounts> {
    Accounts::of(&session.state()).unwrap()
}

/// Runs SQL.
pub async fn run(session: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>> {
    session.sql(sql).await?.collect().await
}

/// Runs SQL, and returns the rows as sorted text.
pub async fn rows(session: &SessionContext, sql: &str) -> Result<Vec<String>> {
    Ok(bursar_tpch::rows(&run(session, sql).await?)?)
}

/// Fails with the first row that differs.
#[track_caller]
pub fn assert_same(found: &[String], expected: &[String], what: impl std::fmt::Display) {
    let mut rows = found.iter().zip(expected);
    if let Some((found, expected)) = rows.find(|(found, expected)| found != expected) {
        panic!("{what}: {found}, not {expected}");
    }
    assert_eq!(found.len(), expected.len(), "{what}: the number of rows");
}

/// Waits until `is_so`, and fails after some seconds.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until `count` queries are over, and returns the report of the last.
pub async fn reported(accounts: &Accounts, count: usize) -> Arc<QueryReport> {
    until("the queries are over", || accounts.reports().len() >= count).await;
    accounts.reports().pop().unwrap()
}

/// Counts what is spawned, as a tracer of the program's own would.
pub struct Traced {
    pub(crate) futures: AtomicUsize,
    pub(crate) blocks: AtomicUsize,
}

/// The tracer that all sessions are given.
pub static TRACED: Traced = Traced {
    futures: AtomicUsize::new(0),
    blocks: AtomicUsize::new(0),
};

impl JoinSetTracer for Traced {
    fn trace_future(
        &self,
        future: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        self.futures.fetch_add(1, Relaxed);
        future
    }

    fn trace_block(
        &self,
        block: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        self.blocks.fetch_add(1, Relaxed);
        block
    }
}
