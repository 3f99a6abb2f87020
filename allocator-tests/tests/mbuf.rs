//! Message buffers: which pool serves a request, and what lies between the large ones.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use bursar::{Mbuf, MbufError, MbufPools, PoolSpec};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const HEAD: u64 = 1024;

fn pools(spec: &str) -> MbufPools {
    let spec = PoolSpec::parse(spec).expect("it is a specification");
    MbufPools::new(&spec).expect("there is address space")
}

/// A request of so many bytes, head included.
fn request(pools: &MbufPools, bytes: u64) -> Result<Mbuf, MbufError> {
    Mbuf::new(pools, (bytes - HEAD) as usize)
}

/// Bytes of memory that the pools take.
fn resident(pools: &MbufPools) -> u64 {
    let file = pools
        .fd()
        .try_clone_to_owned()
        .expect("one more descriptor");
    File::from(file).metadata().expect("it is open").blocks() * 512
}

/// Three times 3 GiB with several of 2 MiB after each; the large ones are freed again. What is
/// left, in the order in which it was allocated.
fn gaps_between_small_ones(pools: &MbufPools) -> Vec<Mbuf> {
    let (mut large, mut small) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        large.push(request(pools, 3 * GIB).expect("there is room"));
        small.extend((0..5).map(|_| request(pools, 2 * MIB).expect("there is room")));
    }
    drop(large);
    pools.check().expect("the records are in order");
    let free: u64 = pools.pools().iter().map(|pool| pool.free_bytes).sum();
    assert!(free > 9 * GIB);
    small
}

#[test]
fn small_ones_in_the_gaps_of_one_pool_leave_no_room_for_a_large_one() {
    let pools = pools("10737418240");
    let small = gaps_between_small_ones(&pools);
    assert!(pools.pools()[0].free_bytes > 9 * GIB);
    let refused = request(&pools, 5 * GIB).unwrap_err();
    assert_eq!(refused, MbufError::Full { bytes: 5 * GIB });
    // The addresses: whatever place 5 GiB would take, a small one lies in it.
    let places: Vec<u64> = small.iter().map(Mbuf::offset).collect();
    assert!(places.is_sorted());
    let ends = places.iter().copied().chain([10 * GIB]);
    let starts = [0]
        .into_iter()
        .chain(places.iter().map(|place| place + 2 * MIB));
    let gaps: Vec<u64> = starts.zip(ends).map(|(start, end)| end - start).collect();
    assert_eq!(gaps.iter().sum::<u64>(), pools.pools()[0].free_bytes);
    assert!(gaps.iter().all(|&gap| gap < 5 * GIB), "{gaps:?}");
    assert_eq!(gaps.iter().filter(|&&gap| gap == 3 * GIB).count(), 3);
    let stats = pools.pools()[0];
    assert_eq!(stats.largest_free_span, 3 * GIB);
    assert!(stats.external_fragmentation() > 0.6);
    assert_eq!((stats.requests, stats.failures), (19, 1));
    assert!(resident(&pools) < 4 * MIB, "nothing but heads is touched");
    drop(small);
    assert!(request(&pools, 5 * GIB).is_ok());
}

#[test]
fn a_pool_of_their_own_keeps_small_ones_out_of_the_gaps() {
    let pools = pools("10737418240,2147483648:2097152");
    let small = gaps_between_small_ones(&pools);
    assert!(small.iter().all(|mbuf| mbuf.pool() == 1));
    let large = request(&pools, 5 * GIB).expect("there is room");
    assert_eq!((large.pool(), large.offset()), (0, 0));
    let [first, second] = pools.pools()[..] else {
        panic!("there are two pools")
    };
    assert_eq!((first.requests, first.failures), (4, 0));
    assert_eq!((second.requests, second.fall_throughs), (15, 0));
    assert_eq!(second.used_bytes, 30 * MIB);
    assert!(resident(&pools) < 4 * MIB, "nothing but heads is touched");
}

/// The pools of requests of these bytes, heads included, each freed before the next.
fn routes(spec: &str, requests: &[u64]) -> Vec<usize> {
    let pools = pools(spec);
    let pool = |&bytes| request(&pools, bytes).expect("there is room").pool();
    requests.iter().map(pool).collect()
}

#[test]
fn the_examples_route_by_the_whole_request() {
    let edges = [HEAD, 2 * MIB, 2 * MIB + 1, 20 * MIB, 20 * MIB + 1, 3 * GIB];
    assert_eq!(routes("10737418240", &edges), [0; 6]);
    let two = "10737418240,2147483648:2097152";
    assert_eq!(routes(two, &edges), [1, 1, 0, 0, 0, 0]);
    let three = "10737418240,2147483648:20971520,1073741824:2097152";
    assert_eq!(routes(three, &edges), [2, 2, 1, 1, 0, 0]);
    // Two MiB of data are more than two MiB.
    let mbuf = Mbuf::new(&pools(two), 2 << 20).expect("there is room");
    assert_eq!(mbuf.pool(), 0);
}

#[test]
fn full_pools_pass_on_to_the_next_larger_limit_and_the_unlimited_one_last() {
    let pools = pools("1048576,65536:16384,32768:4096");
    let held: Vec<Mbuf> = (0..64)
        .map(|_| request(&pools, 4096).expect("there is room"))
        .collect();
    let order: Vec<usize> = held.iter().map(Mbuf::pool).collect();
    assert_eq!(order[..8], [2; 8]);
    assert_eq!(order[8..24], [1; 16]);
    assert_eq!(order[24..], [0; 40]);
    let counts = pools.pools();
    let counts = counts
        .iter()
        .map(|pool| (pool.requests, pool.fall_throughs));
    assert!(counts.eq([(40, 0), (56, 40), (64, 56)]));
}

#[test]
fn the_default_is_one_pool_of_ten_gib() {
    let pools = MbufPools::new(&PoolSpec::default()).expect("there is address space");
    let whole = request(&pools, 10 * GIB).expect("nothing else is there");
    assert_eq!(pools.pools()[0].free_bytes, 0);
    assert_eq!(
        request(&pools, HEAD).unwrap_err(),
        MbufError::Full { bytes: HEAD }
    );
    drop(whole);
}

#[test]
fn pools_at_their_edges() {
    let largest = pools("274877906944");
    let whole = request(&largest, 256 * GIB).expect("all of it is free");
    drop(whole);
    assert!(resident(&largest) < 96 * MIB);
    let most = pools(&["1024"; 128].join(","));
    let held: Vec<Mbuf> = (0..128)
        .map(|_| request(&most, HEAD).expect("each has room"))
        .collect();
    assert!(held.iter().map(Mbuf::pool).eq(0..128));
    assert!(request(&most, HEAD).is_err());
    most.check().expect("the records are in order");
}

/// Sizes and limits that are no multiple of anything are kept to the byte.
#[test]
fn sizes_and_limits_are_exact() {
    for size in [1024, 1025, 2047, 2048, 4095, 5000] {
        let pools = pools(&size.to_string());
        assert!(request(&pools, size).is_ok(), "{size}");
        assert!(request(&pools, size + 1).is_err(), "{size}");
    }
    let limited = pools("100000,50000:3001");
    for (bytes, pool) in [(3000, 1), (3001, 1), (3002, 0)] {
        assert_eq!(
            request(&limited, bytes).expect("there is room").pool(),
            pool
        );
    }
}
