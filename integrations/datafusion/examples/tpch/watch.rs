//! Looks at the running queries from a thread of its own.

use bursar_datafusion::Accounts;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_millis(5);

/// Bytes by operator at some moment: declared and real.
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    pub bytes: BTreeMap<String, [u64; 2]>,
}

/// The thread that looks.
pub struct Watch {
    is_over: Arc<AtomicBool>,
    samples: JoinHandle<Vec<Sample>>,
}

impl Watch {
    pub fn begin(accounts: Arc<Accounts>, begun: Instant) -> Watch {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let samples = thread::spawn(move || {
            let mut samples = Vec::new();
            while !over.load(Relaxed) {
                samples.push(Sample {
                    at: begun.elapsed(),
                    bytes: look(&accounts),
                });
                thread::sleep(PERIOD);
            }
            samples
        });
        Watch { is_over, samples }
    }

    pub fn end(self) -> Vec<Sample> {
        self.is_over.store(true, Relaxed);
        self.samples.join().expect("it only looks")
    }
}

fn look(accounts: &Accounts) -> BTreeMap<String, [u64; 2]> {
    let mut bytes: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for node in accounts.running().into_iter().flat_map(|query| query.nodes) {
        let [declared, real] = bytes.entry(node.name).or_default();
        *declared += node.declared_bytes;
        *real += node.live_bytes;
    }
    bytes
}
