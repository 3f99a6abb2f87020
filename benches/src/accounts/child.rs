//! The process on bursar, with or without its account layer.

use std::io;

use super::resident::{self, Plan};
use crate::micro::{self, Row};
use crate::remote;

static BURSAR: bursar::Bursar = bursar::Bursar::new();

/// The rows that are served, those of every allocator first.
#[must_use]
pub fn rows() -> Vec<Row> {
    let rows = micro::rows(&BURSAR);
    #[cfg(feature = "accounts")]
    let rows = rows.into_iter().chain(micro::consumers::rows()).collect();
    rows
}

/// The main function: `rows`, `rows entered` or `resident <plan>`.
///
/// # Errors
/// If the arguments are none of these, or pipes break.
pub fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["rows"] => remote::answer(&rows()),
        #[cfg(feature = "accounts")]
        ["rows", "entered"] => bursar::Consumer::new("all").run(|| remote::answer(&rows())),
        ["resident", plan] => {
            let plan: Plan = serde_json::from_str(plan)?;
            println!("{}", serde_json::to_string(&resident::hold(plan)?)?);
            Ok(())
        }
        _ => Err(io::Error::other("rows [entered] | resident <plan>")),
    }
}
