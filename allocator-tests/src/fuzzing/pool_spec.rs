//! The parser of specifications of pools beside another that is read from its
//! documentation, and what it makes of them at compile time.

use bursar::{PoolConfig, PoolField, PoolSpec, PoolSpecError, PoolValue};

const LEAST: u64 = 1024;
const MOST: u64 = 274_877_906_944;
const MOST_LIMIT: u64 = 2_147_483_648;

/// A size and a limit, 0 for none.
type Fields = (u64, u64);

/// Where a text is wrong: the byte, and which part.
type Wrong = (usize, PoolField);

/// A number of decimal digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok()?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}

fn item(text: &[u8], at: usize, pool: usize, sum: u64) -> Result<Fields, Wrong> {
    let mut fields = text.splitn(2, |&byte| byte == b':');
    let first = fields.next().unwrap_or_default();
    let size = number(first)
        .filter(|size| (LEAST..=MOST).contains(size))
        .ok_or((at, PoolField::Size { pool }))?;
    if sum + size > MOST {
        return Err((at, PoolField::Sum { pool }));
    }
    let Some(second) = fields.next() else {
        return Ok((size, 0));
    };
    let at = at + first.len() + 1;
    let limit = number(second)
        .filter(|&limit| limit == 0 || (LEAST..=MOST_LIMIT.min(size)).contains(&limit))
        .ok_or((at, PoolField::Limit { pool, size }))?;
    Ok((size, limit))
}

fn documented(text: &[u8]) -> Result<Vec<Fields>, Wrong> {
    if text.is_empty() {
        return Err((0, PoolField::Pools));
    }
    let (mut pools, mut sum, mut at) = (Vec::new(), 0, 0);
    for part in text.split(|&byte| byte == b',') {
        if pools.len() == 128 {
            return Err((at, PoolField::Pools));
        }
        let fields = item(part, at, pools.len(), sum)?;
        sum += fields.0;
        pools.push(fields);
        at += part.len() + 1;
    }
    Ok(pools)
}

/// The indices of the pools that serve a request, in the order of asking.
fn route(pools: &[Fields], bytes: u64) -> Vec<u8> {
    let limit = |&(_, limit): &Fields| if limit == 0 { u64::MAX } else { limit };
    let mut admitting: Vec<_> = (0..pools.len() as u8)
        .filter(|&pool| bytes <= limit(&pools[pool as usize]))
        .collect();
    admitting.sort_by_key(|&pool| limit(&pools[pool as usize]));
    admitting
}

fn fields(spec: &PoolSpec) -> Vec<Fields> {
    let pair = |pool: PoolConfig| (pool.size, pool.limit.unwrap_or(0));
    spec.pools().map(pair).collect()
}

fn compare(spec: &PoolSpec, pools: &[Fields]) {
    assert_eq!(fields(spec), pools);
    assert_eq!(
        spec.total_bytes(),
        pools.iter().map(|pool| pool.0).sum::<u64>()
    );
    let mut requests = vec![1, LEAST, MOST, u64::MAX];
    for &(_, limit) in pools {
        requests.extend([limit, limit + 1]);
    }
    for bytes in requests {
        assert_eq!(spec.route(bytes), route(pools, bytes), "of {bytes} bytes");
    }
}

fn explain(error: &PoolSpecError, text: &[u8], wrong: Wrong) {
    assert_eq!((error.position, error.field), wrong);
    let message = error.to_string();
    assert_eq!(error.message().as_str(), message);
    assert!(message.is_ascii() && !message.contains('\n'), "{message}");
    for part in [error.position, error.least as usize, error.most as usize] {
        assert!(message.contains(&part.to_string()), "{message}");
    }
    assert!(message.ends_with([')', '*']), "cut off: {message}");
    if let PoolValue::Text(excerpt) = &error.value {
        let value = &text[error.position..];
        assert!(value.len() >= excerpt.as_str().len());
    }
}

/// Specifications and what is wrong with texts, found at compile time.
static CONSTANT: [(&str, Result<PoolSpec, PoolSpecError>); 14] = constant([
    "10737418240",
    "10737418240,2147483648:2097152",
    "10737418240,2147483648:20971520,1073741824:2097152",
    "1024:1024,1024:0,2048:1024",
    "4096,4096,4096:2048",
    "0274877906944",
    "",
    "1023",
    "1024,",
    "8192:9000",
    "274877906944,1024",
    "99999999999999999999",
    "1024:1024:1024",
    "+1024",
]);

const fn constant<const N: usize>(
    texts: [&'static str; N],
) -> [(&'static str, Result<PoolSpec, PoolSpecError>); N] {
    let mut parsed = [const { ("1024", Ok(PoolSpec::DEFAULT)) }; N];
    let mut index = 0;
    while index < N {
        parsed[index] = (texts[index], PoolSpec::parse(texts[index]));
        index += 1;
    }
    parsed
}

/// Compares what the compiler made of texts with what is made of them now.
///
/// # Panics
/// If that is something else.
pub fn run_constant() {
    for (text, parsed) in &CONSTANT {
        assert_eq!(&PoolSpec::parse(std::hint::black_box(text)), parsed);
        if let Ok(spec) = parsed {
            compare(spec, &fields(spec));
        }
        run(text.as_bytes());
    }
}

/// Parses a text, prints the pools, and parses that.
///
/// # Panics
/// If the pools, what is wrong, or the order of asking are not as documented.
pub fn run(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match (PoolSpec::parse(text), documented(text.as_bytes())) {
        (Ok(spec), Ok(pools)) => {
            compare(&spec, &pools);
            let printed = spec.to_string();
            let again = PoolSpec::parse(&printed).expect("it was printed by us");
            assert_eq!(again, spec);
            assert_eq!(again.to_string(), printed);
            assert_eq!(again.order(), spec.order());
        }
        (Err(error), Err(wrong)) => explain(&error, text.as_bytes(), wrong),
        (found, expected) => panic!("{found:?}, documented: {expected:?}"),
    }
}
