//! Medians, spreads and means of noisy samples.

use serde::Serialize;

/// The middle of some samples and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// Half the distance between the quartiles, as a share of the median: on
    /// a machine shared with others, the extremes say more about the others.
    pub spread: f64,
}

impl Summary {
    /// Summarises samples.
    ///
    /// # Panics
    /// If there are none, or one is not a number.
    #[must_use]
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        assert!(!sorted.is_empty(), "no samples");
        sorted.sort_by(|a, b| a.partial_cmp(b).expect("samples are numbers"));
        let median = quantile(&sorted, 0.5);
        let between = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        Self {
            median,
            spread: if median == 0.0 {
                0.0
            } else {
                between / 2.0 / median
            },
        }
    }

    /// Summarises the ratios of samples that were taken side by side, so that
    /// what slowed down both of a pair cancels out.
    #[must_use]
    pub fn of_ratios(numerators: &[f64], denominators: &[f64]) -> Self {
        Self::of(numerators.iter().zip(denominators).map(|(n, d)| n / d))
    }
}

/// The value below which `share` of the sorted samples lie, interpolated.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (
        sorted[position.floor() as usize],
        sorted[position.ceil() as usize],
    );
    below + (above - below) * position.fract()
}

/// The geometric mean of positive ratios; `None` if there are none.
#[must_use]
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut logarithms, mut count) = (0.0, 0.0);
    for ratio in ratios {
        logarithms += ratio.ln();
        count += 1.0;
    }
    (count > 0.0).then(|| (logarithms / count).exp())
}

#[cfg(test)]
mod tests {
    use super::{Summary, geometric_mean};

    #[test]
    fn the_median_ignores_an_outlier_and_the_spread_is_a_share() {
        let summary = Summary::of([10.0, 9.0, 11.0, 900.0, 10.0]);
        assert_eq!(
            summary,
            Summary {
                median: 10.0,
                spread: 0.05
            }
        );
    }

    #[test]
    fn ratios_are_taken_pairwise() {
        let summary = Summary::of_ratios(&[1.0, 20.0, 3.0], &[2.0, 40.0, 6.0]);
        assert_eq!(
            summary,
            Summary {
                median: 0.5,
                spread: 0.0
            }
        );
    }

    #[test]
    fn doubling_and_halving_cancel_out() {
        let mean = geometric_mean([2.0, 0.5, 4.0, 0.25]).expect("four ratios");
        assert!((mean - 1.0).abs() < 1e-12);
        assert_eq!(geometric_mean([]), None);
    }
}
