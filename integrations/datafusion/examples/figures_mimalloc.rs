//! The queries on mimalloc, with plain DataFusion; started by the example `figures`.

#[path = "figures/child.rs"]
mod child;

use datafusion::prelude::SessionContext;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    child::main_with(SessionContext::new_with_config)
}
