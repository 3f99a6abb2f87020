//! The 1024 bytes before a message's data: what it is, where it goes, when it was worked on.

use super::bytes::{ExclusiveBytes, SharedBytes};
use super::layout::GRANULE;
use crate::os::sync::{AtomicU64, Ordering::Relaxed};
use core::fmt;
use core::mem::offset_of;
use core::time::Duration;
use static_assertions::const_assert;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a head. A request is these and its data.
pub(super) const HEAD: usize = GRANULE as usize;
const DIMENSIONS: usize = 8;
const LABEL: usize = 64;
const USER: usize = 512;
const WORD: usize = size_of::<u64>();

/// How the head lies in memory: words, as everything that is shared.
#[repr(C)]
pub(super) struct Record {
    data_type: AtomicU64,
    data_size: AtomicU64,
    return_code: AtomicU64,
    start_time: AtomicU64,
    end_time: AtomicU64,
    rank: AtomicU64,
    shape: [AtomicU64; DIMENSIONS],
    label_len: AtomicU64,
    label: [AtomicU64; LABEL / WORD],
    user: [AtomicU64; USER / WORD],
    reserved: [AtomicU64; 41],
}

const_assert!(size_of::<Record>() == HEAD && align_of::<Record>() == WORD);
const_assert!(offset_of!(Record, data_type) == 0);
const_assert!(offset_of!(Record, data_size) == 8);
const_assert!(offset_of!(Record, return_code) == 16);
const_assert!(offset_of!(Record, start_time) == 24);
const_assert!(offset_of!(Record, end_time) == 32);
const_assert!(offset_of!(Record, rank) == 40);
const_assert!(offset_of!(Record, shape) == 48);
const_assert!(offset_of!(Record, label_len) == 112);
const_assert!(offset_of!(Record, label) == 120);
const_assert!(offset_of!(Record, user) == 184);
const_assert!(offset_of!(Record, reserved) == 696);

impl Record {
    /// The head in the first words of a buffer.
    pub(super) fn of(words: &[AtomicU64]) -> &Record {
        let words = &words[..HEAD / WORD];
        // SAFETY: as many words as the record has, which is words and nothing else.
        unsafe { &*words.as_ptr().cast() }
    }

    /// Makes it that of a new message.
    pub(super) fn clear(&self, data_size: u64) {
        let Record {
            data_type,
            data_size: size,
            return_code,
            start_time,
            end_time,
            rank,
            shape,
            label_len,
            label,
            user,
            reserved,
        } = self;
        let single = [
            data_type,
            return_code,
            start_time,
            end_time,
            rank,
            label_len,
        ];
        let all = single.into_iter().chain(shape).chain(label);
        all.chain(user)
            .chain(reserved)
            .for_each(|word| word.store(0, Relaxed));
        size.store(data_size, Relaxed);
    }
}

/// The type of a message's elements: one of those named here, or a number of the program's own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct DataType(pub u64);

#[allow(missing_docs)]
impl DataType {
    /// Bytes of no type.
    pub const BYTES: DataType = DataType(0);
    pub const I8: DataType = DataType(1);
    pub const I16: DataType = DataType(2);
    pub const I32: DataType = DataType(3);
    pub const I64: DataType = DataType(4);
    pub const U8: DataType = DataType(5);
    pub const U16: DataType = DataType(6);
    pub const U32: DataType = DataType(7);
    pub const U64: DataType = DataType(8);
    pub const F16: DataType = DataType(9);
    pub const F32: DataType = DataType(10);
    pub const F64: DataType = DataType(11);
    pub const BOOL: DataType = DataType(12);
    pub const TEXT: DataType = DataType(13);
    /// The first number that a program may give a meaning of its own.
    pub const FIRST_OWN: DataType = DataType(1 << 32);
}

/// The extents of a message's data, outermost first: up to 8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Shape {
    rank: usize,
    extents: [u64; DIMENSIONS],
}

impl Shape {
    /// With these extents; `None` if there are more than 8.
    pub fn new(extents: &[u64]) -> Option<Shape> {
        let mut shape = Shape::default();
        shape
            .extents
            .get_mut(..extents.len())?
            .copy_from_slice(extents);
        shape.rank = extents.len();
        Some(shape)
    }

