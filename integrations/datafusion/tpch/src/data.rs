//! The eight tables as Parquet files.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::ReaderBuilder;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tpchgen::csv;
use tpchgen::generators as rows;

/// The tables.
pub const TABLES: [&str; 8] = [
    "region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem",
];
/// Files of a table, but for the two smallest: scans are split by files and row groups.
const PARTS: i32 = 8;
/// Rows that are converted at a time.
const ROWS: usize = 32 << 10;

/// Writes the tables at a scale factor into `folder`, unless they are there already: a folder for
/// each table. `done` is called with the parts that are written and that there are.
///
/// # Errors
/// If a file cannot be written.
///
/// # Panics
/// If a row cannot be parsed as what it was made of.
pub fn generate(folder: &Path, scale: f64, done: impl Fn(usize, usize) + Sync) -> Result<()> {
    if folder.join("lineitem").exists() {
        return Ok(());
    }
    // Made under another name, so that what is there is whole.
    let unfinished = folder.with_extension(format!("{}.unfinished", std::process::id()));
    let parts: Vec<(&str, i32, i32)> = TABLES.iter().flat_map(|table| parts(table)).collect();
    for table in TABLES {
        fs::create_dir_all(unfinished.join(table))?;
    }
    let (next, written, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(&(table, part, count)) = parts.get(next.fetch_add(1, Relaxed)) {
            if let Err(error) = write_part(&unfinished, table, scale, part, count) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
            done(written.fetch_add(1, Relaxed) + 1, parts.len());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    // Somebody else may have been faster.
    if fs::rename(&unfinished, folder).is_err() {
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(())
}

fn parts(table: &'static str) -> impl Iterator<Item = (&'static str, i32, i32)> {
    let count = if ["region", "nation"].contains(&table) {
        1
    } else {
        PARTS
    };
    (1..=count).map(move |part| (table, part, count))
}

fn write_part(folder: &Path, table: &str, scale: f64, part: i32, count: i32) -> Result<()> {
    let schema = schema(table);
    let path = folder.join(table).join(format!("{part}.parquet"));
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), None)?;
    let mut write = |text: &str| -> Result<()> {
        for batch in parse(&schema, text) {
            writer.write(&batch?)?;
        }
        Ok(())
    };
    macro_rules! rows {
        ($generator:ident, $csv:ident) => {
            each_chunk(
                rows::$generator::new(scale, part, count)
                    .iter()
                    .map(csv::$csv::new),
                &mut write,
            )?
        };
    }
    match table {
        "region" => rows!(RegionGenerator, RegionCsv),
        "nation" => rows!(NationGenerator, NationCsv),
        "supplier" => rows!(SupplierGenerator, SupplierCsv),
        "customer" => rows!(CustomerGenerator, CustomerCsv),
        "part" => rows!(PartGenerator, PartCsv),
        "partsupp" => rows!(PartSuppGenerator, PartSuppCsv),
        "orders" => rows!(OrderGenerator, OrderCsv),
        _ => rows!(LineItemGenerator, LineItemCsv),
    }
    writer.close()?;
    Ok(())
}

/// Hands rows on as text, many at a time.
fn each_chunk(
    rows: impl Iterator<Item = impl std::fmt::Display>,
    write: &mut impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let (mut text, mut count) = (String::new(), 0);
    for row in rows {
        writeln!(text, "{row}").expect("a string takes everything");
        count += 1;
        if count == ROWS {
            write(&text)?;
            (text, count) = (String::new(), 0);
        }
    }
    write(&text)
}

fn parse(schema: &SchemaRef, text: &str) -> impl Iterator<Item = Result<RecordBatch>> {
    let reader = ReaderBuilder::new(Arc::clone(schema))
        .with_batch_size(ROWS)
        .build(text.as_bytes())
        .expect("the schema is plain");
    reader.map(|batch| Ok(batch?))
}

/// The columns of a table, by what their names end in.
fn schema(table: &str) -> SchemaRef {
    let header = match table {
        "region" => csv::RegionCsv::header(),
        "nation" => csv::NationCsv::header(),
        "supplier" => csv::SupplierCsv::header(),
        "customer" => csv::CustomerCsv::header(),
        "part" => csv::PartCsv::header(),
        "partsupp" => csv::PartSuppCsv::header(),
        "orders" => csv::OrderCsv::header(),
        _ => csv::LineItemCsv::header(),
    };
    let fields = header
        .split(',')
        .map(|name| Field::new(name, kind(name), false));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn kind(column: &str) -> DataType {
    let (_, name) = column.split_once('_').unwrap_or(("", column));
    match name {
        name if name.ends_with("key") => DataType::Int64,
        "linenumber" | "availqty" | "size" | "shippriority" => DataType::Int32,
        "quantity" | "extendedprice" | "discount" | "tax" | "totalprice" | "acctbal"
        | "retailprice" | "supplycost" => DataType::Decimal128(15, 2),
        name if name.ends_with("date") => DataType::Date32,
        _ => DataType::Utf8,
    }
}

/// Makes the tables of `folder` known to a session.
///
/// # Errors
/// If they are not there.
pub async fn register(session: &SessionContext, folder: &Path) -> Result<()> {
    for table in TABLES {
        let path = folder.join(table);
        let options = ParquetReadOptions::default();
        session
            .register_parquet(table, path.to_string_lossy(), options)
            .await?;
    }
    Ok(())
}
