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
        let mut found = Vec::new();
        find(&plan, None, &mut found);
        let query = Query::new(found, &self.session.history);
        let mut next = 0;
        wrap(plan, &mut next, &|node| Books {
            node,
            session: Arc::clone(&self.session),
            query: Arc::clone(&query),
        })
    }

    fn name(&self) -> &str {
        "bursar_accounts"
    }

    fn schema_check(&self) -> bool {
        true
    }
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

/// Wraps the nodes of a plan in the order in which they were found. What was wrapped before, for
/// another query, is unwrapped first.
fn wrap(
    plan: Arc<dyn ExecutionPlan>,
    next: &mut usize,
    books: &dyn Fn(usize) -> Books,
) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = match AccountedExec::inside(plan.as_ref()) {
        Some(wrapped) => Arc::clone(wrapped.inner()),
        None => plan,
    };
    let own = books(*next);
    *next += 1;
    let children = plan.children().into_iter().map(Arc::clone);
    let children: Result<Vec<_>> = children.map(|child| wrap(child, next, books)).collect();
    let children = children?;
    let plan = if children.is_empty() {
        plan
    } else {
        // Wrappers have the properties of what is inside.
        let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        plan.replace_children(children, options)?
    };
    Ok(AccountedExec::wrap(plan, own))
}
