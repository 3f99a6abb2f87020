//! The table of allocators that are measured beside one another.
//!
//! An allocator is reached through its type, never through `dyn GlobalAlloc`:
//! what a benchmark compares includes how well each one inlines into its
//! caller, as it does below `#[global_allocator]`.

use std::alloc::{GlobalAlloc, System};

/// Name and version of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The name used in tables and on command lines.
    pub name: &'static str,
    /// The version in Cargo.lock; the C library's own for the system's.
    pub version: &'static str,
}

/// Generic code that is run once for each allocator.
pub trait Visitor {
    /// Called with one allocator.
    fn visit<A: GlobalAlloc + Sync>(&mut self, peer: Peer, allocator: &'static A);
}

macro_rules! peers {
    ($(
        $name:literal $version:expr, if $listed:meta;
        $(#[$linked:meta])? $type:ty = $value:expr;
    )*) => {
        /// Every allocator that is compared, bursar first and the system's
        /// second, whether it is linked into this program or not.
        #[must_use]
        pub fn all() -> Vec<Peer> {
            vec![$(#[cfg($listed)] Peer { name: $name, version: $version },)*]
        }

        /// Runs `visitor` for each allocator that is linked into this program,
        /// in the order of [`all`].
        pub fn for_each(visitor: &mut impl Visitor) {
            $($(#[$linked])? {
                static ALLOCATOR: $type = $value;
                visitor.visit(Peer { name: $name, version: $version }, &ALLOCATOR);
            })*
        }
    };
}

peers! {
    "bursar" env!("VERSION_BURSAR"), if all();
    #[cfg(feature = "bursar")] bursar::Bursar = bursar::Bursar::new();

    "system" c_library(), if all();
    System = System;

    "mimalloc" env!("VERSION_MIMALLOC"), if feature = "peers";
    #[cfg(feature = "peers")] mimalloc::MiMalloc = mimalloc::MiMalloc;

    "jemalloc" env!("VERSION_JEMALLOC"), if feature = "peers";
    #[cfg(feature = "peers")] tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    "snmalloc" env!("VERSION_SNMALLOC"), if feature = "peers";
    #[cfg(feature = "peers")] snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;

    "rpmalloc" env!("VERSION_RPMALLOC"), if any(feature = "peers", feature = "rpmalloc");
    #[cfg(feature = "rpmalloc")] rpmalloc::RpMalloc = rpmalloc::RpMalloc;

    "rusty_alloc" env!("VERSION_RUSTY_ALLOC"), if feature = "peers";
    #[cfg(feature = "peers")] rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;

    "stoolap" env!("VERSION_STOOLAP_JEMALLOC"), if feature = "peers";
    #[cfg(feature = "peers")] stoolap_jemalloc::Jemalloc = stoolap_jemalloc::Jemalloc::new();
}

/// The allocators of these names, or all if there are none, in the order of
/// [`all`].
///
/// # Errors
/// If a name is not in the table: lists those that are.
pub fn named(names: &[String]) -> Result<Vec<Peer>, String> {
    let all = all();
    if let Some(unknown) = names
        .iter()
        .find(|name| all.iter().all(|peer| peer.name != **name))
    {
        let known: Vec<&str> = all.iter().map(|peer| peer.name).collect();
        return Err(format!(
            "no allocator {unknown:?}; there are {}",
            known.join(", ")
        ));
    }
    let wanted = |peer: &Peer| names.is_empty() || names.iter().any(|name| peer.name == name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// The C library and its version.
#[cfg(target_env = "gnu")]
fn c_library() -> &'static str {
    // SAFETY: the function has no preconditions and returns a static string.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    version.to_str().unwrap_or("unknown")
}

/// The C library and its version.
#[cfg(not(target_env = "gnu"))]
fn c_library() -> &'static str {
    "unknown"
}

#[cfg(test)]
mod tests {
    use std::alloc::{GlobalAlloc, Layout};

    use super::{Peer, Visitor, all, for_each, named};

    struct Order(Vec<Peer>);

    impl Visitor for Order {
        fn visit<A: GlobalAlloc + Sync>(&mut self, peer: Peer, allocator: &'static A) {
            let layout = Layout::new::<[u64; 6]>();
            // SAFETY: the layout is not empty; the block is freed once, with it.
            unsafe {
                let block = allocator.alloc(layout);
                assert!(!block.is_null(), "{} gave no block", peer.name);
                block.write_bytes(0xa5, layout.size());
                allocator.dealloc(block, layout);
            }
            self.0.push(peer);
        }
    }

    #[test]
    fn the_visitor_meets_every_peer_and_each_one_serves() {
        let mut order = Order(Vec::new());
        for_each(&mut order);
        let linked = |peer: &Peer| match peer.name {
            "bursar" => cfg!(feature = "bursar"),
            "rpmalloc" => cfg!(feature = "rpmalloc"),
            _ => true,
        };
        let expected: Vec<Peer> = all().into_iter().filter(linked).collect();
        assert_eq!(order.0, expected);
    }

    #[test]
    fn peers_are_chosen_by_name() {
        let names = ["system", "bursar"].map(str::to_owned);
        let chosen: Vec<&str> = named(&names)
            .unwrap()
            .iter()
            .map(|peer| peer.name)
            .collect();
        assert_eq!(chosen, ["bursar", "system"]);
        assert_eq!(named(&[]).unwrap(), all());
        assert!(
            named(&["sytsem".to_owned()])
                .unwrap_err()
                .contains("system")
        );
    }

    /// The crate offers two generations of mimalloc; the tables mean the newer.
    #[cfg(feature = "peers")]
    #[test]
    fn mimalloc_is_of_the_third_generation() {
        unsafe extern "C" {
            safe fn mi_version() -> libc::c_int;
        }
        // Major, then two digits each of minor and patch.
        assert_eq!(mi_version() / 10_000, 3);
    }
}
