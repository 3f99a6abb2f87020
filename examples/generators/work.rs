//! What is computed of one partition. All memory is asked for in a way that can be refused.

use std::collections::TryReserveError;

use bursar::{Consumer, Transfer, TransferError, transfer};

/// Bytes of text in a partition.
pub const PARTITION: usize = 1 << 20;
pub const SENSORS: usize = 256;
/// More bytes than any line has.
const LINE: usize = 32;

/// One reading of one sensor.
pub struct Reading {
    sensor: u32,
    value: i32,
    time: u64,
}

/// The readings of a partition: one allocation.
pub struct Rows(Vec<Reading>);

impl Transfer for Rows {
    fn transfer_to(&mut self, to: &Consumer) -> Result<u64, TransferError> {
        transfer(&self.0, to)
    }
}

/// What is known of one sensor in the end.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sum {
    count: u64,
    sum: i64,
    last: u64,
}

/// What is known of all.
pub type Sums = [Sum; SENSORS];

/// The text of a partition: the same in every run.
pub fn generate(partition: u64) -> Result<Vec<u8>, TryReserveError> {
    let mut text = Vec::new();
    text.try_reserve_exact(PARTITION)?;
    let mut state = partition.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut time = partition * 1_000_000;
    while text.len() + LINE <= PARTITION {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        time += state % 7;
        push_number(&mut text, state >> 32 & 0xff, b',');
        push_number(&mut text, state >> 40 & 0xffff, b',');
        push_number(&mut text, time, b'\n');
    }
    Ok(text)
}

fn push_number(text: &mut Vec<u8>, mut number: u64, end: u8) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
    text.push(end);
}

/// The readings in a text.
pub fn parse(text: &[u8]) -> Result<Rows, TryReserveError> {
    let mut rows = Vec::new();
    rows.try_reserve_exact(text.iter().filter(|&&byte| byte == b'\n').count())?;
    for line in text
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let mut numbers = line.split(|&byte| byte == b',').map(|digits| {
            let add = |number: u64, digit: &u8| number * 10 + u64::from(digit - b'0');
            digits.iter().fold(0, add)
        });
        let mut next = || numbers.next().unwrap_or(0);
        rows.push(Reading {
            sensor: next() as u32,
            value: next() as i32,
            time: next(),
        });
    }
    Ok(Rows(rows))
}

/// The readings without outliers, each set off by its sensor's bias.
pub fn correct(rows: &Rows) -> Result<Rows, TryReserveError> {
    let is_sound = |reading: &&Reading| reading.value < 65_000;
    let mut kept = Vec::new();
    kept.try_reserve_exact(rows.0.iter().filter(is_sound).count())?;
    kept.extend(rows.0.iter().filter(is_sound).map(|reading| Reading {
        value: reading.value - 30_000 + reading.sensor as i32,
        ..*reading
    }));
    Ok(Rows(kept))
}

/// Adds readings to the sums.
pub fn sum_up(sums: &mut Sums, rows: &Rows) {
    for reading in &rows.0 {
        let sum = &mut sums[reading.sensor as usize % SENSORS];
        sum.count += 1;
        sum.sum += i64::from(reading.value);
        sum.last = sum.last.max(reading.time);
    }
}
