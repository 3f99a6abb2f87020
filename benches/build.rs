//! Hands the crate the locked versions of the peers, and refuses to build
//! them with a C++ compiler's checks left in.

use std::env;
use std::path::Path;

/// Package in Cargo.lock and the variable that carries its version.
const PEERS: [(&str, &str); 7] = [
    ("bursar", "VERSION_BURSAR"),
    ("mimalloc", "VERSION_MIMALLOC"),
    ("rpmalloc", "VERSION_RPMALLOC"),
    ("rusty_alloc-api", "VERSION_RUSTY_ALLOC"),
    ("snmalloc-rs", "VERSION_SNMALLOC"),
    ("stoolap-jemalloc", "VERSION_STOOLAP_JEMALLOC"),
    ("tikv-jemallocator", "VERSION_JEMALLOC"),
];

fn main() {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let path = Path::new(&manifest_dir).join("../Cargo.lock");
    println!("cargo::rerun-if-changed={}", path.display());
    let lockfile = cargo_lock::Lockfile::load(&path).expect("a readable Cargo.lock");
    for (name, variable) in PEERS {
        let package = lockfile
            .packages
            .iter()
            .find(|package| package.name.as_str() == name)
            .unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        println!("cargo::rustc-env={variable}={}", package.version);
    }
    refuse_checked_peers();
}

/// An optimised build of the peers without NDEBUG would measure their debug
/// checks: snmalloc is then several times slower, and nobody would notice.
fn refuse_checked_peers() {
    for variable in ["CFLAGS", "CXXFLAGS"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let optimised = env::var("OPT_LEVEL").is_ok_and(|level| level != "0");
    let defined = env::var("CXXFLAGS").is_ok_and(|flags| flags.contains("-DNDEBUG"));
    if env::var_os("CARGO_FEATURE_PEERS").is_some() && optimised && !defined {
        println!(
            "cargo::error=the peers would be measured with their debug checks: CXXFLAGS lacks \
             -DNDEBUG, which the workspace's .cargo/config.toml sets"
        );
    }
}
