//! What `EXPLAIN ANALYZE` shows of a node's memory.

use crate::books::Node;
use datafusion::physical_plan::metrics::{
    Gauge, Metric, MetricCategory, MetricType, MetricValue, MetricsSet,
};
use std::borrow::Cow;
use std::sync::Arc;

/// The metrics of a node, with its real and declared bytes if it was executed.
pub(crate) fn with_memory(metrics: Option<MetricsSet>, node: &Node) -> Option<MetricsSet> {
    let Some(consumer) = node.consumer.get() else {
        return metrics;
    };
    let usage = consumer.usage();
    let mut metrics = metrics.unwrap_or_default();
    for (name, bytes) in [
        ("live_bytes", usage.subtree_live_bytes),
        ("peak_bytes", usage.subtree_peak_bytes),
        ("peak_declared_bytes", node.declared.most()),
    ] {
        metrics.push(Arc::new(bytes_metric(name, bytes)));
    }
    Some(metrics)
}

/// A number of bytes, shown with a unit. Of the variants that are, this one has a name of its own.
fn bytes_metric(name: &'static str, bytes: u64) -> Metric {
    let gauge = Gauge::new();
    gauge.set(bytes as usize);
    let value = MetricValue::PeakMemoryUsage {
        name: Cow::Borrowed(name),
        gauge,
    };
    Metric::new(value, None)
        .with_type(MetricType::Summary)
        .with_category(MetricCategory::Bytes)
}
