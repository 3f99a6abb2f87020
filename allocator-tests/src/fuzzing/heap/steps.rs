//! The steps of a sequence, and how they are made of a fuzzer's bytes.

use std::alloc::Layout;

use arbitrary::{Arbitrary, Unstructured};

/// One step. Places are taken modulo how many there are; what asks for
/// something that is not there does nothing.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// The steps that follow are those of this thread.
    Turn(u8),
    /// This thread ends; its place is a new thread's when its turn comes.
    Exit(u8),
    /// Allocates a block.
    Allocate(Size, Align, bool),
    /// Allocates so many blocks.
    AllocateMany(Size, u8),
    /// Frees a block.
    Free(u16),
    /// Frees so many from there on.
    FreeMany(u16, u8),
    /// Reallocates a block.
    Reallocate(u16, Size),
    /// Asks for what nobody can have.
    Impossible(u8, Align),
    /// Makes a consumer, below another perhaps, in this place.
    Open(u8, Option<u8>),
    /// Drops the handle to a consumer.
    Close(u8),
    /// Enters a consumer's scope.
    Enter(u8),
    /// Leaves a scope, counted from the innermost.
    Leave(u8),
    /// Forgets a scope.
    Forget(u8),
    /// Hands a block over to a consumer.
    Transfer(u16, u8),
    /// Sets a consumer's soft and hard limit.
    Limit(u8, Option<Size>, Option<Size>),
    /// Allocates where limits are heeded.
    Try(u8, Size, bool),
    /// A safe point of a consumer.
    SafePoint(u8),
    /// Begins a reservation of a consumer in this place.
    Register(u8, u8),
    /// Changes a reservation.
    Reserve(u8, Change),
    /// Enters a reservation's scope.
    EnterReserved(u8),
    /// Makes a pool in this place, of some kilobytes, with a limit.
    OpenPool(u8, Size, Option<Size>),
    /// Drops the handle to a pool.
    ClosePool(u8),
    /// Has a consumer's memory come from a pool.
    Bind(u8, u8),
    /// Allocates a block in a pool.
    AllocateIn(u8, Size, Align, bool),
    /// Gives memory back.
    Purge,
    /// Compares all that is on the books.
    Compare,
}

/// What is done with a reservation.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Change {
    /// `grow`
    Grow(u16),
    /// `try_grow`
    TryGrow(u16),
    /// `try_shrink`
    Shrink(u16),
    /// `resize`
    Resize(u16),
    /// `try_resize`
    TryResize(u16),
    /// `try_split`, to this place
    Split(u16, u8),
    /// `take`, to this place
    Take(u8),
    /// `new_empty`, in this place
    NewEmpty(u8),
    /// `free`
    Free,
    /// It is dropped.
    Drop,
}

/// Bytes of a block: small mostly, at most 10 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub usize);

impl<'a> Arbitrary<'a> for Size {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let (kind, draw) = <(u8, u16)>::arbitrary(bytes)?;
        let draw = usize::from(draw);
        Ok(Self(match kind {
            0..128 => 1 + draw % 512,
            128..192 => 1 + draw % 4096,
            192..224 => 1 + draw % 40_000,
            224..248 => 1 + draw * 5,
            _ => 1 + draw * 160,
        }))
    }

    fn size_hint(_: usize) -> (usize, Option<usize>) {
        (3, Some(3))
    }
}

/// Log2 of an alignment: that of Rust's types mostly, at most 8 MiB.
#[derive(Clone, Copy, Debug)]
pub struct Align(u32);

impl<'a> Arbitrary<'a> for Align {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let draw = u32::from(u8::arbitrary(bytes)?);
        Ok(Self(match draw {
            0..200 => draw % 5,
            200..245 => draw % 17,
            _ => 14 + draw % 10,
        }))
    }

    fn size_hint(_: usize) -> (usize, Option<usize>) {
        (1, Some(1))
    }
}

impl Align {
    /// The alignment.
    pub fn bytes(self) -> usize {
        1 << self.0
    }
}

impl Size {
    /// A layout of this size.
    pub fn at(self, align: Align) -> Layout {
        self.aligned(align.bytes())
    }

    /// A layout of this size, at words.
    pub fn plain(self) -> Layout {
        self.aligned(8)
    }

    fn aligned(self, align: usize) -> Layout {
        Layout::from_size_align(self.0, align).expect("far below the limit")
    }
}