    /// The extents.
    pub fn extents(&self) -> &[u64] {
        &self.extents[..self.rank]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.extents().fmt(f)
    }
}

/// Where a message goes: up to 64 bytes of text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteLabel {
    len: usize,
    bytes: [u8; LABEL],
}

impl RouteLabel {
    /// With this text; `None` if it has more than 64 bytes.
    pub fn new(text: &str) -> Option<RouteLabel> {
        let mut bytes = [0; LABEL];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(RouteLabel {
            len: text.len(),
            bytes,
        })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only text is ever put in.
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Debug for RouteLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// The head of a message, to be read. Another process may have written anything into it: what can
/// be no value reads as none.
#[derive(Clone, Copy)]
pub struct Head<'a>(&'a Record);

impl<'a> Head<'a> {
    pub(super) fn new(record: &'a Record) -> Head<'a> {
        Head(record)
    }

    /// The type of the elements.
    pub fn data_type(&self) -> DataType {
        DataType(self.0.data_type.load(Relaxed))
    }

    /// How many bytes of the data count: all of them, until somebody says otherwise.
    pub fn data_size(&self) -> u64 {
        self.0.data_size.load(Relaxed)
    }

    /// The extents; `None` if there are none.
    pub fn shape(&self) -> Option<Shape> {
        let rank = self.0.rank.load(Relaxed).try_into().ok();
        let rank = rank.filter(|rank| (1..=DIMENSIONS).contains(rank))?;
        let mut extents = [0; DIMENSIONS];
        for (extent, word) in extents.iter_mut().zip(&self.0.shape).take(rank) {
            *extent = word.load(Relaxed);
        }
        Some(Shape { rank, extents })
    }

    /// What the last node said of it; 0 at first.
    pub fn return_code(&self) -> i64 {
        self.0.return_code.load(Relaxed) as i64
    }

    /// Where it goes; `None` if that is not said.
    pub fn route_label(&self) -> Option<RouteLabel> {
        let len = self.0.label_len.load(Relaxed).try_into().ok();
        let len = len.filter(|len| (1..=LABEL).contains(len))?;
        let mut bytes = [0; LABEL];
        SharedBytes::new(&self.0.label, LABEL).read_at(0, &mut bytes);
        core::str::from_utf8(&bytes[..len]).ok()?;
        Some(RouteLabel { len, bytes })
    }

    /// 512 bytes for the program's own use.
    pub fn user_data(&self) -> SharedBytes<'a> {
        SharedBytes::new(&self.0.user, USER)
    }

    /// When work on it began; `None` if that is not said. To the nanosecond, until the year 2554.
    pub fn start_time(&self) -> Option<SystemTime> {
        time(&self.0.start_time)
    }

    /// When work on it ended; `None` if that is not said.
    pub fn end_time(&self) -> Option<SystemTime> {
        time(&self.0.end_time)
    }
}

impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("data_type", &self.data_type())
            .field("data_size", &self.data_size())
            .field("shape", &self.shape())
            .field("return_code", &self.return_code())
            .field("route_label", &self.route_label())
            .field("start_time", &self.start_time())
            .field("end_time", &self.end_time())
            .finish_non_exhaustive()
    }
}

