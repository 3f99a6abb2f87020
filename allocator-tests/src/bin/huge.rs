//! Helper of the tests: a program whose pool is to be of huge pages, more than any machine has set
//! aside.

use bursar::{Backing, Bursar};

#[global_allocator]
static GLOBAL: Bursar = Bursar::with_pools("1048576,274810798080")
    .with_backings(&[Backing::Memory, Backing::HugePages]);

fn main() {
    println!("{} pools", bursar::pools().count());
}
