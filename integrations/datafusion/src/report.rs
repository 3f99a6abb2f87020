//! What the nodes of one query declared beside what they really held.

use crate::books::{Node, Query};
use datafusion::common::human_readable_size;
use std::fmt;

/// One node of a plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeReport {
    /// Its number in the plan: the root is 0, inputs follow the node they feed.
    pub node: usize,
    /// The node whose input it is.
    pub parent: Option<usize>,
    /// The operator, such as `SortExec`.
    pub name: String,
    /// How many of its partitions were executed.
    pub partitions: usize,
    /// Bytes that the operator has declared to the memory pool now.
    pub declared_bytes: u64,
    /// The most that it had declared at once.
    pub peak_declared_bytes: u64,
    /// Bytes that were allocated for it and are alive.
    pub live_bytes: u64,
    /// The most of these at once, from above: see `bursar::Usage::peak_bytes`.
    pub peak_real_bytes: u64,
}

impl NodeReport {
    fn of(query: &Query, number: usize, node: &Node) -> NodeReport {
        let usage = node.consumer.get().map(bursar::Consumer::usage);
        let usage = usage.unwrap_or_default();
        NodeReport {
            node: number,
            parent: node.found.parent,
            name: node.found.name.clone(),
            partitions: query.partitions(number),
            declared_bytes: node.declared.now(),
            peak_declared_bytes: node.declared.most(),
            live_bytes: usage.subtree_live_bytes,
            peak_real_bytes: usage.subtree_peak_bytes,
        }
    }

    /// Peak of real bytes less peak of declared ones: what the memory pool did not see of the
    /// operator, or, if it is negative, what was declared in vain or is held by batches that other
    /// nodes allocated.
    pub fn difference_bytes(&self) -> i64 {
        self.peak_real_bytes as i64 - self.peak_declared_bytes as i64
    }
}

/// A query, node by node. Its `Display` is a table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryReport {
    /// The number of the query, as in the names of its consumers.
    pub query: u64,
    /// Its nodes in the order of their numbers.
    pub nodes: Vec<NodeReport>,
    /// The most that all of them had declared at once.
    pub peak_declared_bytes: u64,
    /// The most that all of them really held at once.
    pub peak_real_bytes: u64,
    /// What is alive. In the report of a query that has ended: what was left behind, by it or in
    /// caches, and the results that its caller still has.
    pub live_bytes: u64,
    /// The memory pool that the query ran with, if it was not the one that was installed:
    /// declarations are unknown then.
    pub other_pool: Option<String>,
}

impl QueryReport {
    pub(crate) fn of(query: &Query) -> QueryReport {
        let usage = query.consumer().usage();
        let nodes = query.nodes().iter().enumerate();
        QueryReport {
            query: query.id(),
            nodes: nodes
                .map(|(number, node)| NodeReport::of(query, number, node))
                .collect(),
            peak_declared_bytes: query.declared().most(),
            peak_real_bytes: usage.subtree_peak_bytes,
            live_bytes: usage.subtree_live_bytes,
            other_pool: query.other_pool().map(Into::into),
        }
    }

    /// How many nodes lie above this one.
    fn depth(&self, node: &NodeReport) -> usize {
        let above = |node: &&NodeReport| node.parent.and_then(|parent| self.nodes.get(parent));
        std::iter::successors(Some(node), above).count() - 1
    }
}

impl fmt::Display for QueryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |node: &NodeReport| {
            let indent = 2 * (self.depth(node) + 1);
            format!("{:indent$}{} ({})", "", node.name, node.node)
        };
        let names: Vec<String> = self.nodes.iter().map(name).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max(LEAST);
        write!(f, "{:<width$}", format!("query {}", self.query))?;
        for title in ["declared", "real", "difference", "left"] {
            write!(f, "{title:>13}")?;
        }
        writeln!(f)?;
        for (node, name) in self.nodes.iter().zip(&names) {
            let peaks = [node.peak_declared_bytes, node.peak_real_bytes];
            writeln!(f, "{name:<width$}{}", Figures(peaks, node.live_bytes))?;
        }
        let peaks = [self.peak_declared_bytes, self.peak_real_bytes];
        let all = Figures(peaks, self.live_bytes);
        writeln!(f, "{:<width$}{all}", "  all at once")?;
        match &self.other_pool {
            Some(pool) => writeln!(
                f,
                "  declarations are unknown: the memory pool was replaced by {pool}"
            ),
            None => Ok(()),
        }
    }
}

/// The least width of the column of names.
const LEAST: usize = 40;

/// The peaks of declared and real bytes, and what is alive.
struct Figures([u64; 2], u64);

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures(peaks, left) = *self;
        let [declared, real] = peaks.map(|bytes| human_readable_size(bytes as usize));
        let size = human_readable_size(peaks[0].abs_diff(peaks[1]) as usize);
        let sign = if peaks[1] < peaks[0] { "-" } else { "" };
        let difference = format!("{sign}{size}");
        let left = human_readable_size(left as usize);
        write!(f, "{declared:>13}{real:>13}{difference:>13}{left:>13}")
    }
}
