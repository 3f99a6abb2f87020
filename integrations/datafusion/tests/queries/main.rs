//! Plans, queries and books, on TPC-H data. The tests share one allocator, and with it all figures,
//! so they take turns.

mod books;
mod cancellation;
mod equality;
mod growth;
mod pool;
mod pools_replaced;
mod shapes;
mod shown;
#[path = "../support/mod.rs"]
mod support;

#[global_allocator]
static GLOBAL: bursar::Bursar = bursar::Bursar::new();
