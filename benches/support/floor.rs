//! The floor: what the disk gives to so many producers that each wait for their answer. A
//! preallocated file, one write and one `fdatasync` for all that came meanwhile, and no store: no
//! head, no check, no id, no state.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::{MESSAGE_BYTES, Outcome, Watch, figure, percentile};

/// Zeros that are written ahead; the file is written over again and again.
const FILE_BYTES: u64 = 64 << 20;

type Job = ([u8; MESSAGE_BYTES], oneshot::Sender<()>);

fn preallocated(dir: &Path) -> Outcome<File> {
    let file = File::create(dir.join("floor"))?;
    file.write_all_at(&vec![0; usize::try_from(FILE_BYTES)?], 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Half of the writes of one message, each with its sync, took at most so many microseconds.
pub fn sync_micros(dir: &Path, run: Duration) -> Outcome<f64> {
    let file = preallocated(dir)?;
    let mut times = Vec::new();
    let begun = Watch::start();
    while begun.elapsed() < run {
        let one = Watch::start();
        let at = (times.len() * MESSAGE_BYTES) as u64 % FILE_BYTES;
        file.write_all_at(&[7; MESSAGE_BYTES], at)?;
        file.sync_data()?;
        times.push(one.micros());
    }
    Ok(figure(percentile(&mut times, 50)))
}

/// What so many producers get.
pub struct Floor {
    /// Messages a second.
    pub rate: u64,
    /// One of a hundred waits longer for its answer, in microseconds.
    pub p99_micros: u64,
}

/// Lets so many producers write, each of which waits for its answer before it goes on.
pub fn measure(dir: &Path, producers: u64, run: Duration) -> Outcome<Floor> {
    let file = preallocated(dir)?;
    let (jobs, queue) = mpsc::unbounded_channel();
    let writer = std::thread::Builder::new().name("floor".into());
    let writer = writer.spawn(move || write(&file, queue))?;
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (mut times, took) = runtime.block_on(async {
        let begun = Watch::start();
        let mut tasks = JoinSet::new();
        for _ in 0..producers {
            let (jobs, stop) = (jobs.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut times = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let one = Watch::start();
                    let (answer, answered) = oneshot::channel();
                    let sent = jobs.send(([7; MESSAGE_BYTES], answer)).is_ok();
                    if !sent || answered.await.is_err() {
                        break;
                    }
                    times.push(one.micros());
                }
                times
            });
        }
        tokio::time::sleep(run).await;
        stop.store(true, Ordering::Relaxed);
        let times = tasks.join_all().await.concat();
        (times, begun.elapsed())
    });
    drop(jobs);
    writer.join().map_err(|_| "the writer of the floor failed")??;
    let rate = super::rate(times.len() as u64, took);
    Ok(Floor { rate, p99_micros: percentile(&mut times, 99) })
}

/// Writes what came, all of it at once.
fn write(file: &File, mut queue: mpsc::UnboundedReceiver<Job>) -> Outcome<()> {
    let (mut bytes, mut answers, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        while let Some((message, answer)) = next {
            bytes.extend_from_slice(&message);
            answers.push(answer);
            next = queue.try_recv().ok();
        }
        if at + bytes.len() as u64 > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        at += bytes.len() as u64;
        bytes.clear();
        for answer in answers.drain(..) {
            // A producer that has ended waits for nothing.
            let _ = answer.send(());
        }
    }
    Ok(())
}
