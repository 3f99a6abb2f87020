//! `SET datafusion.runtime.memory_limit` puts another pool in the place of the one installed.

use crate::support::{accounts, alone, config, empty, reported, run};
use bursar_datafusion::{Options, OtherPool};
use datafusion::error::DataFusionError;

const SQL: &str = "SELECT value FROM range(1000) ORDER BY value DESC";
const SET: &str = "SET datafusion.runtime.memory_limit = '100M'";

#[test]
fn it_is_told() {
    alone(async {
        let session = empty(config(), Options::new());
        let accounts = accounts(&session);
        run(&session, SQL).await.unwrap();
        assert_eq!(reported(&accounts, 1).await.other_pool, None);
        run(&session, SET).await.unwrap();
        let before = accounts.reports().len();
        run(&session, SQL).await.unwrap();
        let report = reported(&accounts, before + 1).await;
        let pool = report.other_pool.clone().unwrap();
        assert!(pool.contains("greedy"), "{pool}");
        assert!(
            report
                .to_string()
                .contains("the memory pool was replaced by"),
            "{report}"
        );
        assert!(report.peak_real_bytes > 0, "{report}");
    });
}

#[test]
fn it_is_refused() {
    alone(async {
        let session = empty(config(), Options::new().other_pool(OtherPool::Refuse));
        run(&session, SQL).await.unwrap();
        session.sql(SET).await.unwrap();
        let error = run(&session, SQL).await.unwrap_err();
        assert!(
            matches!(error.find_root(), DataFusionError::Configuration(_)),
            "{error}"
        );
    });
}

/// Other runtime settings keep the pool.
#[test]
fn other_settings_keep_it() {
    alone(async {
        let session = empty(config(), Options::new().other_pool(OtherPool::Refuse));
        run(
            &session,
            "SET datafusion.runtime.metadata_cache_limit = '10M'",
        )
        .await
        .unwrap();
        run(&session, SQL).await.unwrap();
    });
}
