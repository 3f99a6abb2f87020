//! Columns of numbers as text. A report of ten thousand rows has sixty thousand of them, and
//! `format!` takes longer for a padded number than the snapshot for its consumer.

use core::str;

/// A row that numbers are put into, from left to right.
pub(super) struct Columns {
    text: [u8; ROW],
    len: usize,
}

/// Bytes of a column, to whose end its number is put.
const WIDTH: usize = 12;
/// Digits of the largest number, and a sign.
const DIGITS: usize = 21;
/// What a row can hold at most: it has five numbers, each with a space, and a share.
const ROW: usize = 5 * (DIGITS + 1) + DIGITS + 4;

impl Columns {
    pub(super) fn new() -> Columns {
        Columns {
            text: [b' '; ROW],
            len: 0,
        }
    }

    /// Puts a number.
    pub(super) fn put(&mut self, number: u64) {
        self.put_signed(number, false);
    }

    /// Puts how much more one number is than another.
    pub(super) fn put_difference(&mut self, number: u64, less: u64) {
        self.put_signed(number.abs_diff(less), number < less);
    }

    /// Puts a number of tenths, as per cent and the last column.
    pub(super) fn put_tenths(&mut self, tenths: u64) {
        self.put_digits(tenths / 10, false, 4);
        let rest = [b'.', b'0' + (tenths % 10) as u8, b'%', b' ', b' '];
        self.text[self.len..self.len + rest.len()].copy_from_slice(&rest);
        self.len += rest.len();
    }

    /// The row as text.
    pub(super) fn text(&self) -> &str {
        // Only ASCII was put there.
        str::from_utf8(&self.text[..self.len]).unwrap_or_default()
    }

    fn put_signed(&mut self, number: u64, negative: bool) {
        self.put_digits(number, negative, WIDTH);
        self.len += 1;
    }

    /// Puts a number at the end of `width` bytes, or of as many as it needs. What was not written
    /// to is spaces.
    fn put_digits(&mut self, mut number: u64, negative: bool, width: usize) {
        let mut digits = [0; DIGITS];
        let mut first = DIGITS;
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        if negative {
            first -= 1;
            digits[first] = b'-';
        }
        let digits = &digits[first..];
        let end = self.len + width.max(digits.len());
        self.text[end - digits.len()..end].copy_from_slice(digits);
        self.len = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    proptest! {
        #[test]
        fn a_row_is_what_format_would_make(numbers: [(u64, u8); 4], tenths: u64) {
            let [a, b, c, d] = numbers.map(|(number, shift)| number >> (shift % 64));
            let mut row = Columns::new();
            [a, b, c].into_iter().for_each(|number| row.put(number));
            row.put(d);
            row.put_difference(a, b);
            row.put_tenths(tenths);
            let beyond = i128::from(a) - i128::from(b);
            prop_assert_eq!(
                row.text(),
                format!("{a:>12} {b:>12} {c:>12} {d:>12} {beyond:>12} {:>4}.{}%  ", tenths / 10, tenths % 10)
            );
        }
    }

    #[test]
    fn the_largest_row_fits() {
        let mut row = Columns::new();
        (0..4).for_each(|_| row.put(u64::MAX));
        row.put_difference(0, u64::MAX);
        row.put_tenths(u64::MAX);
        assert!(row.text().ends_with("5%  "), "{}", row.text());
    }
}