fn time(word: &AtomicU64) -> Option<SystemTime> {
    match word.load(Relaxed) {
        0 => None,
        nanos => Some(UNIX_EPOCH + Duration::from_nanos(nanos)),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// The head of a message that nobody else holds, to be written.
pub struct HeadMut<'a>(&'a Record);

impl<'a> HeadMut<'a> {
    pub(super) fn new(record: &'a Record) -> HeadMut<'a> {
        HeadMut(record)
    }

    /// To be read.
    pub fn shared(&self) -> Head<'_> {
        Head(self.0)
    }

    /// Sets the type of the elements.
    pub fn set_data_type(&mut self, data_type: DataType) {
        self.0.data_type.store(data_type.0, Relaxed);
    }

    /// Sets how many bytes of the data count.
    pub fn set_data_size(&mut self, bytes: u64) {
        self.0.data_size.store(bytes, Relaxed);
    }

    /// Sets the extents.
    pub fn set_shape(&mut self, shape: Shape) {
        for (word, extent) in self.0.shape.iter().zip(shape.extents) {
            word.store(extent, Relaxed);
        }
        self.0.rank.store(shape.rank as u64, Relaxed);
    }

    /// Sets what this node says of it.
    pub fn set_return_code(&mut self, code: i64) {
        self.0.return_code.store(code as u64, Relaxed);
    }

    /// Sets where it goes.
    pub fn set_route_label(&mut self, label: RouteLabel) {
        ExclusiveBytes::new(&self.0.label, LABEL).write_at(0, &label.bytes);
        self.0.label_len.store(label.len as u64, Relaxed);
    }

    /// 512 bytes for the program's own use.
    pub fn user_data(&mut self) -> ExclusiveBytes<'_> {
        ExclusiveBytes::new(&self.0.user, USER)
    }

    /// Sets when work on it began. Times before 1970 are that of its beginning, and count as unset.
    pub fn set_start_time(&mut self, time: SystemTime) {
        self.0.start_time.store(nanos(time), Relaxed);
    }

    /// Sets when work on it ended.
    pub fn set_end_time(&mut self, time: SystemTime) {
        self.0.end_time.store(nanos(time), Relaxed);
    }
}

impl fmt::Debug for HeadMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn words() -> Vec<AtomicU64> {
        (0..HEAD / WORD).map(|_| AtomicU64::new(u64::MAX)).collect()
    }

    #[test]
    fn every_field_comes_back() {
        let words = words();
        let record = Record::of(&words);
        record.clear(77);
        let mut head = HeadMut::new(record);
        assert_eq!(head.shared().shape(), None);
        assert_eq!(head.shared().route_label(), None);
        assert_eq!(head.shared().start_time(), None);
        assert!(
            head.user_data()
                .shared()
                .to_vec()
                .iter()
                .all(|&byte| byte == 0)
        );
        let now = SystemTime::now();
        let shape = Shape::new(&[640, 480, 3]).unwrap();
        let label = RouteLabel::new("camera/left").unwrap();
        head.set_data_type(DataType::F32);
        head.set_shape(shape);
        head.set_return_code(-5);
        head.set_route_label(label);
        head.user_data().write_at(500, b"end of user!");
        head.set_start_time(now);
        head.set_end_time(now + Duration::from_secs(1));
        let head = Head::new(record);
        assert_eq!((head.data_type(), head.data_size()), (DataType::F32, 77));
        assert_eq!(head.shape().unwrap().extents(), [640, 480, 3]);
        assert_eq!(head.return_code(), -5);
        assert_eq!(head.route_label().unwrap().as_str(), "camera/left");
        assert_eq!(&head.user_data().to_vec()[500..], b"end of user!");
        assert_eq!(head.start_time(), Some(now));
        assert_eq!(head.end_time(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn edges_of_shapes_and_labels() {
        assert_eq!(Shape::new(&[7; 8]).unwrap().extents(), [7; 8]);
        assert_eq!(Shape::new(&[7; 9]), None);
        let longest = "x".repeat(LABEL);
        assert_eq!(RouteLabel::new(&longest).unwrap().as_str(), longest);
        assert_eq!(RouteLabel::new(&"x".repeat(LABEL + 1)), None);
    }

    #[test]
    fn what_can_be_no_value_is_none() {
        let words = words();
        let head = Head::new(Record::of(&words));
        assert_eq!((head.shape(), head.route_label()), (None, None));
        // 9 extents, 65 bytes; 8 bytes that are no text.
        words[5].store(9, Relaxed);
        words[14].store(65, Relaxed);
        assert_eq!((head.shape(), head.route_label()), (None, None));
        words[5].store(8, Relaxed);
        words[14].store(8, Relaxed);
        assert_eq!(head.shape().unwrap().extents(), [u64::MAX; 8]);
        assert_eq!(head.route_label(), None);
        assert!(head.end_time().is_some());
    }
}
