//! What is wrong with a specification of pools. The text is put together without formatting, since
//! it is needed in `const fn` and inside the first allocation, too.

use super::spec::{LEAST_BYTES, MOST_BYTES, MOST_LIMIT, MOST_POOLS};
use core::error::Error;
use core::fmt;

/// Bytes of a faulty value that an error keeps.
const EXCERPT: usize = 40;
/// What stands for the rest of a value that is longer.
const CUT: &[u8] = b"...";
/// Bytes of the longest text of an error, with room to spare.
const MESSAGE: usize = 320;

/// Why [`PoolSpec::parse`](crate::PoolSpec::parse) refused a text. Its own text names the field,
/// its value, and what is allowed.
///
/// ```
/// use bursar::{PoolField, PoolSpec, PoolValue};
///
/// let refused = PoolSpec::parse("1048576,300000000000").unwrap_err();
/// assert_eq!(refused.position, 8);
/// assert_eq!(refused.field, PoolField::Size { pool: 1 });
/// assert_eq!(refused.value, PoolValue::Number(300_000_000_000));
/// assert_eq!((refused.least, refused.most), (1024, 274_877_906_944));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolSpecError {
    /// The byte of the text at which the faulty value begins, from 0.
    pub position: usize,
    /// What it is the value of.
    pub field: PoolField,
    /// What stands there.
    pub value: PoolValue,
    /// The least that is allowed (of limits: that is allowed beside 0).
    pub least: u64,
    /// The most that is allowed.
    pub most: u64,
}

/// Which part of a specification of pools is wrong. Pools count from 0 in the order of the string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolField {
    /// How many pools there are.
    Pools,
    /// The size of a pool, in bytes.
    Size {
        /// Which pool.
        pool: usize,
    },
    /// The limit of a pool, in bytes.
    Limit {
        /// Which pool.
        pool: usize,
        /// Its size.
        size: u64,
    },
    /// The sum of the sizes so far, in bytes.
    Sum {
        /// The pool with which it became too large.
        pool: usize,
    },
}

/// The value at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PoolValue {
    /// A number.
    Number(u64),
    /// No number of decimal digits, or one of more than 64 bits.
    Text(PoolExcerpt),
}

impl PoolSpecError {
    pub(super) const fn new(position: usize, field: PoolField, value: PoolValue) -> PoolSpecError {
        let (least, most) = match field {
            PoolField::Pools => (1, MOST_POOLS as u64),
            PoolField::Size { .. } | PoolField::Sum { .. } => (LEAST_BYTES, MOST_BYTES),
            PoolField::Limit { size, .. } if size < MOST_LIMIT => (LEAST_BYTES, size),
            PoolField::Limit { .. } => (LEAST_BYTES, MOST_LIMIT),
        };
        PoolSpecError {
            position,
            field,
            value,
            least,
            most,
        }
    }

    /// The text of the error, built without allocating.
    pub const fn message(&self) -> PoolSpecMessage {
        let text = PoolSpecMessage::EMPTY.text(b"the ");
        let text = match self.field {
            PoolField::Pools => text.text(b"number of pools"),
            PoolField::Size { pool } => text.text(b"size of pool ").number(pool as u64 + 1),
            PoolField::Limit { pool, .. } => text.text(b"limit of pool ").number(pool as u64 + 1),
            PoolField::Sum { pool } => text
                .text(b"sum of all sizes, up to pool ")
                .number(pool as u64 + 1),
        };
        let text = text
            .text(b", at byte ")
            .number(self.position as u64)
            .text(b", is ");
        let text = match self.value {
            PoolValue::Number(number) => text.number(number),
            PoolValue::Text(excerpt) => text.quoted(excerpt),
        };
        let text = text.text(b": expected ");
        let text = match self.field {
            PoolField::Limit { .. } => text.text(b"0 for none, or "),
            _ => text,
        };
        let text = text.number(self.least).text(b" to ").number(self.most);
        match self.field {
            PoolField::Pools => text.text(b", written SIZE[:LIMIT](,SIZE[:LIMIT])*"),
            PoolField::Limit { .. } => text
                .text(b" (bytes, at most ")
                .number(MOST_LIMIT)
                .text(b" and at most the size of the pool)"),
            _ => text.text(b" (bytes)"),
        }
    }
}

impl fmt::Display for PoolSpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message().as_str())
    }
}

impl Error for PoolSpecError {}

/// The beginning of a value, up to 40 bytes of it. Printable ASCII; `?` stands for each byte that
/// is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PoolExcerpt {
    bytes: [u8; EXCERPT],
    kept: usize,
    /// How long the whole value is.
    len: usize,
}

impl PoolExcerpt {
    pub(crate) const fn of(text: &[u8], start: usize, end: usize) -> PoolExcerpt {
        let mut excerpt = PoolExcerpt {
            bytes: [0; EXCERPT],
            kept: 0,
            len: end - start,
        };
        while excerpt.kept < EXCERPT && excerpt.kept < excerpt.len {
            excerpt.bytes[excerpt.kept] = match text[start + excerpt.kept] {
                byte @ b' '..=b'~' => byte,
                _ => b'?',
            };
            excerpt.kept += 1;
        }
        excerpt
    }

    /// What is kept of the value.
    pub const fn as_str(&self) -> &str {
        ascii(self.bytes.split_at(self.kept).0)
    }

    /// Whether the value is longer than what is kept of it.
    pub const fn is_cut(&self) -> bool {
        self.kept < self.len
    }
}

/// What is kept of the value, and dots if it is longer.
impl fmt::Display for PoolExcerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.is_cut() { ascii(CUT) } else { "" };
        write!(f, "{}{rest}", self.as_str())
    }
}

impl fmt::Debug for PoolExcerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The text of a [`PoolSpecError`], held inline.
#[derive(Clone, Copy)]
pub struct PoolSpecMessage {
    bytes: [u8; MESSAGE],
    len: usize,
}

impl PoolSpecMessage {
    const EMPTY: PoolSpecMessage = PoolSpecMessage {
        bytes: [0; MESSAGE],
        len: 0,
    };

    /// As text.
    pub const fn as_str(&self) -> &str {
        ascii(self.bytes.split_at(self.len).0)
    }

    /// Appends; what finds no room is left out.
    const fn text(mut self, bytes: &[u8]) -> PoolSpecMessage {
        let mut at = 0;
        while at < bytes.len() && self.len < MESSAGE {
            self.bytes[self.len] = bytes[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    const fn number(self, number: u64) -> PoolSpecMessage {
        let mut digits = [0; u64::MAX.ilog10() as usize + 1];
        let mut rest = number;
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.text(digits.split_at(first).1);
            }
        }
    }

    const fn quoted(self, excerpt: PoolExcerpt) -> PoolSpecMessage {
        let text = self.text(b"\"").text(excerpt.as_str().as_bytes());
        let text = if excerpt.is_cut() {
            text.text(CUT)
        } else {
            text
        };
        text.text(b"\"")
    }
}

impl fmt::Debug for PoolSpecMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

const fn ascii(bytes: &[u8]) -> &str {
    match core::str::from_utf8(bytes) {
        Ok(text) => text,
        // Only ASCII is ever put in.
        Err(_) => "",
    }
}
