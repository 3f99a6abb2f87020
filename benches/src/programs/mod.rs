//! The whole-program comparison: which programs there are, their inputs, how
//! they are built and run, and what is said about them.
//!
//! What the programs do stands in `suite`, which takes minutes to compile;
//! this part does not need it.

pub mod build;
pub mod corpus;
pub mod preloaded;
pub mod process;
pub mod tables;

use serde::{Deserialize, Serialize};

/// One program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name in tables and on command lines.
    pub name: &'static str,
    /// The crates it consists of and what they do.
    pub about: &'static str,
    /// How many threads it is run with.
    pub threads: &'static [usize],
}

impl Program {
    /// Whether it does work, rather than show what merely starting costs.
    #[must_use]
    pub fn works(&self) -> bool {
        self.threads == WORKERS
    }
}

/// What the process of a program writes to its standard output at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What the program computed: the same on every allocator and with any
    /// number of threads.
    pub checksum: u64,
    /// The most memory that was resident, in KiB.
    pub peak_kib: u64,
}

/// The last argument of a program whose work is booked to somebody.
pub const ATTRIBUTED: &str = "attributed";

const WORKERS: &[usize] = &[1, 2, 8];

const fn program(name: &'static str, about: &'static str) -> Program {
    Program {
        name,
        about,
        threads: WORKERS,
    }
}

/// All programs, in the order of the tables.
pub const PROGRAMS: &[Program] = &[
    program(
        "syn",
        "syn and prettyplease: Rust sources parsed and printed",
    ),
    program(
        "rust-analyzer",
        "ra_ap_syntax: lossless trees of Rust sources",
    ),
    program(
        "serde_json",
        "serde_json: a large document parsed, rewritten, printed",
    ),
    program(
        "regex",
        "regex and aho-corasick: an index of the names in sources",
    ),
    program(
        "tantivy",
        "tantivy: a full-text index built in parallel, merged, searched",
    ),
    program("rhai", "rhai: a script on maps, strings and closures"),
    program(
        "markdown",
        "pulldown-cmark and scraper: markdown to HTML to a tree",
    ),
    program("egg", "egg: equality saturation of arithmetic"),
    program("moka", "moka: a cache shared by all threads"),
    program("roaring", "roaring: sets built, combined, stored"),
    program(
        "codecs",
        "png, jpeg-encoder and zune-jpeg: pictures there and back",
    ),
    program("zip", "zip: archives written and read in memory"),
    program("minijinja", "minijinja: pages rendered from templates"),
    program("redb", "redb: a database in memory"),
    program(
        "imbl",
        "imbl: versions of a document, dropped by another thread",
    ),
    Program {
        name: "empty",
        about: "a program that does nothing",
        threads: &[1],
    },
    Program {
        name: "idle",
        about: "threads that allocate a little and wait",
        threads: &[64],
    },
];
