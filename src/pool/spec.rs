//! Which pools there are to be: `SIZE[:LIMIT](,SIZE[:LIMIT])*`, bytes in decimal.
//!
//! Everything here runs at compile time as well as in the middle of the first allocation: no
//! allocation, no formatting, nothing but `const fn` over bytes.

use super::spec_error::{PoolExcerpt, PoolField, PoolSpecError, PoolValue};
use core::fmt;

/// The most pools of a set.
pub(crate) const MOST_POOLS: usize = 128;
/// The least bytes of a pool, and the least that a limit may be.
pub(crate) const LEAST_BYTES: u64 = 1 << 10;
/// The most bytes of a pool, and of all pools together.
pub(crate) const MOST_BYTES: u64 = 256 << 30;
/// The most that a limit may be.
pub(crate) const MOST_LIMIT: u64 = 2 << 30;
/// Bytes of the pool that there is where nothing is said.
const DEFAULT_BYTES: u64 = 10 << 30;
/// No limit: above every request, so that such pools come last in the order of routing.
const UNLIMITED: u64 = u64::MAX;

/// One pool of a [`PoolSpec`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Bytes of the pool.
    pub size: u64,
    /// The largest request that it serves, in bytes; `None` if it serves any.
    pub limit: Option<u64>,
}

impl PoolConfig {
    /// Whether a request of `bytes` may enter the pool.
    pub const fn admits(&self, bytes: u64) -> bool {
        match self.limit {
            Some(limit) => bytes <= limit,
            None => true,
        }
    }
}

/// Which pools there are to be, and in which order requests try them.
///
/// Written `SIZE[:LIMIT](,SIZE[:LIMIT])*`: 1 to 128 pools, in bytes, as decimal digits and nothing
/// else. A size is from 1024 to 274877906944, and so is their sum at most. A limit is the largest
/// request that the pool serves: 0 or none at all if it serves any, else from 1024 to 2147483648
/// and at most the size. The default is one pool of 10 GiB that serves any request.
///
/// ```
/// use bursar::PoolSpec;
///
/// let spec = PoolSpec::parse("10737418240,2147483648:2097152")?;
/// assert_eq!(spec.len(), 2);
/// assert_eq!(spec.get(1).unwrap().limit, Some(2 << 20));
/// // Up to 2 MiB the second pool comes first; above that only the first one serves.
/// assert_eq!(spec.route(2 << 20), [1, 0]);
/// assert_eq!(spec.route((2 << 20) + 1), [0]);
/// assert_eq!(spec.to_string(), "10737418240,2147483648:2097152");
///
/// let refused = PoolSpec::parse("10737418240,1024:2048").unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "the limit of pool 2, at byte 17, is 2048: expected 0 for none, or 1024 to 1024 (bytes, at \
///      most 2147483648 and at most the size of the pool)"
/// );
/// # Ok::<(), bursar::PoolSpecError>(())
/// ```
#[derive(Clone)]
pub struct PoolSpec {
    sizes: [u64; MOST_POOLS],
    /// [`UNLIMITED`] for none.
    limits: [u64; MOST_POOLS],
    /// The numbers of the pools by ascending limit, equal limits as in the string.
    order: [u8; MOST_POOLS],
    count: usize,
}

impl PoolSpec {
    /// One pool of 10 GiB that serves any request.
    pub const DEFAULT: PoolSpec = PoolSpec::EMPTY.with(DEFAULT_BYTES, UNLIMITED).in_order();

    const EMPTY: PoolSpec = PoolSpec {
        sizes: [0; MOST_POOLS],
        limits: [0; MOST_POOLS],
        order: [0; MOST_POOLS],
        count: 0,
    };

    /// Reads a specification. A pass over the text; no allocation.
    ///
    /// # Errors
    /// What is not as described above. The first fault from the left is told.
    pub const fn parse(text: &str) -> Result<PoolSpec, PoolSpecError> {
        PoolSpec::parse_bytes(text.as_bytes())
    }

    /// Reads a specification that is part of the program: in a `const` or a `static` a fault is an
    /// error at compile time, whose text is the error's.
    ///
    /// ```
    /// const POOLS: bursar::PoolSpec = bursar::PoolSpec::must_parse("1048576:65536,4096");
    /// assert_eq!(POOLS.len(), 2);
    /// ```
    ///
    /// ```compile_fail
    /// // The size of pool 1, at byte 0, is 1000: expected 1024 to 274877906944 (bytes).
    /// const POOLS: bursar::PoolSpec = bursar::PoolSpec::must_parse("1000");
    /// ```
    ///
    /// # Panics
    /// With the error's text.
    #[track_caller]
    pub const fn must_parse(text: &str) -> PoolSpec {
        match PoolSpec::parse(text) {
            Ok(spec) => spec,
            Err(fault) => panic!("{}", fault.message().as_str()),
        }
    }

    /// As [`parse`](Self::parse), of what need not be text.
    pub(crate) const fn parse_bytes(text: &[u8]) -> Result<PoolSpec, PoolSpecError> {
        let mut spec = PoolSpec::EMPTY;
        if text.is_empty() {
            let value = PoolValue::Text(PoolExcerpt::of(text, 0, 0));
            return Err(PoolSpecError::new(0, PoolField::Pools, value));
        }
        let mut total = 0;
        let mut at = 0;
        loop {
            let pool = spec.count;
            if pool == MOST_POOLS {
                let value = PoolValue::Number(count_items(text));
                return Err(PoolSpecError::new(at, PoolField::Pools, value));
            }
            let end = find(text, at, b',', text.len());
            let size_end = find(text, at, b':', end);
            let size = match size_in(text, at, size_end, pool) {
                Ok(size) => size,
                Err(fault) => return Err(fault),
            };
            total += size;
            if total > MOST_BYTES {
                let field = PoolField::Sum { pool };
                return Err(PoolSpecError::new(at, field, PoolValue::Number(total)));
            }
            let limit = if size_end == end {
                UNLIMITED
            } else {
                match limit_in(text, size_end + 1, end, pool, size) {
                    Ok(limit) => limit,
                    Err(fault) => return Err(fault),
                }
            };
            spec = spec.with(size, limit);
            if end == text.len() {
                return Ok(spec.in_order());
            }
            at = end + 1;
        }
    }

