//! What the fuzz targets run on an input; `fuzz/` has the targets.
//!
//! | file | what it covers |
//! |---|---|
//! | `conf.rs` | the parser of `BURSAR_CONF`, against another |
//! | `pool_spec.rs` | the parser of specifications of pools, against another and the compiler |
//! | `heap/` | sequences of steps over the allocator, against a shadow |
//! | `family.rs` | sequences of calls of the C interface, against a shadow |

pub mod conf;
pub mod family;
pub mod heap;
pub mod pool_spec;

/// What is wrong.
pub type Found = Result<(), String>;

/// An error unless two figures are the same.
fn same<T: PartialEq + std::fmt::Debug>(
    what: impl std::fmt::Display,
    books: T,
    shadow: T,
) -> Found {
    if books == shadow {
        Ok(())
    } else {
        Err(format!(
            "{what}: {books:?} on the books, {shadow:?} in the shadow"
        ))
    }
}

/// An error unless something holds.
fn holds(truth: bool, what: impl FnOnce() -> String) -> Found {
    if truth { Ok(()) } else { Err(what()) }
}
