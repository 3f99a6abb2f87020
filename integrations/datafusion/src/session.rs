//! What all plans of one installation share.

use crate::books::Query;
use crate::history::History;
use crate::pool::is_ours;
use crate::process::ProcessBytes;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryPool;
use std::sync::Arc;

/// What to do with a query whose session has another memory pool than the one that was installed.
///
/// `SET datafusion.runtime.memory_limit` and its `RESET` replace the pool by one of DataFusion's,
/// without a word: the limit holds for what operators declare, and bursar hears of none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OtherPool {
    /// Run it, and say so in its report, in `bursar_memory` and by `log::warn!`.
    #[default]
    Tell,
    /// Refuse to run it, with a configuration error.
    Refuse,
}

/// What all plans of one installation share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) history: Arc<History>,
    pub(crate) process: Option<Arc<ProcessBytes>>,
    pub(crate) other_pool: OtherPool,
}

impl Session {
    /// Looks whether the pool that a query is about to run with is the one that was installed.
    pub(crate) fn check_pool(&self, query: &Query, pool: &dyn MemoryPool) -> Result<()> {
        if is_ours(pool) {
            return Ok(());
        }
        let told = format!(
            "the session's memory pool was replaced by {pool}, as SET \
             datafusion.runtime.memory_limit does: declarations are unknown to bursar"
        );
        match self.other_pool {
            OtherPool::Refuse => Err(DataFusionError::Configuration(told)),
            OtherPool::Tell => {
                if query.note_other_pool(&pool.to_string()) {
                    log::warn!("query {}: {told}", query.id());
                }
                Ok(())
            }
        }
    }

    /// Done between polls.
    pub(crate) fn between_polls(&self) {
        if let Some(process) = &self.process {
            process.look();
        }
    }
}
