//! Work that is shared among threads by a common counter.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use crate::books;

/// Does `jobs` jobs on `threads` threads, each with a state of its own that
/// lives as long as the thread works, and adds up what the jobs return. With
/// one thread the caller's thread does it all. Workers are booked to whom the
/// whole program is.
pub fn parallel<S>(
    threads: usize,
    jobs: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> u64 + Sync,
) -> u64 {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut state = state();
        let mut sum = 0_u64;
        loop {
            let job = next.fetch_add(1, Relaxed);
            if job >= jobs {
                return sum;
            }
            sum = sum.wrapping_add(work(&mut state, job));
        }
    };
    if threads == 1 {
        return worker();
    }
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| books::attributed(worker)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker panicked"))
            .fold(0, u64::wrapping_add)
    })
}

#[cfg(test)]
mod tests {
    use super::parallel;

    #[test]
    fn each_job_is_done_once_whatever_the_threads() {
        for threads in [1, 2, 8] {
            assert_eq!(parallel(threads, 101, || (), |(), job| job as u64), 5050);
        }
    }
}
