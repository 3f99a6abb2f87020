//! All 22 queries give the results of plain DataFusion.

use crate::support::{
    accounted, accounts, alone, assert_same, config, plain, rows, spilling, until,
};
use bursar::Fair;
use bursar_datafusion::Options;
use bursar_tpch::{QUERIES, query};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use std::sync::Arc;

async fn all(session: &SessionContext) -> Vec<Vec<String>> {
    let mut results = Vec::new();
    for number in 1..=QUERIES {
        results.push(rows(session, &query(number)).await.unwrap());
    }
    results
}

#[test]
fn without_a_limit_one_after_the_other() {
    alone(async {
        let expected = all(&plain(config()).await).await;
        let session = accounted(config(), Options::new()).await;
        for (number, expected) in (1..).zip(&expected) {
            let found = rows(&session, &query(number)).await.unwrap();
            assert_same(&found, expected, number);
        }
        let full = expected.iter().filter(|rows| !rows.is_empty()).count();
        assert!(full >= QUERIES - 2, "only {full} queries have results");
    });
}

#[test]
fn several_at_once() {
    alone(async {
        let expected = all(&plain(config()).await).await;
        let session = accounted(config(), Options::new()).await;
        let mut running = tokio::task::JoinSet::new();
        for number in (1..=QUERIES).rev() {
            let session = session.clone();
            running.spawn(async move { (number, rows(&session, &query(number)).await) });
            if running.len() == 4 {
                compare(running.join_next().await, &expected);
            }
        }
        while let Some(joined) = running.join_next().await {
            compare(Some(joined), &expected);
        }
    });
}

type Joined = Result<(usize, datafusion::error::Result<Vec<String>>), tokio::task::JoinError>;

fn compare(joined: Option<Joined>, expected: &[Vec<String>]) {
    let (number, found) = joined.unwrap().unwrap();
    assert_same(&found.unwrap(), &expected[number - 1], number);
}

/// Under a tight limit a query either gives the same result, and some have spilled for it, or fails
/// for want of memory; those that come after it are none the worse.
#[test]
fn under_a_tight_limit() {
    alone(async {
        let expected = all(&plain(spilling()).await).await;
        let budget = Arc::new(Fair::new(16 << 20));
        let session = accounted(spilling(), Options::new().budget(budget)).await;
        let accounts = accounts(&session);
        let (mut succeeded, mut spilled) = (0, 0);
        for (number, expected) in (1..).zip(&expected) {
            let frame = session.sql(&query(number)).await.unwrap();
            let plan = frame.create_physical_plan().await.unwrap();
            let task = session.task_ctx();
            match datafusion::physical_plan::collect(Arc::clone(&plan), task).await {
                Ok(found) => {
                    let found = bursar_tpch::rows(&found).unwrap();
                    assert_same(&found, expected, number);
                    succeeded += 1;
                }
                Err(error) => assert_exhausted(number, &error),
            }
            spilled += usize::from(spills(plan.as_ref()) > 0);
            drop(plan);
            let budget = accounts.pool().budget();
            until("all is given back", || budget.reserved() == 0).await;
        }
        println!("{succeeded} queries succeeded, {spilled} spilled");
        assert!(
            succeeded >= QUERIES / 2,
            "only {succeeded} queries succeeded"
        );
        assert!(spilled >= 3, "only {spilled} queries spilled");
    });
}

fn assert_exhausted(number: usize, error: &DataFusionError) {
    let is_exhausted = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
    assert!(is_exhausted, "query {number}: {error}");
}

fn spills(plan: &dyn datafusion::physical_plan::ExecutionPlan) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.spill_count());
    let below = plan
        .children()
        .into_iter()
        .map(|child| spills(child.as_ref()));
    own.unwrap_or(0) + below.sum::<usize>()
}
