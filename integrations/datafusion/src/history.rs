//! What a session knows of its queries: those that are alive, and the reports of those that ended.

use crate::books::Query;
use crate::report::QueryReport;
use bursar::Consumer;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Called with the report of each query that has ended.
pub(crate) type OnReport = Arc<dyn Fn(&QueryReport) + Send + Sync>;

/// The queries of one installation.
pub(crate) struct History {
    /// Above all queries.
    root: Consumer,
    /// Has what the history itself keeps.
    own: Consumer,
    keep: usize,
    on_report: Option<OnReport>,
    queries: Mutex<Queries>,
}

#[derive(Default)]
struct Queries {
    alive: Vec<Weak<Query>>,
    ended: VecDeque<Arc<QueryReport>>,
}

impl History {
    /// A history that keeps the reports of the last `keep` queries.
    pub(crate) fn new(keep: usize, on_report: Option<OnReport>) -> Arc<History> {
        let root = Consumer::new("datafusion");
        Arc::new(History {
            own: root.child("reports"),
            root,
            keep,
            on_report,
            queries: Mutex::default(),
        })
    }

    /// The consumer above those of all queries.
    pub(crate) fn root(&self) -> &Consumer {
        &self.root
    }

    fn queries(&self) -> MutexGuard<'_, Queries> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begun(&self, query: &Arc<Query>) {
        self.own
            .run(|| self.queries().alive.push(Arc::downgrade(query)));
    }

    /// Queries whose books are open.
    pub(crate) fn alive(&self) -> Vec<Arc<Query>> {
        let alive = self.queries().alive.clone();
        alive.iter().filter_map(Weak::upgrade).collect()
    }

    /// Reports of queries that have ended, the latest last.
    pub(crate) fn reports(&self) -> Vec<Arc<QueryReport>> {
        self.queries().ended.iter().cloned().collect()
    }

    /// The last handle of a query is gone. Plans that were never executed, such as those that are
    /// only explained, have nothing to report.
    pub(crate) fn ended(&self, query: &Query) {
        let report = query
            .ran()
            .then(|| self.own.run(|| Arc::new(QueryReport::of(query))));
        self.own.run(|| {
            let mut queries = self.queries();
            queries.alive.retain(|alive| alive.strong_count() > 0);
            queries.ended.extend(report.clone());
            while queries.ended.len() > self.keep {
                queries.ended.pop_front();
            }
        });
        if let (Some(report), Some(call)) = (report, &self.on_report) {
            call(&report);
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("root", &self.root).finish()
    }
}
