//! What the account layer costs, and what it is good for beside the published
//! wrappers: one line for each promise, from runs side by side.
//!
//! `cargo run --profile bench -p bursar-benches --bin accounts` measures all,
//! prints the table and writes `bench-reports/accounts.json`; `-- --only
//! direct,calls` measures parts, `-- --smoke` sees whether it runs. Half an
//! hour, most of it to build and run the published programs.
//!
//! Cargo cannot have bursar with and without its account layer in one binary:
//! [`child`] is built twice, and the two answer in turn. A second process of
//! the one without stands beside them and shows what is noise.

#[cfg(feature = "bursar")]
pub mod child;
pub mod figure;
pub mod resident;

#[cfg(feature = "accounts")]
pub mod calls;
#[cfg(feature = "accounts")]
pub mod direct;
#[cfg(feature = "accounts")]
pub mod exact;
#[cfg(feature = "accounts")]
pub mod whole;
