//! What goes wrong with streams.

use core::error::Error;
use core::fmt;
use std::boxed::Box;

/// The cause of a [failure](StreamError::Failed).
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why a stream ended before its end. A receiver gets it in order, as the next item after those
/// that were produced before it, and nothing after it.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamError {
    /// The producer, or a stage before it, says that it failed.
    Failed(Cause),
    /// The producer's thread or task, or the closure of a stage, panicked.
    Panicked,
    /// The producer was dropped without having said that this was all: its task was cancelled, or
    /// [`finish`](super::Producer::finish) was forgotten.
    Abandoned,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Failed(cause) => write!(f, "the stream failed: {cause}"),
            StreamError::Panicked => f.write_str("the stream's producer panicked"),
            StreamError::Abandoned => f.write_str("the stream's producer was gone before the end"),
        }
    }
}

impl Error for StreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StreamError::Failed(cause) => Some(&**cause),
            _ => None,
        }
    }
}

/// Why something was not sent, with what was to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<I> {
    /// The receiver is gone: nothing will be received any more.
    Closed(I),
    /// There is no room for it now. Only from [`try_send`](super::Producer::try_send).
    Full(I),
}

impl<I> SendError<I> {
    /// What was to be sent.
    pub fn into_inner(self) -> I {
        match self {
            SendError::Closed(item) | SendError::Full(item) => item,
        }
    }

    pub(super) fn map<J>(self, change: impl FnOnce(I) -> J) -> SendError<J> {
        match self {
            SendError::Closed(item) => SendError::Closed(change(item)),
            SendError::Full(item) => SendError::Full(change(item)),
        }
    }

    fn text(&self) -> &'static str {
        match self {
            SendError::Closed(_) => "the stream's receiver is gone",
            SendError::Full(_) => "the stream has no room for the item now",
        }
    }
}

impl<I> fmt::Debug for SendError<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Closed(_) => "Closed(..)",
            SendError::Full(_) => "Full(..)",
        })
    }
}

impl<I> fmt::Display for SendError<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<I> Error for SendError<I> {}
