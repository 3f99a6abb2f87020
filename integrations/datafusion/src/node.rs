//! A plan node in the scope of its consumer.

use crate::books::Query;
use crate::metrics::with_memory;
use crate::session::Session;
use crate::stream::AccountedStream;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{
    Distribution, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, InvariantLevel, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements,
    PlanProperties, SortOrderPushdownResult, StatisticsArgs,
};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

type Plan = Arc<dyn ExecutionPlan>;

/// Where a node has its books.
#[derive(Clone)]
pub(crate) struct Books {
    pub(crate) node: usize,
    pub(crate) session: Arc<Session>,
    pub(crate) query: Arc<Query>,
}

/// A plan node that executes, is polled and is dropped in the scope of its consumer.
///
/// To all else it is the node inside: it shows, downcasts, and answers as that one, and whatever
/// takes that one's place is wrapped in its stead.
pub(crate) struct AccountedExec {
    inner: Plan,
    /// After the node, so that what it has is freed when the query's report is made.
    books: Books,
}

impl AccountedExec {
    pub(crate) fn wrap(inner: Plan, books: Books) -> Plan {
        Arc::new(AccountedExec { inner, books })
    }

    /// The node inside a plan's root, if that is wrapped.
    pub(crate) fn inside(plan: &dyn ExecutionPlan) -> Option<&AccountedExec> {
        // Not the trait's own `downcast_ref`, which looks through wrappers.
        (plan as &dyn Any).downcast_ref()
    }

    pub(crate) fn inner(&self) -> &Plan {
        &self.inner
    }

    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    /// What takes the place of the node inside.
    fn rewrap(&self, inner: Plan) -> Plan {
        AccountedExec::wrap(inner, self.books.clone())
    }
}

impl fmt::Debug for AccountedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl DisplayAs for AccountedExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_as(format, f)
    }
}

// The deprecated methods are delegated too: nodes that were written for earlier versions implement
// nothing else.
#[allow(deprecated)]
impl ExecutionPlan for AccountedExec {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn downcast_delegate(&self) -> Option<&dyn ExecutionPlan> {
        Some(self.inner.as_ref())
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.inner.properties()
    }

    fn check_invariants(&self, check: InvariantLevel) -> Result<()> {
        self.inner.check_invariants(check)
    }

    fn dynamic_expressions_produced(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        self.inner.dynamic_expressions_produced()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.inner.required_input_distribution()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        self.inner.input_distribution_requirements()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.inner.required_input_ordering()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.inner.maintains_input_order()
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        self.inner.benefits_from_input_partitioning()
    }

    fn children(&self) -> Vec<&Plan> {
        self.inner.children()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Plan>,
        options: ReplaceChildrenOptions,
    ) -> Result<Plan> {
        let inner = Arc::clone(&self.inner).replace_children(children, options)?;
        Ok(self.rewrap(inner))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Plan>) -> Result<Plan> {
        let inner = Arc::clone(&self.inner).with_new_children(children)?;
        Ok(self.rewrap(inner))
    }

    fn with_new_children_and_same_properties(self: Arc<Self>, children: Vec<Plan>) -> Result<Plan> {
        let inner = Arc::clone(&self.inner).with_new_children_and_same_properties(children)?;
        Ok(self.rewrap(inner))
    }

    fn reset_state(self: Arc<Self>) -> Result<Plan> {
        let inner = Arc::clone(&self.inner).reset_state()?;
        Ok(self.rewrap(inner))
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        config: &ConfigOptions,
    ) -> Result<Option<Plan>> {
        let inner = self.inner.repartitioned(target_partitions, config)?;
        Ok(inner.map(|inner| self.rewrap(inner)))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let Books {
            node,
            session,
            query,
        } = &self.books;
        session.check_pool(query, context.memory_pool().as_ref())?;
        let seat = query.seat(*node, partition);
        let inner = seat
            .consumer
            .run(|| self.inner.execute(partition, context))?;
        let (session, query) = (Arc::clone(session), Arc::clone(query));
        Ok(Box::pin(AccountedStream::new(inner, seat, session, query)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        let node = &self.books.query.nodes()[self.books.node];
        with_memory(self.inner.metrics(), node)
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.inner.partition_statistics(partition)
    }

    fn statistics_from_inputs(
        &self,
        input_stats: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        self.inner.statistics_from_inputs(input_stats, args)
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        self.inner.child_stats_requests(partition)
    }

    fn supports_limit_pushdown(&self) -> bool {
        self.inner.supports_limit_pushdown()
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Plan> {
        Some(self.rewrap(self.inner.with_fetch(limit)?))
    }

    fn fetch(&self) -> Option<usize> {
        self.inner.fetch()
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.inner.cardinality_effect()
    }

    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Plan>> {
        let inner = self.inner.try_swapping_with_projection(projection)?;
        Ok(inner.map(|inner| self.rewrap(inner)))
    }

    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        self.inner
            .gather_filters_for_pushdown(phase, parent_filters, config)
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Plan>> {
        let pushed =
            self.inner
                .handle_child_pushdown_result(phase, child_pushdown_result, config)?;
        Ok(FilterPushdownPropagation {
            filters: pushed.filters,
            updated_node: pushed.updated_node.map(|inner| self.rewrap(inner)),
        })
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Plan> {
        Some(self.rewrap(self.inner.with_new_state(state)?))
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Plan>> {
        let pushed = self.inner.try_pushdown_sort(order)?;
        Ok(pushed.map(|inner| self.rewrap(inner)))
    }

    fn with_preserve_order(&self, preserve_order: bool) -> Option<Plan> {
        Some(self.rewrap(self.inner.with_preserve_order(preserve_order)?))
    }
}
