//! The 22 queries of TPC-H with accounts: what each plan node declared beside what it really held.
//!
//! ```text
//! cargo run --release -p bursar-datafusion --example tpch -- [SCALE [LIMIT_MIB]]
//! ```
//! Makes the tables at the scale factor (1 if it is not given; 370 MB of Parquet) below the target
//! directory, runs the queries, and prints the report of each. With a limit, on real bytes of the
//! process, operators spill that can; queries that cannot fail, and say why. At scale factor 1
//! results are compared with the published ones. The plot shows operators over time.

mod plot;
mod watch;

use bursar_datafusion::{Accounts, Options, install};
use bursar_tpch::{QUERIES, differs_from_published, generate, query, register};
use datafusion::common::human_readable_size;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use indicatif::{ProgressBar, ProgressStyle};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use watch::Watch;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

type Cause = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Cause> {
    let mut arguments = std::env::args().skip(1);
    let scale: f64 = arguments.next().map_or(Ok(1.0), |scale| scale.parse())?;
    let limit: Option<u64> = arguments.next().map(|mib| mib.parse()).transpose()?;
    let folder = target()?.join("tpch");
    let tables = folder.join(format!("scale-{scale}"));
    make(&tables, scale)?;
    let session = session(limit);
    register(&session, &tables).await?;
    let accounts = Accounts::of(&session.state()).ok_or("no accounts were installed")?;
    let begun = Instant::now();
    let watch = Watch::begin(Arc::clone(&accounts), begun);
    let queries = run_all(&session, &accounts, scale, begun).await?;
    let samples = watch.end();
    queries.iter().for_each(|query| println!("{}", query.told));
    let path = folder.join("memory.svg");
    plot::write(&path, &samples, &queries)?;
    println!("declared and real bytes by operator: {}", path.display());
    Ok(())
}

/// The directory that the program was built in.
fn target() -> Result<PathBuf, Cause> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(3).map(Path::to_path_buf);
    target.ok_or_else(|| "the program is not in a target directory".into())
}

fn make(tables: &Path, scale: f64) -> Result<(), Cause> {
    let bar = bar("tables")?;
    generate(tables, scale, |written, all| {
        bar.set_length(all as u64);
        bar.set_position(written as u64);
    })?;
    bar.finish_and_clear();
    Ok(())
}

fn bar(what: &'static str) -> Result<ProgressBar, Cause> {
    let style = ProgressStyle::with_template("{prefix:8} {bar:40} {pos}/{len} {elapsed} {msg}")?;
    Ok(ProgressBar::new(0).with_style(style).with_prefix(what))
}

fn session(limit: Option<u64>) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(8);
    let builder = SessionStateBuilder::new_with_default_features().with_config(config);
    let options = match limit {
        Some(mib) => Options::new().process_limit(mib << 20),
        None => Options::new(),
    };
    SessionContext::new_with_state(install(builder, options).build())
}

/// A query that was run.
struct Ran {
    number: usize,
    /// When it began.
    at: Duration,
    /// What is to be printed of it.
    told: String,
}

/// Runs the queries one after the other.
async fn run_all(
    session: &SessionContext,
    accounts: &Accounts,
    scale: f64,
    begun: Instant,
) -> Result<Vec<Ran>, Cause> {
    let bar = bar("queries")?;
    bar.set_length(QUERIES as u64);
    let mut queries = Vec::new();
    for number in 1..=QUERIES {
        let at = begun.elapsed();
        let result = session.sql(&query(number)).await?.collect().await;
        let took = begun.elapsed() - at;
        let how = match &result {
            Ok(batches) if scale == 1.0 => match differs_from_published(number, batches)? {
                Some(difference) => format!("differs from the published answer: {difference}"),
                None => "as published".into(),
            },
            Ok(batches) => format!("{} rows", bursar_tpch::rows(batches)?.len()),
            Err(error) => error.to_string(),
        };
        drop(result);
        let report = last_report(accounts, number).await;
        let told = format!("Q{number}, {took:.1?}: {how}\n{report}");
        queries.push(Ran { number, at, told });
        bar.set_message(human_readable_size(
            bursar::stats().allocated_bytes as usize,
        ));
        bar.set_position(number as u64);
    }
    bar.finish_and_clear();
    Ok(queries)
}

/// The report of the query that ended last, the `number`th. Tasks that were spawned for it may
/// still be ending.
async fn last_report(accounts: &Accounts, number: usize) -> String {
    for _ in 0..1000 {
        let reports = accounts.reports();
        if let (Some(last), true) = (reports.last(), reports.len() >= number) {
            return last.to_string();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    "its tasks have not ended within a second\n".into()
}
