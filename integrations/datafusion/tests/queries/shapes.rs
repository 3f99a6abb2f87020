//! Plans that are changed after they were wrapped, and those that change themselves.

use crate::support::{
    accounted, accounts, alone, assert_same, config, empty, plain, reported, rows,
};
use bursar_datafusion::{Options, report, unwrap};
use bursar_tpch::{QUERIES, query};
use datafusion::config::ConfigOptions;
use datafusion::physical_optimizer::optimizer::{ConfigOnlyContext, PhysicalOptimizer};
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, ReplaceChildrenOptions, reset_plan_states,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

/// One for each way in which plans are not trees that are run once from left to right.
const SHAPES: [(&str, &str); 12] = [
    (
        "recursive",
        "WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 40) \
         SELECT i, i * i FROM n",
    ),
    (
        "a recursion that joins",
        "WITH RECURSIVE up AS (SELECT n_nationkey AS k, 0 AS depth FROM nation WHERE n_nationkey < 3 \
         UNION ALL SELECT n.n_nationkey, up.depth + 1 FROM up JOIN nation n \
         ON n.n_regionkey = up.k WHERE up.depth < 3) SELECT depth, count(*) FROM up GROUP BY depth",
    ),
    (
        "limit",
        "SELECT * FROM (SELECT r_regionkey FROM region ORDER BY 1 LIMIT 3) LIMIT 2",
    ),
    (
        "top k with a dynamic filter",
        "SELECT l_orderkey, l_linenumber, l_extendedprice FROM lineitem \
         ORDER BY l_extendedprice DESC, l_orderkey, l_linenumber LIMIT 10",
    ),
    (
        "a join with a dynamic filter",
        "SELECT count(*), sum(o_totalprice) FROM orders JOIN customer ON o_custkey = c_custkey \
         WHERE c_acctbal > 9900",
    ),
    (
        "window",
        "SELECT n_name, rank() OVER (PARTITION BY n_regionkey ORDER BY n_name) FROM nation",
    ),
    (
        "union",
        "SELECT n_name FROM nation UNION SELECT r_name FROM region",
    ),
    (
        "cross join",
        "SELECT count(*) FROM nation, region, nation AS other",
    ),
    (
        "full join",
        "SELECT count(*) FROM (SELECT * FROM nation WHERE n_nationkey < 9) a FULL JOIN \
         (SELECT * FROM nation WHERE n_nationkey > 4) b ON a.n_nationkey = b.n_nationkey",
    ),
    (
        "a subquery of one value",
        "SELECT count(*) FROM orders WHERE o_totalprice > (SELECT avg(o_totalprice) FROM orders)",
    ),
    (
        "values",
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t (x, y) WHERE x > 1",
    ),
    ("nothing", "SELECT n_name FROM nation WHERE 1 = 0"),
];

#[test]
fn every_shape_of_plan_gives_the_same() {
    alone(async {
        let plain = plain(config()).await;
        let accounted = accounted(config(), Options::new()).await;
        for (shape, sql) in SHAPES {
            let expected = rows(&plain, sql).await.unwrap();
            assert_same(&rows(&accounted, sql).await.unwrap(), &expected, shape);
            assert!(!expected.is_empty() || shape == "nothing", "{shape}");
        }
    });
}

async fn planned(session: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    let frame = session.sql(sql).await.unwrap();
    frame.create_physical_plan().await.unwrap()
}

async fn results(session: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Vec<String> {
    bursar_tpch::rows(&collect(plan, session.task_ctx()).await.unwrap()).unwrap()
}

fn text(plan: &dyn ExecutionPlan) -> String {
    displayable(plan).indent(true).to_string()
}

/// Wrapped plans look like plain ones to every rule: optimizing them once more, with all of
/// DataFusion's rules, changes nothing in what they give.
#[test]
fn rules_see_through_the_wrappers() {
    alone(async {
        let plain = plain(config()).await;
        let accounted = accounted(config(), Options::new()).await;
        for number in 1..=QUERIES {
            let expected = planned(&plain, &query(number)).await;
            let wrapped = planned(&accounted, &query(number)).await;
            assert_eq!(
                text(wrapped.as_ref()),
                text(expected.as_ref()),
                "query {number}"
            );
            let options = accounted.state().config_options().clone();
            let again = (optimized(expected, &options), optimized(wrapped, &options));
            assert_eq!(
                text(again.1.as_ref()),
                text(again.0.as_ref()),
                "query {number}"
            );
            if number % 4 == 0 {
                let expected = results(&plain, again.0).await;
                assert_same(&results(&accounted, again.1).await, &expected, number);
            }
        }
    });
}

fn optimized(plan: Arc<dyn ExecutionPlan>, options: &ConfigOptions) -> Arc<dyn ExecutionPlan> {
    let rules = PhysicalOptimizer::new().rules;
    let context = ConfigOnlyContext::new(options);
    rules.iter().fold(plan, |plan, rule| {
        rule.optimize_with_context(plan, &context).unwrap()
    })
}

const SORTED: &str =
    "SELECT o_orderkey, o_totalprice * 2 FROM orders ORDER BY o_totalprice, o_orderkey";

/// Children that are replaced, state that is reset: the plan runs again and is still accounted.
#[test]
fn plans_that_are_rebuilt_stay_wrapped() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let plan = planned(&session, SORTED).await;
        let expected = results(&session, Arc::clone(&plan)).await;
        let children = plan.children().into_iter().cloned().collect();
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        let replaced = Arc::clone(&plan)
            .replace_children(children, options)
            .unwrap();
        let children = plan.children().into_iter().cloned().collect();
        #[allow(deprecated, reason = "older code calls it")]
        let renewed = Arc::clone(&plan).with_new_children(children).unwrap();
        let reset = Arc::clone(&plan).reset_state().unwrap();
        for rebuilt in [replaced, renewed, reset] {
            assert!(report(rebuilt.as_ref()).is_some());
            assert_eq!(text(rebuilt.as_ref()), text(plan.as_ref()));
            // Nodes below it, which it shares, have run: they have to begin again.
            let fresh = reset_plan_states(rebuilt).unwrap();
            assert_same(&results(&session, fresh).await, &expected, "rebuilt");
        }
    });
}

