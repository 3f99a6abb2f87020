//! The consumers of one query: the query's own, one below it for each plan node, and one below
//! that for each partition of the node.
//!
//! ```text
//! query 7
//!   SortExec (7.0)             a node of the plan, numbered from the root downwards
//!     SortExec (7.0.3)         its partition 3: what runs for it allocates here
//!       ExternalSorter[3]      what the operator registered with the memory pool while it ran
//! ```
//! Books live as long as a plan node, an open stream or a spawned task of the query does. The last
//! of them to go tells the history of the session that the query has ended.

use crate::history::History;
use crate::peak::Peak;
use bursar::Consumer;
use datafusion::error::DataFusionError;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, RwLock, Weak};

/// A node as the rule found it in the plan.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// The node whose input it is.
    pub(crate) parent: Option<usize>,
}

/// The books of one query.
#[derive(Debug)]
pub(crate) struct Query {
    id: u64,
    consumer: Consumer,
    nodes: Vec<Node>,
    declared: Peak,
    /// A partition of some node was executed.
    ran: AtomicBool,
    /// The pool that the query ran with, if it was none of bursar's.
    other_pool: OnceLock<String>,
    /// Why the query is to end at its next poll.
    refused: OnceLock<String>,
    history: Arc<History>,
}

/// One node of the plan.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) found: Found,
    /// Made when the node is first executed: many plans never are.
    pub(crate) consumer: OnceLock<Consumer>,
    pub(crate) declared: Peak,
    partitions: Mutex<BTreeMap<usize, Arc<Seat>>>,
}

/// Where one partition of a node allocates.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) node: usize,
    pub(crate) partition: usize,
    pub(crate) consumer: Consumer,
    query: Weak<Query>,
}

/// Whom a consumer's id stands for.
#[derive(Clone)]
pub(crate) enum Place {
    Query(Weak<Query>),
    Node(Weak<Query>, usize),
    Seat(Weak<Seat>),
}

/// All consumers of queries that are alive, by id: the way from the scope a thread is in to the
/// books. Of the process, since scopes and spawned tasks know of no session.
static PLACES: LazyLock<RwLock<HashMap<u64, Place>>> = LazyLock::new(RwLock::default);

/// Has what the books themselves take, in whosever scope they are opened.
static OWN: LazyLock<Consumer> = LazyLock::new(|| Consumer::new("bursar-datafusion"));

fn places<T>(work: impl FnOnce(&mut HashMap<u64, Place>) -> T) -> T {
    OWN.run(|| work(&mut PLACES.write().unwrap_or_else(PoisonError::into_inner)))
}

/// Whom the consumer of this id stands for.
pub(crate) fn place(consumer_id: u64) -> Option<Place> {
    let places = PLACES.read().unwrap_or_else(PoisonError::into_inner);
    places.get(&consumer_id).cloned()
}

/// The partition in whose scope the thread is, and its query.
pub(crate) fn current_seat() -> Option<(Arc<Seat>, Arc<Query>)> {
    let Place::Seat(seat) = place(bursar::current()?.id())? else {
        return None;
    };
    let seat = seat.upgrade()?;
    let query = seat.query()?;
    Some((seat, query))
}

impl Seat {
    pub(crate) fn query(&self) -> Option<Arc<Query>> {
        self.query.upgrade()
    }
}

impl Query {
    /// The books of a plan with these nodes, in the order of their numbers.
    pub(crate) fn new(found: Vec<Found>, history: &Arc<History>) -> Arc<Query> {
        let _scope = OWN.enter();
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: an id says nothing about anything else.
        let id = NEXT.fetch_add(1, Relaxed);
        let node = |found| Node {
            found,
            consumer: OnceLock::new(),
            declared: Peak::default(),
            partitions: Mutex::default(),
        };
        let query = Arc::new(Query {
            id,
            consumer: history.root().child(format!("query {id}")),
            nodes: found.into_iter().map(node).collect(),
            declared: Peak::default(),
            ran: AtomicBool::new(false),
            other_pool: OnceLock::new(),
            refused: OnceLock::new(),
            history: Arc::clone(history),
        });
        let place = Place::Query(Arc::downgrade(&query));
        places(|places| places.insert(query.consumer.id(), place));
        history.begun(&query);
        query
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn declared(&self) -> &Peak {
        &self.declared
    }

    pub(crate) fn ran(&self) -> bool {
        self.ran.load(Relaxed)
    }

    /// The partition of a node; the same one whenever it is executed again.
    pub(crate) fn seat(self: &Arc<Query>, node: usize, partition: usize) -> Arc<Seat> {
        let _scope = OWN.enter();
        self.ran.store(true, Relaxed);
        let consumer = self.node_consumer(node);
        let partitions = &self.nodes[node].partitions;
        let mut partitions = partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = partitions
            .entry(partition)
            .or_insert_with(|| self.new_seat(node, partition, consumer));
        Arc::clone(seat)
    }

    fn new_seat(self: &Arc<Query>, node: usize, partition: usize, above: &Consumer) -> Arc<Seat> {
        let name = &self.nodes[node].found.name;
        let seat = Arc::new(Seat {
            node,
            partition,
            consumer: above.child(format!("{name} ({}.{node}.{partition})", self.id)),
            query: Arc::downgrade(self),
        });
        let place = Place::Seat(Arc::downgrade(&seat));
        places(|places| places.insert(seat.consumer.id(), place));
        seat
    }

    fn node_consumer(self: &Arc<Query>, node: usize) -> &Consumer {
        let Node {
            found, consumer, ..
        } = &self.nodes[node];
        consumer.get_or_init(|| {
            let name = format!("{} ({}.{node})", found.name, self.id);
            let consumer = self.consumer.child(name);
            let place = Place::Node(Arc::downgrade(self), node);
            places(|places| places.insert(consumer.id(), place));
            consumer
        })
    }

    /// How many partitions of a node were executed.
    pub(crate) fn partitions(&self, node: usize) -> usize {
        let partitions = &self.nodes[node].partitions;
        let partitions = partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.len()
    }

    /// Notes that the query runs with a memory pool that is none of bursar's. Whether that was not
    /// known before.
    pub(crate) fn note_other_pool(&self, pool: &str) -> bool {
        self.other_pool.set(pool.into()).is_ok()
    }

    pub(crate) fn other_pool(&self) -> Option<&str> {
        self.other_pool.get().map(String::as_str)
    }

    /// Has the query end with an error at its next poll.
    pub(crate) fn refuse(&self, why: String) {
        // The first reason stands.
        let _ = self.refused.set(why);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.get().is_some()
    }

    /// The error with which it is to end.
    pub(crate) fn refusal(&self) -> Option<DataFusionError> {
        let why = self.refused.get()?;
        Some(DataFusionError::ResourcesExhausted(why.clone()))
    }

    fn ids(&self) -> Vec<u64> {
        let mut ids = vec![self.consumer.id()];
        for node in &self.nodes {
            ids.extend(node.consumer.get().map(Consumer::id));
            let partitions = node.partitions.lock();
            let partitions = partitions.unwrap_or_else(PoisonError::into_inner);
            ids.extend(partitions.values().map(|seat| seat.consumer.id()));
        }
        ids
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        let history = Arc::clone(&self.history);
        history.ended(self);
        let ids = self.ids();
        places(|places| {
            for id in ids {
                places.remove(&id);
            }
        });
    }
}
