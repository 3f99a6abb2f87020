//! The programs that do work.

mod archive;
mod cache;
mod codecs;
mod database;
mod egraph;
mod index;
mod json;
mod markdown;
mod parallel;
mod persistent;
mod rust_analyzer;
mod script;
mod sets;
mod syntax;
mod template;
mod text;

use super::Job;

impl Job<'_> {
    /// `count` divided by the divisor, at least one.
    fn portion(&self, count: usize) -> usize {
        (count / self.divisor).max(1)
    }
}

/// The program of that name.
pub fn find(name: &str) -> Option<fn(&Job) -> u64> {
    Some(match name {
        "syn" => syntax::run,
        "rust-analyzer" => rust_analyzer::run,
        "serde_json" => json::run,
        "regex" => text::run,
        "tantivy" => index::run,
        "rhai" => script::run,
        "markdown" => markdown::run,
        "egg" => egraph::run,
        "moka" => cache::run,
        "roaring" => sets::run,
        "codecs" => codecs::run,
        "zip" => archive::run,
        "minijinja" => template::run,
        "redb" => database::run,
        "imbl" => persistent::run,
        _ => return None,
    })
}
