//! What an installation is told.

use crate::history::OnReport;
use crate::report::QueryReport;
use crate::session::OtherPool;
use bursar::Budget;
use datafusion::common::runtime::JoinSetTracer;
use std::fmt;
use std::sync::Arc;

/// What admits reservations.
#[derive(Clone, Debug, Default)]
pub(crate) enum Admission {
    /// Everything is.
    #[default]
    Unbounded,
    /// A budget of the caller's.
    Budget(Arc<dyn Budget>),
    /// Real bytes of the process.
    Process { limit: u64, slack: Option<u64> },
}

/// How [`install`](crate::install) sets a session up. Without any of it: no limit, all accounts.
#[derive(Clone, Default)]
pub struct Options {
    pub(crate) admission: Admission,
    pub(crate) tracer: Option<&'static dyn JoinSetTracer>,
    pub(crate) on_report: Option<OnReport>,
    pub(crate) keep: Option<usize>,
    pub(crate) other_pool: OtherPool,
}

impl Options {
    /// No limit.
    pub fn new() -> Options {
        Options::default()
    }

    /// Reservations are admitted by `budget`: any of bursar's, or one's own.
    #[must_use]
    pub fn budget(mut self, budget: Arc<dyn Budget>) -> Options {
        self.admission = Admission::Budget(budget);
        self
    }

    /// Limits the bytes that the process really holds, declared or not.
    ///
    /// Reservations are refused that would pass the limit, or half of it for operators that can
    /// spill: they do so then, and need the other half for merging what they write. The first bytes
    /// of each operator may take half of the slack. What is allocated without a reservation may
    /// pass the limit by the slack: beyond that the query that holds most ends at its next poll, with
    /// [`ResourcesExhausted`], and others go on. Above the limit, pages that are free go back to the
    /// system at once.
    ///
    /// Memory is looked at once a millisecond, at polls: what all threads together can allocate
    /// in one poll of each comes on top.
    ///
    /// [`ResourcesExhausted`]: datafusion::error::DataFusionError::ResourcesExhausted
    #[must_use]
    pub fn process_limit(mut self, bytes: u64) -> Options {
        let slack = self.slack();
        self.admission = Admission::Process {
            limit: bytes,
            slack,
        };
        self
    }

    /// The slack of [`process_limit`](Options::process_limit), in bytes: an eighth of the limit,
    /// but at least 32 MiB, if it is not set. Without a limit it says nothing.
    #[must_use]
    pub fn process_slack(mut self, bytes: u64) -> Options {
        if let Admission::Process { slack, .. } = &mut self.admission {
            *slack = Some(bytes);
        }
        self
    }

    fn slack(&self) -> Option<u64> {
        match self.admission {
            Admission::Process { slack, .. } => slack,
            Admission::Unbounded | Admission::Budget(_) => None,
        }
    }

    /// A tracer of spawned tasks to call inside bursar's. DataFusion keeps one a process, which can
    /// be set once: so the program leaves setting it to [`install`](crate::install).
    #[must_use]
    pub fn tracer(mut self, next: &'static dyn JoinSetTracer) -> Options {
        self.tracer = Some(next);
        self
    }

    /// Calls `call` with the report of each query that was executed, when its plan, its streams and
    /// the tasks it spawned are gone, on the thread that dropped the last of them. It must not
    /// block.
    #[must_use]
    pub fn on_report(mut self, call: impl Fn(&QueryReport) + Send + Sync + 'static) -> Options {
        self.on_report = Some(Arc::new(call));
        self
    }

    /// How many reports of queries that ended are kept; 100 if it is not set.
    #[must_use]
    pub fn keeping(mut self, reports: usize) -> Options {
        self.keep = Some(reports);
        self
    }

    /// What to do with queries whose session was given another memory pool meanwhile.
    #[must_use]
    pub fn other_pool(mut self, what: OtherPool) -> Options {
        self.other_pool = what;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("admission", &self.admission)
            .field("tracer", &self.tracer.is_some())
            .field("on_report", &self.on_report.is_some())
            .field("keep", &self.keep)
            .field("other_pool", &self.other_pool)
            .finish()
    }
}