/// What a node makes of itself is wrapped too: a scan in more partitions, a limit, a projection
/// that moves below it, an order that is kept.
#[test]
fn what_a_node_makes_of_itself_is_wrapped() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let options = session.state().config_options().clone();
        let scan = leaf(&planned(&session, "SELECT * FROM lineitem").await);
        let more = scan.repartitioned(3, &options).unwrap().unwrap();
        assert_eq!(more.properties().output_partitioning().partition_count(), 3);
        let limited = scan.with_fetch(Some(7)).unwrap();
        assert_eq!(limited.fetch(), Some(7));
        for made in [&more, &limited] {
            assert!(report(made.as_ref()).is_some());
            assert_eq!(made.name(), "DataSourceExec");
        }
        assert_eq!(scan.metrics().is_some(), limited.metrics().is_some());
        assert!(!scan.supports_limit_pushdown() && scan.children().is_empty());
    });
}

fn leaf(plan: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match plan.children().first() {
        Some(child) => leaf(child),
        None => Arc::clone(plan),
    }
}

fn named(plan: &Arc<dyn ExecutionPlan>, name: &str) -> Option<Arc<dyn ExecutionPlan>> {
    if plan.name() == name {
        return Some(Arc::clone(plan));
    }
    plan.children()
        .into_iter()
        .find_map(|child| named(child, name))
}

#[test]
fn downcasts_find_the_node_inside() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let plan = planned(&session, SORTED).await;
        let sort = named(&plan, "SortExec").unwrap();
        assert!(report(sort.as_ref()).is_some());
        assert!(sort.is::<SortExec>() && !sort.is::<ProjectionExec>());
        assert!(sort.downcast_ref::<SortExec>().unwrap().fetch().is_none());
    });
}

/// Plans that come from elsewhere are wrapped, and those that go there unwrapped.
#[test]
fn plans_come_and_go() {
    alone(async {
        let plain = plain(config()).await;
        let session = accounted(config(), Options::new()).await;
        let foreign = planned(&plain, SORTED).await;
        assert!(report(foreign.as_ref()).is_none());
        let expected = results(&plain, Arc::clone(&foreign)).await;
        let wrapped = accounts(&session).wrap(reset_plan_states(foreign).unwrap());
        let wrapped = wrapped.unwrap();
        assert_same(
            &results(&session, Arc::clone(&wrapped)).await,
            &expected,
            "wrapped",
        );
        let sorted = report(wrapped.as_ref()).unwrap();
        assert!(sorted.peak_declared_bytes > 1 << 20, "{sorted}");
        let bare = unwrap(reset_plan_states(wrapped).unwrap()).unwrap();
        assert!(report(bare.as_ref()).is_none());
        assert!(
            bare.children()
                .iter()
                .all(|child| report(child.as_ref()).is_none())
        );
        assert_same(&results(&plain, bare).await, &expected, "unwrapped");
    });
}

/// A plan that is executed twice is one query, and its report comes when it is dropped.
#[test]
fn a_plan_that_is_kept_is_one_query() {
    alone(async {
        let session = empty(config(), Options::new());
        let accounts = accounts(&session);
        let plan = planned(
            &session,
            "SELECT value FROM range(10000) ORDER BY value DESC",
        )
        .await;
        results(&session, Arc::clone(&plan)).await;
        results(&session, Arc::clone(&plan)).await;
        assert!(accounts.reports().is_empty());
        assert!(accounts.running().len() == 1);
        let before = report(plan.as_ref()).unwrap();
        drop(plan);
        let after = reported(&accounts, 1).await;
        assert_eq!(after.query, before.query);
        assert_eq!(after.nodes.len(), before.nodes.len());
    });
}
