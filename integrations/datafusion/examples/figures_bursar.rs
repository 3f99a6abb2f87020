//! The queries on bursar, with all accounts; started by the example `figures`.

#[path = "figures/child.rs"]
mod child;

use bursar_datafusion::{Options, install};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();

fn session(config: SessionConfig) -> SessionContext {
    let builder = SessionStateBuilder::new_with_default_features().with_config(config);
    SessionContext::new_with_state(install(builder, Options::new()).build())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    child::main_with(session)
}
