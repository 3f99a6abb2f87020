//! Setting up a session, and asking it.

use crate::history::History;
use crate::node::AccountedExec;
use crate::options::{Admission, Options};
use crate::pool::BursarMemoryPool;
use crate::process::ProcessBytes;
use crate::report::QueryReport;
use crate::rule::{AccountRule, wrapped};
use crate::session::Session;
use crate::spawn::{Spawned, trace};
use crate::table::{MemoryFunction, NAME};
use bursar::{Consumer, Unbounded};
use datafusion::catalog::TableFunction;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

const KEPT: usize = 100;
const LEAST_SLACK: u64 = 32 << 20;

/// Sets up sessions that keep accounts: a [`BursarMemoryPool`] in place of the memory pool, the
/// rule that wraps each node of a plan, the tracer of spawned tasks, and the table function
/// `bursar_memory()`. All else in the builder stays as it is.
///
/// Rules that are added later see through the wrappers. Sessions made from the same state, or
/// cloned, share the pool and the [`Accounts`].
///
/// ```
/// use bursar_datafusion::{Options, install};
/// use datafusion::execution::session_state::SessionStateBuilder;
/// use datafusion::prelude::SessionContext;
///
/// #[global_allocator]
/// static GLOBAL: bursar::Bursar = bursar::Bursar::new();
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> datafusion::error::Result<()> {
/// let builder = SessionStateBuilder::new_with_default_features();
/// let state = install(builder, Options::new().process_limit(1 << 30)).build();
/// let session = SessionContext::new_with_state(state);
///
/// session.sql("SELECT sum(value) FROM range(100000) ORDER BY 1").await?.collect().await?;
/// let sql = "SELECT sum(live_bytes) FROM bursar_memory()";
/// session.sql(sql).await?.show().await?;
/// # Ok(())
/// # }
/// ```
pub fn install(mut builder: SessionStateBuilder, options: Options) -> SessionStateBuilder {
    let history = History::new(options.keep.unwrap_or(KEPT), options.on_report);
    let (pool, process) = pool(&history, options.admission);
    let runtime = with_pool(builder.runtime_env().take(), &pool);
    let session = Arc::new(Session {
        history,
        process,
        other_pool: options.other_pool,
    });
    let accounts = Accounts {
        session: Arc::clone(&session),
        pool,
        spawned: trace(options.tracer),
    };
    let function = Arc::new(TableFunction::new(NAME.into(), Arc::new(MemoryFunction)));
    let functions = builder.table_functions().get_or_insert_default();
    functions.insert(NAME.into(), function);
    let config = builder.config().take().unwrap_or_default();
    builder
        .with_config(config.with_extension(Arc::new(accounts)))
        .with_runtime_env(runtime)
        .with_physical_optimizer_rule(Arc::new(AccountRule::new(session)))
}

type MaybeProcess = Option<Arc<ProcessBytes>>;

fn pool(history: &Arc<History>, admission: Admission) -> (Arc<BursarMemoryPool>, MaybeProcess) {
    let root = history.root().clone();
    match admission {
        Admission::Unbounded => {
            let budget = Arc::new(Unbounded::new());
            (Arc::new(BursarMemoryPool::below(root, budget)), None)
        }
        Admission::Budget(budget) => (Arc::new(BursarMemoryPool::below(root, budget)), None),
        Admission::Process { limit, slack } => {
            let slack = slack.unwrap_or((limit / 8).max(LEAST_SLACK));
            let process = ProcessBytes::new(limit, slack, history);
            let pool = BursarMemoryPool::of_process(root, Arc::clone(&process));
            (Arc::new(pool), Some(process))
        }
    }
}

/// The builder's environment, or a fresh one, with another pool.
fn with_pool(runtime: Option<Arc<RuntimeEnv>>, pool: &Arc<BursarMemoryPool>) -> Arc<RuntimeEnv> {
    let pool: Arc<dyn MemoryPool> = pool.clone();
    let runtime = runtime.unwrap_or_default();
    let built = RuntimeEnvBuilder::from_runtime_env(&runtime)
        .with_memory_pool(Arc::clone(&pool))
        .build_arc();
    built.unwrap_or_else(|_| {
        // Only directories for temporary files can fail, and those of `runtime` exist.
        let mut same = RuntimeEnv::clone(&runtime);
        same.memory_pool = pool;
        Arc::new(same)
    })
}

/// What is known of the queries of an installation.
pub struct Accounts {
    session: Arc<Session>,
    pool: Arc<BursarMemoryPool>,
    spawned: Spawned,
}

impl Accounts {
    /// Those of a session's state, if they were installed there.
    ///
    /// ```
    /// # use bursar_datafusion::{Accounts, Options, install};
    /// # use datafusion::execution::session_state::SessionStateBuilder;
    /// let state = install(SessionStateBuilder::new(), Options::new()).build();
    /// assert!(Accounts::of(&state).unwrap().reports().is_empty());
    /// ```
    pub fn of(state: &SessionState) -> Option<Arc<Accounts>> {
        state.config().get_extension()
    }

    /// A plan that was not made by a session of this installation, such as one that came from
    /// elsewhere, with its nodes wrapped as if it had been. Run it with a pool of this installation.
    ///
    /// # Errors
    /// If a node refuses its own children.
    pub fn wrap(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        wrapped(plan, &self.session)
    }

    /// The consumer above all that the queries of this installation hold.
    pub fn consumer(&self) -> &Consumer {
        self.session.history.root()
    }

    /// The memory pool.
    pub fn pool(&self) -> &Arc<BursarMemoryPool> {
        &self.pool
    }

    /// What becomes of the work that operators spawn.
    pub fn spawned(&self) -> Spawned {
        self.spawned
    }

    /// Queries that were executed and are not over, as they are now, in the order of their
    /// beginning.
    pub fn running(&self) -> Vec<QueryReport> {
        let alive = self.session.history.alive();
        let ran = alive.iter().filter(|query| query.ran());
        ran.map(|query| QueryReport::of(query)).collect()
    }

    /// The last queries that are over, the latest last.
    pub fn reports(&self) -> Vec<Arc<QueryReport>> {
        self.session.history.reports()
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts")
            .field("pool", &self.pool)
            .field("spawned", &self.spawned)
            .finish_non_exhaustive()
    }
}

/// The report of a plan that [`install`] has wrapped, as of now; `None` for other plans.
pub fn report(plan: &dyn ExecutionPlan) -> Option<QueryReport> {
    let books = AccountedExec::inside(plan)?.books();
    Some(QueryReport::of(&books.query))
}
