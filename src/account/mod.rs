//! Accounts: who holds which bytes. Consumers with names and ids in a tree, scopes that attribute
//! what a thread or a future allocates, reservations, budgets, limits, reports, streams.
//!
//! Thin: the counts are kept by the arenas; this layer gives owners names and reads the counts.
//! Nothing here is called from inside the allocator, so it may allocate, take locks and use epochs.

mod budget;
mod columns;
mod consumer;
mod declared;
mod epoch;
mod future;
mod limit;
mod presence;
mod record;
mod registry;
mod report;
mod reservation;
mod scope;
#[cfg(feature = "sites")]
mod site;
pub mod stream;
mod task;
mod transfer;
mod usage;

pub use budget::{
    Books, Budget, BudgetError, Claim, Fair, Greedy, Holder, Holding, Holdings, Policy, RealBytes,
    Reclaim, Refusal, Room, ShrinkError, Tracked, TrackedReservation, Tracking, TrackingReport,
    Unbounded,
};
pub use consumer::Consumer;
pub use future::Attributed;
pub use limit::{Limits, Pressure, PressureEnded};
pub(crate) use report::report_if_any;
pub use report::{ConsumerSnapshot, Consumers, Report, consumers, report};
pub use reservation::Reservation;
pub use scope::{Scope, current};
#[cfg(feature = "sites")]
pub use site::{Site, Trace, sites};
#[cfg(feature = "allocator-api2")]
pub use task::TaskArena;
pub use task::{
    EndError, EndReport, Left, LeftReservation, Lent, MemoryManager, RegisterError, Registered,
    ReleaseFailure, Released, Resource, RunningTask, RunningTasks, TaskBuilder, TaskConsumer,
    TaskEnded, TaskFuture, TaskHandle, TaskReservation, TaskScope, running_tasks,
};
pub use transfer::{Charged, Transfer, TransferError, transfer, transfer_all, transfer_block};
pub use usage::{ClassUsage, Usage, unattributed};
