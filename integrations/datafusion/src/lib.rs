//! DataFusion on bursar: what operators declare beside what they really hold.
//!
//! DataFusion's memory pool sees what operators declare. What streams by, what is decoded, and what
//! a hash table takes between two declarations it does not see: processes are killed far below
//! their limit. With bursar as the program's global allocator, [`install`] gives each node of each
//! plan a consumer, so that both stand side by side, and limits hold for what is really there.
//!
//! From the lowest layer up:
//!
//! | module | |
//! |---|---|
//! | `peak` | a number of bytes and the most it was |
//! | `books`, `report`, `history` | a query's consumers, its report, and the queries of a session |
//! | `process` | admission by real bytes of the process |
//! | `consumers`, `pool` | DataFusion's consumers and reservations |
//! | `session` | what all plans of an installation share |
//! | `metrics`, `stream`, `node`, `rule` | the plan: each node in the scope of its consumer |
//! | `spawn` | work that operators spawn |
//! | `table` | `bursar_memory()` |
//! | `options`, `install` | setting a session up |

mod books;
mod consumers;
mod history;
mod install;
mod metrics;
mod node;
mod options;
mod peak;
mod pool;
mod process;
mod report;
mod rule;
mod session;
mod spawn;
mod stream;
mod table;

pub use install::{Accounts, install, report};
pub use options::Options;
pub use pool::BursarMemoryPool;
pub use report::{NodeReport, QueryReport};
pub use rule::unwrap;
pub use session::OtherPool;
pub use spawn::Spawned;
