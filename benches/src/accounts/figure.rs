//! Lines of the table: what was measured, what it is held against.

use serde::Serialize;

use crate::report;
use crate::statistics::{Summary, geometric_mean};

/// One line.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The value, in the unit of the bar.
    pub value: Summary,
    unit: &'static str,
    /// The most that it should be; none if it only stands beside.
    pub bar: Option<f64>,
}

impl Figure {
    /// A ratio: how much more one takes than the other.
    #[must_use]
    pub fn ratio(what: impl Into<String>, value: Summary, bar: Option<f64>) -> Self {
        Self::new(what, value, "×", bar)
    }

    /// A value with a unit.
    #[must_use]
    pub fn new(
        what: impl Into<String>,
        value: Summary,
        unit: &'static str,
        bar: Option<f64>,
    ) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            bar,
        }
    }

    /// Whether the median keeps to the bar.
    #[must_use]
    pub fn keeps(&self) -> Option<bool> {
        self.bar.map(|bar| self.value.median <= bar)
    }

    fn cells(&self) -> Vec<String> {
        let decimals = if self.unit == "×" { 3 } else { 2 };
        let kept = match self.keeps() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        vec![
            self.what.clone(),
            format!("{:.decimals$} {}", self.value.median, self.unit),
            format!("±{:.1} %", self.value.spread * 100.0),
            self.bar
                .map_or_else(String::new, |bar| format!("≤ {bar} {}", self.unit)),
            kept.to_owned(),
        ]
    }
}

/// The lines as a table.
#[must_use]
pub fn markdown(figures: &[Figure]) -> String {
    let header = ["what", "median", "spread", "at most", "kept"].map(str::to_owned);
    report::markdown(header.into(), figures.iter().map(Figure::cells).collect())
}

/// What several rows say together of one contestant against another: the
/// geometric mean of the ratios in each round, and how the rounds differ.
/// Samples are by row, then round.
///
/// # Panics
/// If there are no rows or no rounds.
#[must_use]
pub fn overall(rows: &[(&[f64], &[f64])]) -> Summary {
    let rounds = rows.iter().map(|(samples, _)| samples.len()).min();
    let in_round = |round: usize| {
        let ratios = rows.iter().map(|(one, other)| one[round] / other[round]);
        geometric_mean(ratios).expect("there are rows")
    };
    // The median of each row first: one bad sample of one row must not count
    // for a whole round.
    let rows_ratios = rows
        .iter()
        .map(|(one, other)| Summary::of_ratios(one, other).median);
    Summary {
        median: geometric_mean(rows_ratios).expect("there are rows"),
        ..Summary::of((0..rounds.expect("there are rows")).map(in_round))
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, markdown, overall};
    use crate::statistics::Summary;

    #[test]
    fn a_bar_is_kept_or_not() {
        let value = Summary {
            median: 1.1,
            spread: 0.01,
        };
        let kept = Figure::ratio("a", value, Some(1.15));
        let missed = Figure::ratio("b", value, Some(1.02));
        let beside = Figure::new("c", value, "ns", None);
        assert_eq!(kept.keeps(), Some(true));
        assert_eq!(missed.keeps(), Some(false));
        assert_eq!(beside.keeps(), None);
        let text = markdown(&[kept, missed, beside]);
        assert_eq!(text.matches("**no**").count(), 1, "{text}");
        assert!(
            text.contains("1.100 ×") && text.contains("≤ 1.02 ×"),
            "{text}"
        );
    }

    #[test]
    fn an_outlier_in_one_row_does_not_count() {
        let (twice, half) = ([2.0, 2.0, 200.0], [0.5, 0.5, 0.5]);
        let one = [1.0; 3];
        let both = overall(&[(&twice, &one), (&half, &one)]);
        assert!((both.median - 1.0).abs() < 1e-12, "{both:?}");
    }
}
