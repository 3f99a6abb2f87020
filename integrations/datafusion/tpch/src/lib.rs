//! TPC-H: its tables as Parquet files, its 22 queries, and their published answers.

mod answers;
mod data;
mod queries;

pub use answers::differs_from_published;
pub use data::{TABLES, generate, register};
pub use queries::{QUERIES, query};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// The rows of a result as text, sorted: two results are equal if these are, since all numbers of
/// TPC-H are decimals.
///
/// # Errors
/// If a column has a type that cannot be shown.
pub fn rows(batches: &[RecordBatch]) -> Result<Vec<String>, ArrowError> {
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter();
        let columns = columns.map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let cells = columns.iter().map(|column| column.value(row).to_string());
            cells.collect::<Vec<_>>().join("|")
        }));
    }
    rows.sort_unstable();
    Ok(rows)
}
