//! The optimizer rule that wraps each node of a plan.

use crate::books::{Found, Query};
use crate::node::{AccountedExec, Books};
use crate::session::Session;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use std::sync::Arc;

/// Wraps each node of a plan in its consumer. It comes last, so that what it wraps is what runs.
#[derive(Debug)]
pub(crate) struct AccountRule {
    session: Arc<Session>,
}

impl AccountRule {
    pub(crate) fn new(session: Arc<Session>) -> AccountRule {
        AccountRule { session }
    }
}

impl PhysicalOptimizerRule for AccountRule {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        wrapped(plan, &self.session)
    }

    fn name(&self) -> &str {
        "bursar_accounts"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A plan whose nodes have books of their own, as one query.
pub(crate) fn wrapped(
    plan: Arc<dyn ExecutionPlan>,
    session: &Arc<Session>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut found = Vec::new();
    find(&plan, None, &mut found);
    let query = Query::new(found, &session.history);
    let mut next = 0;
    let books = |node| Books {
        node,
        session: Arc::clone(session),
        query: Arc::clone(&query),
    };
    rebuild(
        plan,
        &mut |plan, node| AccountedExec::wrap(plan, books(node)),
        &mut next,
    )
}

/// The plan without the wrappers that [`install`](crate::install) or
/// [`Accounts::wrap`](crate::Accounts::wrap) put around its nodes: to be sent elsewhere, by codecs
/// that know DataFusion's own nodes and do not look into what stands for them.
///
/// # Errors
/// If a node refuses its own children.
pub fn unwrap(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    rebuild(plan, &mut |plan, _| plan, &mut 0)
}

/// Lists the nodes of a plan, each before its inputs.
fn find(plan: &Arc<dyn ExecutionPlan>, parent: Option<usize>, found: &mut Vec<Found>) {
    let own = found.len();
    found.push(Found {
        name: plan.name().into(),
        parent,
    });
    for child in plan.children() {
        find(child, Some(own), found);
    }
}

/// Rebuilds a plan of what `made` makes of each node, which it is given unwrapped and with its
/// number, in the order in which nodes are found.
fn rebuild(
    plan: Arc<dyn ExecutionPlan>,
    made: &mut dyn FnMut(Arc<dyn ExecutionPlan>, usize) -> Arc<dyn ExecutionPlan>,
    next: &mut usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = match AccountedExec::inside(plan.as_ref()) {
        Some(wrapped) => Arc::clone(wrapped.inner()),
        None => plan,
    };
    let own = *next;
    *next += 1;
    let mut children = Vec::new();
    for child in plan.children() {
        children.push(rebuild(Arc::clone(child), made, next)?);
    }
    let plan = if children.is_empty() {
        plan
    } else {
        // Wrappers have the properties of what is inside.
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        plan.replace_children(children, options)?
    };
    Ok(made(plan, own))
}
