//! Measures how rows should lie in sled: puts a second, bytes on disk and the time to open, for
//! single rows, single rows with an index by id, and blocks of 16 and 64. It decides nothing; the
//! table and the choice are in `FORMAT.md`.
//!
//! `cargo run --release -p loki-storage --example sled_rows -- 100000 1000000`

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows that go into one sled batch, as in the view.
const BATCH_ROWS: u64 = 4_096;

/// Bytes of an encoded row of a message with ids of ordinary length.
const ROW_BYTES: usize = 230;

type Failure = Box<dyn std::error::Error>;

/// How rows lie.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    /// Rows in one value.
    block: u64,
    /// One more key a row, by the message's id.
    by_id: bool,
}

const LAYOUTS: [Layout; 5] = [
    Layout { name: "single", block: 1, by_id: false },
    Layout { name: "single + id", block: 1, by_id: true },
    Layout { name: "block 16", block: 16, by_id: false },
    Layout { name: "block 24", block: 24, by_id: false },
    Layout { name: "block 64", block: 64, by_id: false },
];

fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "| layout | rows | rows/s put | changes/s | MB on disk | open ms |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for argument in std::env::args().skip(1) {
        let rows: u64 = argument.parse()?;
        for layout in LAYOUTS {
            let folder = tempfile::tempdir_in(".")?;
            let line = measure(folder.path(), layout, rows)?;
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

fn measure(path: &Path, layout: Layout, rows: u64) -> Result<String, Failure> {
    let database = open(path)?;
    let (put, ()) = timed(|| put_all(&database, layout, rows))?;
    let changes = rows / 10;
    let (change, ()) = timed(|| change_some(&database, layout, rows, changes))?;
    drop(database);
    // sled lets go of its lock a little after it is dropped.
    let (opened, database) = loop {
        match timed(|| open(path)) {
            Ok(opened) => break opened,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let first = database.iter().next_back().transpose()?;
    drop((first, database));
    let bytes: u64 = bytes_on_disk(path)?;
    Ok(format!(
        "| {} | {rows} | {:.0} | {:.0} | {} | {} |",
        layout.name,
        rate(rows, put),
        rate(changes, change),
        bytes / 1_000_000,
        opened.as_millis()
    ))
}

fn open(path: &Path) -> Result<sled::Db, Failure> {
    let config = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(32 << 20);
    Ok(config.open()?)
}

fn put_all(database: &sled::Db, layout: Layout, rows: u64) -> Result<(), Failure> {
    let mut batch = sled::Batch::default();
    for first in (0..rows).step_by(usize::try_from(layout.block)?) {
        let block: Vec<u8> = (first..first + layout.block).flat_map(row).collect();
        batch.insert(&key(b'm', first)[..], block);
        if layout.by_id {
            let mut by_id = key(b'i', scatter(first)).to_vec();
            by_id.extend(first.to_be_bytes());
            batch.insert(by_id, &[][..]);
        }
        if (first / layout.block + 1).is_multiple_of(BATCH_ROWS / layout.block) {
            database.apply_batch(std::mem::take(&mut batch))?;
        }
    }
    database.apply_batch(batch)?;
    database.flush()?;
    Ok(())
}

/// Rewrites rows all over the tree, as late deliveries do.
fn change_some(
    database: &sled::Db,
    layout: Layout,
    rows: u64,
    changes: u64,
) -> Result<(), Failure> {
    let mut batch = sled::Batch::default();
    for change in 0..changes {
        let first = scatter(change) % rows / layout.block * layout.block;
        let key = key(b'm', first);
        let mut block = database.get(key)?.map(|value| value.to_vec()).unwrap_or_default();
        if let Some(byte) = block.first_mut() {
            *byte ^= 1;
        }
        batch.insert(&key[..], block);
        if (change + 1).is_multiple_of(BATCH_ROWS) {
            database.apply_batch(std::mem::take(&mut batch))?;
        }
    }
    database.apply_batch(batch)?;
    database.flush()?;
    Ok(())
}

fn key(kind: u8, number: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = kind;
    key[1..9].copy_from_slice(&number.to_be_bytes());
    key
}

/// A row whose digest and ids do not repeat.
fn row(number: u64) -> Vec<u8> {
    let mut row = vec![b'x'; ROW_BYTES];
    for (step, part) in (0..).zip(row[..64].chunks_mut(8)) {
        part.copy_from_slice(&scatter(number * 8 + step).to_le_bytes());
    }
    row
}

fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock of the machine")]
fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(Duration, T), Failure> {
    let begin = Instant::now();
    let result = work()?;
    Ok((begin.elapsed(), result))
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown without decimals")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn bytes_on_disk(path: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_on_disk(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