    const fn with(mut self, size: u64, limit: u64) -> PoolSpec {
        self.sizes[self.count] = size;
        self.limits[self.count] = limit;
        self.count += 1;
        self
    }

    /// Sorts by insertion, which leaves equal limits in their order.
    const fn in_order(mut self) -> PoolSpec {
        let mut pool = 0;
        while pool < self.count {
            let mut place = pool;
            while place > 0 && self.limits[self.order[place - 1] as usize] > self.limits[pool] {
                self.order[place] = self.order[place - 1];
                place -= 1;
            }
            self.order[place] = pool as u8;
            pool += 1;
        }
        self
    }

    /// How many pools there are, from 1 to 128.
    #[allow(clippy::len_without_is_empty)] // There is always one.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// The pool at `index`, from 0 in the order of the string.
    pub const fn get(&self, index: usize) -> Option<PoolConfig> {
        if index >= self.count {
            return None;
        }
        let limit = match self.limits[index] {
            UNLIMITED => None,
            limit => Some(limit),
        };
        Some(PoolConfig {
            size: self.sizes[index],
            limit,
        })
    }

    /// The pools in the order of the string.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = PoolConfig> + '_ {
        (0..self.count).map(|index| {
            self.get(index)
                .expect("indices below the count are of pools")
        })
    }

    /// Bytes of all pools together.
    pub const fn total_bytes(&self) -> u64 {
        let (mut total, mut pool) = (0, 0);
        while pool < self.count {
            total += self.sizes[pool];
            pool += 1;
        }
        total
    }

    /// The indices of all pools by ascending limit: those with equal limits in the order of the
    /// string, those without one last.
    pub const fn order(&self) -> &[u8] {
        self.order.split_at(self.count).0
    }

    /// The indices of the pools that a request of `bytes` tries, in this order: those whose limit
    /// admits it, the smallest limit first. Empty if every pool has a lower limit. Cost: a look at
    /// the limits, in order, of the pools that do not admit it.
    pub const fn route(&self, bytes: u64) -> &[u8] {
        let order = self.order();
        let mut first = 0;
        while first < order.len() && self.limits[order[first] as usize] < bytes {
            first += 1;
        }
        order.split_at(first).1
    }
}

impl Default for PoolSpec {
    fn default() -> PoolSpec {
        PoolSpec::DEFAULT
    }
}

impl PartialEq for PoolSpec {
    fn eq(&self, other: &PoolSpec) -> bool {
        self.pools().eq(other.pools())
    }
}

impl Eq for PoolSpec {}

impl fmt::Debug for PoolSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pools()).finish()
    }
}

/// As it is written: parsed again it gives the same pools.
impl fmt::Display for PoolSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for pool in self.pools() {
            write!(f, "{between}{}", pool.size)?;
            if let Some(limit) = pool.limit {
                write!(f, ":{limit}")?;
            }
            between = ",";
        }
        Ok(())
    }
}

impl core::str::FromStr for PoolSpec {
    type Err = PoolSpecError;

    fn from_str(text: &str) -> Result<PoolSpec, PoolSpecError> {
        PoolSpec::parse(text)
    }
}

const fn size_in(text: &[u8], start: usize, end: usize, pool: usize) -> Result<u64, PoolSpecError> {
    let value = number(text, start, end);
    match value {
        PoolValue::Number(size @ LEAST_BYTES..=MOST_BYTES) => Ok(size),
        _ => Err(PoolSpecError::new(start, PoolField::Size { pool }, value)),
    }
}

const fn limit_in(
    text: &[u8],
    start: usize,
    end: usize,
    pool: usize,
    size: u64,
) -> Result<u64, PoolSpecError> {
    let value = number(text, start, end);
    match value {
        PoolValue::Number(0) => Ok(UNLIMITED),
        PoolValue::Number(limit @ LEAST_BYTES..=MOST_LIMIT) if limit <= size => Ok(limit),
        _ => {
            let field = PoolField::Limit { pool, size };
            Err(PoolSpecError::new(start, field, value))
        }
    }
}

/// The decimal number from `start` to `end`, or the text there if it is none that fits.
const fn number(text: &[u8], start: usize, end: usize) -> PoolValue {
    let as_text = PoolValue::Text(PoolExcerpt::of(text, start, end));
    if start == end {
        return as_text;
    }
    let mut value = 0_u64;
    let mut at = start;
    while at < end {
        let digit = match text[at] {
            digit @ b'0'..=b'9' => (digit - b'0') as u64,
            _ => return as_text,
        };
        value = match value.checked_mul(10) {
            Some(tens) => match tens.checked_add(digit) {
                Some(value) => value,
                None => return as_text,
            },
            None => return as_text,
        };
        at += 1;
    }
    PoolValue::Number(value)
}

/// Where `wanted` first is from `start` on, or else `end`.
const fn find(text: &[u8], start: usize, wanted: u8, end: usize) -> usize {
    let mut at = start;
    while at < end && text[at] != wanted {
        at += 1;
    }
    at
}

const fn count_items(text: &[u8]) -> u64 {
    let (mut count, mut at) = (1, 0);
    while at < text.len() {
        count += (text[at] == b',') as u64;
        at += 1;
    }
    count
}
