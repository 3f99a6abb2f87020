//! One allocator's part of the figures: a process that runs the 22 queries.

use bursar_tpch::{QUERIES, query, register};
use datafusion::prelude::{SessionConfig, SessionContext};
use std::error::Error;
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs the queries of the folder, with so many partitions and threads, once for nothing and once
/// for the figures. Prints a line `query wall cpu` in nanoseconds for each query, and one with the
/// most bytes that were resident.
pub fn main_with(session: fn(SessionConfig) -> SessionContext) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, partitions, threads] = &arguments[..] else {
        return Err("the arguments are a folder, partitions and threads".into());
    };
    let config = SessionConfig::new().with_target_partitions(partitions.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.parse()?)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let session = session(config);
        register(&session, Path::new(folder)).await?;
        for number in 1..=QUERIES {
            measured(&session, number).await?;
        }
        for number in 1..=QUERIES {
            let (wall, cpu) = measured(&session, number).await?;
            println!("{number} {} {}", wall.as_nanos(), cpu.as_nanos());
        }
        println!("resident {}", most_resident()?);
        Ok(())
    })
}

async fn measured(
    session: &SessionContext,
    number: usize,
) -> Result<(Duration, Duration), Box<dyn Error>> {
    let (begun, cpu) = (Instant::now(), cpu_time()?);
    let results = session.sql(&query(number)).await?.collect().await?;
    std::hint::black_box(results);
    Ok((begun.elapsed(), cpu_time()? - cpu))
}

/// Of all threads, in user and in system mode.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the kernel writes a timespec, or fails.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, now.as_mut_ptr()) };
    if failed != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: it did not fail.
    let now = unsafe { now.assume_init() };
    Ok(Duration::new(
        u64::try_from(now.tv_sec)?,
        u32::try_from(now.tv_nsec)?,
    ))
}

fn most_resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no VmHWM")?.parse::<u64>()? << 10)
}
