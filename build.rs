//! Generates the size-class table.
fn main() { println!("cargo::rerun-if-changed=build.rs"); }
