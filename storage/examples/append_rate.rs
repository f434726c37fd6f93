//! How many entries a second the journal makes durable, beside the floor: the same bytes in a
//! preallocated file with `fdatasync` and nothing else. It measures one run and judges nothing.
//!
//! Run in a directory on the disk that counts: `cargo run --release --example append_rate`. The
//! files lie under `target/append-rate` and are removed.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use storage::journal::{Entry, FileLog, Identity, IndexKeys, Log, Options, ReadOnly};

const BODY_BYTES: usize = 512;
const HEAD_BYTES: usize = 96;
const RUN: Duration = Duration::from_secs(2);
const FLOOR_FILE_BYTES: u64 = 64 << 20;
const SMALL_FRAMES: u128 = 1_000_000;
/// An odd number, so that consecutive numbers give ids that look random.
const ID_STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new("target/append-rate");
    let mut out = io::stdout().lock();
    writeln!(out, "batch  floor/s    journal/s  of floor")?;
    for batch in [1, 64, 1024] {
        fs::create_dir_all(dir)?;
        let floor = floor(&dir.join("floor"), batch)?;
        let journal = journal(&dir.join("journal"), batch)?;
        let share = 100 * journal / floor.max(1);
        writeln!(out, "{batch:>5}  {floor:>9}  {journal:>9}  {share:>7} %")?;
        fs::remove_dir_all(dir)?;
    }
    small_frames(dir)?;
    reopen(dir, &mut out)?;
    Ok(fs::remove_dir_all(dir)?)
}

/// A killed journal of a million frames of one entry.
fn small_frames(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (mut log, _) = FileLog::open(dir, &Options::new(0), index)?;
    for number in 1..=SMALL_FRAMES {
        let mut head = [1; HEAD_BYTES];
        let id = number.wrapping_mul(ID_STEP);
        head[..16].copy_from_slice(&id.to_le_bytes());
        let index = index(&head, &log.identity());
        log.append(0, &[Entry { head: &head, body: Some(&[3; 64]), index }])?;
        if number % 1024 == 0 {
            log.sync()?;
        }
    }
    log.sync()?;
    Ok(())
}

/// Entries a second of the floor.
fn floor(path: &Path, batch: usize) -> Result<u128, Box<dyn Error>> {
    let file = File::create(path)?;
    file.write_all_at(&vec![0; usize::try_from(FLOOR_FILE_BYTES)?], 0)?;
    file.sync_all()?;
    let bytes = vec![7; (BODY_BYTES + HEAD_BYTES) * batch];
    let mut at = 0;
    rate(batch, || {
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
        if at + bytes.len() as u64 > FLOOR_FILE_BYTES {
            at = 0;
        }
        Ok(file.sync_data()?)
    })
}

/// Entries a second of the journal.
fn journal(dir: &Path, batch: usize) -> Result<u128, Box<dyn Error>> {
    let (mut log, _) = FileLog::open(dir, &Options::new(0), index)?;
    let body = [7; BODY_BYTES];
    let mut number = 0u128;
    let rate = rate(batch, || {
        let heads: Vec<[u8; HEAD_BYTES]> = (0..batch)
            .map(|_| {
                number += 1;
                let mut head = [1; HEAD_BYTES];
                let id = number.wrapping_mul(ID_STEP);
                head[..16].copy_from_slice(&id.to_le_bytes());
                head
            })
            .collect();
        let identity = log.identity();
        let entries: Vec<Entry<'_>> = heads
            .iter()
            .map(|head| Entry { head, body: Some(&body), index: index(head, &identity) })
            .collect();
        log.append(0, &entries)?;
        log.sync()?;
        Ok(())
    })?;
    log.close()?;
    Ok(rate)
}

fn index(head: &[u8], _: &Identity) -> IndexKeys {
    let id = head.first_chunk::<16>().map(|id| u128::from_le_bytes(*id));
    IndexKeys { event: 1, actor: 2, id, ..IndexKeys::default() }
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn rate(
    batch: usize,
    mut run: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<u128, Box<dyn Error>> {
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < RUN {
        run()?;
        rounds += 1;
    }
    Ok(rounds * batch as u128 * 1_000_000 / start.elapsed().as_micros())
}

/// How long it takes to open what was written, to read it all, and to find ids.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn reopen(dir: &Path, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let (log, _) = FileLog::open(dir, &Options::new(0), index)?;
    let opened = start.elapsed();
    let start = Instant::now();
    let entries: usize =
        log.reader().frames(0).map(|frame| frame.map_or(0, |f| f.entries.len())).sum();
    let read = start.elapsed();
    drop(log);
    let look = ReadOnly::open(dir, index)?;
    let start = Instant::now();
    for id in 1..=1000u128 {
        look.reader().find(id.wrapping_mul(ID_STEP))?;
    }
    let found = start.elapsed() / 1000;
    writeln!(
        out,
        "open after a kill {opened:?}, read {entries} entries {read:?}, find an id {found:?}"
    )?;
    Ok(())
}
