//! The answers that are published for scale factor 1.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::error::ArrowError;
use tpchgen::q_and_a::QueryAndAnswer;

/// How a result of query `number` at scale factor 1 differs from the published answer, if it does.
/// Numbers are compared as far as the answer has digits: they are rounded there, and averages by
/// different rules.
///
/// # Errors
/// If the result cannot be shown.
///
/// # Panics
/// If there is no query of that number.
pub fn differs_from_published(
    number: usize,
    batches: &[RecordBatch],
) -> Result<Option<String>, ArrowError> {
    let published = QueryAndAnswer::new(number as i32, 1.0).expect("there is one of each number");
    let lines = published.answer().lines().filter(|line| !line.is_empty());
    let mut expected: Vec<Vec<&str>> = lines.skip(1).map(cells).collect();
    let rows = crate::rows(batches)?;
    let mut found: Vec<Vec<&str>> = rows.iter().map(|row| cells(row)).collect();
    if number == 11 {
        // The text has these keys without their last two digits.
        for row in &mut found {
            row[0] = &row[0][..row[0].len().saturating_sub(2)];
        }
    }
    if expected.len() != found.len() {
        let told = format!("{} rows, not {}", found.len(), expected.len());
        return Ok(Some(told));
    }
    expected.sort_by_cached_key(|row| key(row));
    found.sort_by_cached_key(|row| key(row));
    let differing = expected
        .iter()
        .zip(&found)
        .find(|(expected, found)| !is_same_row(expected, found));
    Ok(differing.map(|(expected, found)| format!("{found:?}, not {expected:?}")))
}

fn cells(row: &str) -> Vec<&str> {
    row.split('|').map(str::trim).collect()
}

/// Rows in an order that does not depend on how numbers are rounded.
fn key(row: &[&str]) -> Vec<String> {
    let key = |cell: &&str| match cell.parse::<f64>() {
        Ok(number) => format!("{number:30.0}"),
        Err(_) => (*cell).to_string(),
    };
    row.iter().map(key).collect()
}

fn is_same_row(expected: &[&str], found: &[&str]) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| {
            match (expected.parse::<f64>(), found.parse::<f64>()) {
                (Ok(expected), Ok(found)) => {
                    (expected - found).abs() <= 0.01_f64.max(expected.abs() * 1e-6)
                }
                _ => expected == found,
            }
        })
}
