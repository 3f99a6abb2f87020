//! `bursar_memory()`: a table function with a row for each consumer of the process.

use crate::books::{Place, Query, place};
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, RecordBatch, StringBuilder, UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use std::sync::{Arc, LazyLock};

/// The name of the function.
pub(crate) const NAME: &str = "bursar_memory";

/// The table function.
#[derive(Debug)]
pub(crate) struct MemoryFunction;

impl TableFunctionImpl for MemoryFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        if !args.exprs().is_empty() {
            let told = format!("{NAME} takes no arguments, not {}", args.exprs().len());
            return Err(DataFusionError::Plan(told));
        }
        let partitions: Vec<Arc<dyn PartitionStream>> = vec![Arc::new(Snapshot)];
        Ok(Arc::new(StreamingTable::try_new(schema(), partitions)?))
    }
}

/// All consumers as they are when the table is read.
#[derive(Debug)]
struct Snapshot;

impl PartitionStream for Snapshot {
    fn schema(&self) -> &SchemaRef {
        &SCHEMA
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = futures::stream::once(async { snapshot() });
        Box::pin(RecordBatchStreamAdapter::new(schema(), batch))
    }
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let number = |name: &str| Field::new(name, DataType::UInt64, true);
    Arc::new(Schema::new(vec![
        number("consumer_id"),
        number("parent_id"),
        Field::new("consumer", DataType::Utf8, false),
        number("query"),
        number("node"),
        number("partition"),
        Field::new("can_spill", DataType::Boolean, false),
        Field::new("departed", DataType::Boolean, false),
        number("declared_bytes"),
        number("subtree_declared_bytes"),
        number("peak_declared_bytes"),
        number("live_bytes"),
        number("subtree_live_bytes"),
        number("peak_bytes"),
        number("subtree_peak_bytes"),
        Field::new("other_pool", DataType::Utf8, true),
    ]))
});

fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Columns that are being filled.
#[derive(Default)]
struct Rows {
    /// `consumer_id` and `parent_id`.
    ids: [UInt64Builder; 2],
    names: StringBuilder,
    /// `query`, `node` and `partition`.
    places: [UInt64Builder; 3],
    flags: [BooleanBuilder; 2],
    /// From `declared_bytes` on.
    bytes: [UInt64Builder; 7],
    other_pools: StringBuilder,
}

fn snapshot() -> Result<RecordBatch> {
    let consumers = bursar::consumers();
    let mut rows = Rows::default();
    for one in &consumers {
        rows.add(
            [Some(one.id), one.parent],
            &one.name,
            &one.usage,
            &Found::of(one.id),
        );
        rows.flag([one.can_spill, one.departed]);
    }
    let nobody = Found::default();
    rows.add(
        [None, None],
        "(unattributed)",
        consumers.unattributed(),
        &nobody,
    );
    rows.flag([false, false]);
    rows.finish()
}

/// What the books know of a consumer.
#[derive(Default)]
struct Found {
    query: Option<u64>,
    node: Option<u64>,
    partition: Option<u64>,
    /// The most declared at once by all below a query or node.
    peak_declared: Option<u64>,
    other_pool: Option<String>,
}

impl Found {
    fn of(consumer_id: u64) -> Found {
        let found = match place(consumer_id) {
            None => None,
            Some(Place::Query(query)) => query.upgrade().map(|query| Found {
                peak_declared: Some(query.declared().most()),
                ..Found::in_query(&query)
            }),
            Some(Place::Node(query, node)) => query.upgrade().map(|query| Found {
                node: Some(node as u64),
                peak_declared: Some(query.nodes()[node].declared.most()),
                ..Found::in_query(&query)
            }),
            Some(Place::Seat(seat)) => seat.upgrade().and_then(|seat| {
                Some(Found {
                    node: Some(seat.node as u64),
                    partition: Some(seat.partition as u64),
                    ..Found::in_query(&*seat.query()?)
                })
            }),
        };
        found.unwrap_or_default()
    }

    fn in_query(query: &Query) -> Found {
        Found {
            query: Some(query.id()),
            other_pool: query.other_pool().map(Into::into),
            ..Found::default()
        }
    }
}

impl Rows {
    fn add(&mut self, ids: [Option<u64>; 2], name: &str, usage: &bursar::Usage, found: &Found) {
        let places = [found.query, found.node, found.partition];
        let peak_declared = found.peak_declared.unwrap_or(usage.peak_reserved_bytes);
        let bytes = [
            usage.reserved_bytes,
            usage.subtree_reserved_bytes,
            peak_declared,
            usage.live_bytes,
            usage.subtree_live_bytes,
            usage.peak_bytes,
            usage.subtree_peak_bytes,
        ];
        fill(&mut self.ids, ids);
        self.names.append_value(name);
        fill(&mut self.places, places);
        fill(&mut self.bytes, bytes.map(Some));
        self.other_pools.append_option(found.other_pool.as_deref());
    }

    fn flag(&mut self, flags: [bool; 2]) {
        for (column, flag) in self.flags.iter_mut().zip(flags) {
            column.append_value(flag);
        }
    }

    fn finish(mut self) -> Result<RecordBatch> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(SCHEMA.fields().len());
        finish(&mut columns, &mut self.ids);
        columns.push(Arc::new(self.names.finish()));
        finish(&mut columns, &mut self.places);
        for column in &mut self.flags {
            columns.push(Arc::new(column.finish()));
        }
        finish(&mut columns, &mut self.bytes);
        columns.push(Arc::new(self.other_pools.finish()));
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

fn fill<const N: usize>(columns: &mut [UInt64Builder; N], values: [Option<u64>; N]) {
    for (column, value) in columns.iter_mut().zip(values) {
        column.append_option(value);
    }
}

fn finish(columns: &mut Vec<ArrayRef>, builders: &mut [UInt64Builder]) {
    for builder in builders {
        columns.push(Arc::new(builder.finish()));
    }
}
