//! What the books say of queries, against the allocator's own counts.

use crate::support::{TRACED, accounted, accounts, alone, config, reported, run, until};
use bursar::{Budget, RealBytes};
use bursar_datafusion::{Options, Spawned, report};
use bursar_tpch::query;
use datafusion::physical_plan::collect;
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Consumers and what none claimed are all that the allocator has given out, and the books of the
/// query are a part of that.
#[test]
fn nodes_and_the_rest_are_what_the_allocator_counts() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let accounts = accounts(&session);
        for number in [1, 3, 9, 18] {
            let results = run(&session, &query(number)).await.unwrap();
            let report = reported(&accounts, 1).await;
            assert!(report.peak_real_bytes > 100_000, "{report}");
            until("the sums agree", || {
                let (sum, held) = sums();
                sum == held
            })
            .await;
            #[cfg(feature = "check")]
            until("every structure agrees", || bursar::check().is_ok()).await;
            drop(results);
        }
    });
}

/// Live bytes of all consumers and of what none claimed, and what the allocator has given out.
fn sums() -> (u64, u64) {
    // Has what the snapshot itself takes while it is taken.
    let probe = bursar::Consumer::new("probe");
    let consumers = probe.run(bursar::consumers);
    let others = consumers.iter().filter(|one| one.id != probe.id());
    let live = others.map(|one| one.usage.live_bytes);
    let sum = live.sum::<u64>() + consumers.unattributed().live_bytes;
    drop(consumers);
    (sum, bursar::stats().allocated_bytes)
}

/// Operators that declare are rows in which declared and real bytes meet, and those that only let
/// batches through have real bytes alone.
#[test]
fn declared_and_real_bytes_meet_in_a_node() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let accounts = accounts(&session);
        run(&session, "SELECT * FROM lineitem ORDER BY l_comment")
            .await
            .unwrap();
        let report = reported(&accounts, 1).await;
        let node = |name: &str| {
            let found = report.nodes.iter().find(|node| node.name == name);
            found.unwrap_or_else(|| panic!("no {name} in {report}"))
        };
        let (sort, scan) = (node("SortExec"), node("DataSourceExec"));
        assert!(sort.peak_declared_bytes > 50 << 20, "{report}");
        assert!(sort.peak_real_bytes > 10 << 20, "{report}");
        assert_eq!(scan.peak_declared_bytes, 0, "{report}");
        assert!(scan.peak_real_bytes > 1 << 20, "{report}");
        assert_eq!(sort.declared_bytes, 0, "{report}");
        assert_eq!(sort.parent, Some(0), "{report}");
        assert!(sort.partitions > 1, "{report}");
        let declared = report.nodes.iter().map(|node| node.peak_declared_bytes);
        assert!(report.peak_declared_bytes <= declared.sum(), "{report}");
        let difference = sort.peak_real_bytes as i64 - sort.peak_declared_bytes as i64;
        assert_eq!(sort.difference_bytes(), difference);
    });
}

/// A budget that weighs real bytes sees those of the partition beside what its operator declares.
#[test]
fn budgets_see_what_a_partition_holds() {
    alone(async {
        let budget: Arc<dyn Budget> = Arc::new(RealBytes::new(1 << 30));
        let session = accounted(config(), Options::new().budget(Arc::clone(&budget))).await;
        let sql = "SELECT l_orderkey, count(*), min(l_comment) FROM lineitem GROUP BY l_orderkey";
        let mut stream = session
            .sql(sql)
            .await
            .unwrap()
            .execute_stream()
            .await
            .unwrap();
        let first = stream.next().await.unwrap().unwrap();
        let holders = budget.largest(100);
        let of_groups = |holder: &&bursar::Holder| holder.name.starts_with("AggregateExec (");
        let groups: Vec<_> = holders.iter().filter(of_groups).collect();
        let weighs = |holder: &&&bursar::Holder| {
            holder.can_spill && holder.declared_bytes > 1 << 20 && holder.real_bytes > 1 << 19
        };
        assert!(groups.iter().filter(weighs).count() >= 4, "{holders:#?}");
        drop((first, stream));
        until("all is given back", || budget.reserved() == 0).await;
        assert!(budget.largest(1).is_empty());
    });
}

/// While a query runs, its plan can be asked, and what it holds is its nodes'.
#[test]
fn a_running_query_is_asked() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        let accounts = accounts(&session);
        let sql = "SELECT * FROM lineitem ORDER BY l_comment";
        let frame = session.sql(sql).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        assert!(accounts.running().is_empty());
        let task = session.task_ctx();
        let mut stream = plan.execute(0, task).unwrap();
        let first = stream.next().await.unwrap().unwrap();
        let running = accounts.running();
        assert_eq!(running.len(), 1);
        let sort = running[0].nodes.iter().find(|node| node.name == "SortExec");
        assert!(sort.unwrap().declared_bytes > 10 << 20, "{}", running[0]);
        let now = report(plan.as_ref()).unwrap();
        assert!(now.live_bytes > 10 << 20, "{now}");
        let live: u64 = now.nodes.iter().map(|node| node.live_bytes).sum();
        assert!(live <= now.live_bytes + (now.live_bytes >> 2), "{now}");
        drop((first, stream, plan));
        let over = reported(&accounts, 1).await;
        assert!(over.live_bytes < 1 << 20, "{over}");
        assert!(accounts.running().is_empty());
    });
}

fn unattributed() -> u64 {
    bursar::unattributed().allocated_bytes
}

/// Tasks and blocks that operators spawn run in the scope of their node, inside a tracer that the
/// program had itself.
#[test]
fn spawned_work_is_attributed_and_traced_further() {
    alone(async {
        let session = accounted(config(), Options::new()).await;
        assert_eq!(accounts(&session).spawned(), Spawned::Attributed);
        let frame = session.sql(&query(9)).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let (spawned, nobody) = (TRACED.futures.load(Relaxed), unattributed());
        collect(Arc::clone(&plan), session.task_ctx())
            .await
            .unwrap();
        assert!(TRACED.futures.load(Relaxed) > spawned + 8);
        let nobody = unattributed() - nobody;
        let consumers = bursar::consumers();
        let of_nodes = consumers.iter().filter(|one| one.name.contains("Exec ("));
        let allocated: u64 = of_nodes.map(|one| one.usage.allocated_bytes).sum();
        // Pages of files, which the object store reads on threads that nobody traces, and what
        // tokio has for a task.
        assert!(nobody < allocated / 8, "{nobody} B beside {allocated} B");
    });
}
