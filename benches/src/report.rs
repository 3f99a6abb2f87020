//! Markdown tables and the JSON beside them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::statistics::Summary;

/// A markdown table whose first column is text and whose others are numbers.
#[must_use]
pub fn markdown(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_header(header)
        .add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Three significant digits of a time in nanoseconds, in a unit that fits.
#[must_use]
pub fn nanoseconds(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v < 1e4 => (v, ""),
        v if v < 1e6 => (v / 1e3, " µs"),
        v => (v / 1e6, " ms"),
    };
    significant(scaled) + unit
}

/// Three significant digits, or all digits of a larger number.
#[must_use]
pub fn significant(value: f64) -> String {
    let decimals = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.decimals$}")
}

/// A ratio and its spread in percent.
#[must_use]
pub fn ratio(summary: Summary) -> String {
    format!("{:.2} ±{:.0} %", summary.median, summary.spread * 100.0)
}

/// Where reports go: `bench-reports` in cargo's target directory, which is
/// found from where this program lies (`<target>/<profile>/<program>`).
///
/// # Errors
/// If the program's path cannot be had or the directory not be made.
pub fn directory() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .nth(2)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no target directory"))?;
    let directory = target.join("bench-reports");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Writes `value` as JSON.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    fs::write(path, text + "\n")
}

#[cfg(test)]
mod tests {
    use super::{markdown, nanoseconds};

    #[test]
    fn times_keep_three_digits() {
        let shown: Vec<String> = [1.234, 12.34, 123.4, 9_999.0, 12_340.0, 256e6]
            .map(nanoseconds)
            .into();
        assert_eq!(shown, ["1.23", "12.3", "123", "9999", "12.3 µs", "256 ms"]);
    }

    #[test]
    fn tables_are_markdown() {
        let table = markdown(
            vec!["row".into(), "ns".into()],
            vec![
                vec!["64 B".into(), "2.10".into()],
                vec!["512 B".into(), "12.4".into()],
            ],
        );
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "| row   |   ns |");
        assert!(lines[1].starts_with("|---"), "{}", lines[1]);
        assert_eq!(lines[2], "| 64 B  | 2.10 |");
    }
}
