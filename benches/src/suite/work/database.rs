//! An embedded database in memory: pages copied on write.

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::parallel::parallel;
use crate::suite::Job;

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("articles");

pub fn run(job: &Job) -> u64 {
    let rounds = job.portion(60) as u64;
    parallel(
        job.threads,
        8,
        || (),
        |(), index| {
            fill_and_read(index as u64, rounds).expect("a database in memory does not fail")
        },
    )
}

fn fill_and_read(seed: u64, rounds: u64) -> Result<u64, redb::Error> {
    let database = Database::builder()
        .set_cache_size(8 << 20)
        .create_with_backend(InMemoryBackend::new())?;
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for _ in 0..150 {
                let key = format!("key-{:05}", random.u32(..4000));
                let value = vec![random.u8(..); random.usize(20..600)];
                table.insert(key.as_str(), value.as_slice())?;
                table.remove(format!("key-{:05}", random.u32(..4000)).as_str())?;
            }
        }
        transaction.commit()?;
    }
    let transaction = database.begin_read()?;
    let table = transaction.open_table(TABLE)?;
    let mut sum = 0;
    for entry in table.iter()? {
        let (key, value) = entry?;
        sum += (key.value().to_owned().len() + value.value().to_vec().len()) as u64;
    }
    Ok(sum)
}
