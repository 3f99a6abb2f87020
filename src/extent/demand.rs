//! How much free memory a program that goes up and down will want again soon.
//!
//! Memory that is given back and touched again costs a page fault a page, many times what keeping it
//! would have. So while the bytes in use still rise by as much as a part of their recent peak, free
//! memory up to that peak is *held*:
//!
//! ```text
//! used + dirty <= 9/8 of the highest used of the last periods
//! ```
//!
//! An eighth more, since ticks do not see each peak (and one that comes and goes between two ticks, a
//! thirty-sixth of the decay time, not at all). What is held was resident then already, so the
//! peak of the process is hardly higher. A program that rests, shrinks for good, or goes on at one
//! level holds nothing.

/// Periods over which the peak is taken: four decay times.
const REMEMBERED: usize = 16;
/// A rise is such a part of the peak,
const RISE_OF: u64 = 16;
/// and at least so many bytes: to fault in fewer once a period takes about a hundredth of the time.
const RISE_MIN: u64 = 8 << 20;
/// Such a part of a peak may not have been seen.
const UNSEEN_OF: u64 = 8;
/// Periods for which a rise holds memory: half a decay time, the other half is for giving it back.
const HELD_FOR: u64 = 2;

/// The bytes in use, as they were seen at the ticks.
pub(super) struct Demand {
    /// The highest of each period, by the period's number modulo their count.
    peaks: [u64; REMEMBERED],
    /// The number of the period that was seen last.
    last: u64,
    /// The lowest since the last rise.
    low: u64,
    /// When memory is no longer held, in milliseconds.
    until: u64,
}

/// What is held. Not an option of it: memcheck takes the jumps that are made of one for jumps that
/// depend on what nobody wrote.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// Free bytes, at most; 0 where nothing is held.
    pub(super) bytes: u64,
    /// Until when, in milliseconds.
    pub(super) until: u64,
}

impl Demand {
    pub(super) const fn new() -> Demand {
        Demand {
            peaks: [0; REMEMBERED],
            last: 0,
            low: 0,
            until: 0,
        }
    }

    /// Takes note of the bytes in use `now`, and says what is held beside them.
    pub(super) fn note(&mut self, now: u64, period: u64, used: u64) -> Held {
        let number = now / period.max(1);
        let passed = number.saturating_sub(self.last).min(REMEMBERED as u64);
        for back in 0..passed {
            self.peaks[place(number - back)] = 0;
        }
        self.last = number;
        let highest = &mut self.peaks[place(number)];
        *highest = used.max(*highest);
        let peak = self.peaks.iter().copied().max().unwrap_or(0);
        self.low = self.low.min(used);
        if used - self.low > RISE_MIN.max(peak / RISE_OF) {
            self.low = used;
            self.until = now.saturating_add(period.saturating_mul(HELD_FOR));
        }
        let bytes = match now < self.until {
            true => peak + peak / UNSEEN_OF - used,
            false => 0,
        };
        let until = self.until;
        Held { bytes, until }
    }
}

fn place(number: u64) -> usize {
    (number % REMEMBERED as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 100;

    /// Notes MiB at a time; what is held, in MiB.
    fn at(demand: &mut Demand, now: u64, mib: u64) -> u64 {
        demand.note(now, PERIOD, mib << 20).bytes >> 20
    }

    /// The same ten times a period, from `start` on; what is held at the end.
    fn go(demand: &mut Demand, start: u64, periods: u64, mib: impl Fn(u64) -> u64) -> u64 {
        let ticks = (0..periods * PERIOD).step_by(10);
        let held = ticks.map(|since| at(demand, start + since, mib(since)));
        held.last().expect("a period has ticks")
    }

    /// Up for a period, down for a period.
    fn waves(since: u64) -> u64 {
        match since / PERIOD % 2 {
            0 => 1_000,
            _ => 200,
        }
    }

    #[test]
    fn who_goes_up_and_down_holds_up_to_the_peak() {
        let mut demand = Demand::new();
        assert_eq!(go(&mut demand, 5_000, 40, waves), 925);
        assert_eq!(go(&mut demand, 9_000, 2, |_| 0), 0, "it rises no more");
    }

    #[test]
    fn who_rests_holds_nothing_after_two_periods() {
        let mut demand = Demand::new();
        go(&mut demand, 5_000, 3, |_| 1_000);
        assert_eq!(at(&mut demand, 5_300, 0), 0, "it rose three periods ago");
        assert_eq!(at(&mut demand, 5_350, 1_000), 125);
        assert_eq!(at(&mut demand, 5_450, 100), 1_025);
        assert_eq!(at(&mut demand, 5_549, 100), 1_025);
        assert_eq!(at(&mut demand, 5_550, 100), 0);
        assert_eq!(at(&mut demand, 60_000, 100), 0);
    }

    #[test]
    fn small_rises_hold_nothing() {
        let mut demand = Demand::new();
        go(&mut demand, 5_000, 1, |_| 1_000);
        let part = |since| 10 + since / 10 % 10 * 6;
        assert_eq!(go(&mut demand, 5_100, 4, part), 0, "of the peak");
        let few = |since| since / 10 % 2 * 7;
        assert_eq!(go(&mut demand, 60_000, 4, few), 0, "few bytes");
    }

    #[test]
    fn peaks_are_forgotten() {
        let lower = |since| 400 * (since / PERIOD % 2);
        let periods = REMEMBERED as u64 - 1;
        let mut demand = Demand::new();
        go(&mut demand, 5_000, 1, |_| 1_000);
        assert_eq!(go(&mut demand, 5_100, periods, lower), 1_125);
        assert_eq!(go(&mut demand, 5_100 + periods * PERIOD, 3, lower), 450);
    }

    #[test]
    fn who_grows_holds_a_part() {
        let mut demand = Demand::new();
        assert_eq!(go(&mut demand, 5_000, 16, |since| since), 1_590 / UNSEEN_OF);
    }
}
