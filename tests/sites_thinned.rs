//! More samples than there is room for. A program of its own, since all threads share them.

#![cfg(feature = "sites")]

use bursar::{Bursar, Consumer};

#[global_allocator]
static GLOBAL: Bursar = Bursar::new().sample_bytes(16);

#[test]
fn samples_are_thinned_out_and_stay_unbiased() {
    let (small, large) = (Consumer::new("small"), Consumer::new("large"));
    let of = |consumer: &Consumer| -> (f64, u64) {
        let sites = consumer.sites();
        let bytes: u64 = sites.iter().map(|site| site.estimated_bytes).sum();
        let off = bytes as f64 / consumer.usage().live_bytes as f64 - 1.0;
        (off, sites.iter().map(|site| site.samples).sum())
    };
    let mut kept: Vec<Vec<u8>> = Vec::with_capacity(1 << 20);
    for step in 0..8 {
        for _ in 0..40_000 {
            kept.push(small.run(|| Vec::with_capacity(128)));
        }
        for _ in 0..10 {
            kept.push(large.run(|| Vec::with_capacity(1 << 20)));
        }
        let ((off, samples), (off_large, samples_large)) = (of(&small), of(&large));
        assert!(
            samples + samples_large <= 8192,
            "{samples} and {samples_large}"
        );
        assert!(samples > 1000, "{samples}");
        // Five standard deviations of a thousand samples or more.
        assert!(
            off.abs() < 0.16,
            "step {step}: {off} from {samples} samples"
        );
        // The mean is still far below a large block's size: each of them is there.
        assert_eq!(samples_large, 10 * (step + 1));
        assert!(off_large.abs() < 0.001, "{off_large}");
    }
    drop(kept);
    assert!(small.sites().is_empty() && large.sites().is_empty());
}
