//! What the benchmarks share: how long they run, time, the figures of a process, and tables. It
//! measures nothing by itself.

#![expect(dead_code, reason = "each benchmark uses a part of it")]

pub mod floor;
pub mod load;
pub mod message;
pub mod program;
pub mod stub;

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// That of the programs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a benchmark's steps end in.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of the content of every message.
pub const MESSAGE_BYTES: usize = 512;

/// Processor time is counted by the system in steps of 10 ms.
const TICK_MICROS: u64 = 10_000;

/// How long a benchmark runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As long as figures need to be worth something.
    Full,
    /// Only so long that every figure exists: for the tests.
    Short,
}

impl Scale {
    /// The short form or the full one.
    pub fn of(short: bool) -> Self {
        if short { Self::Short } else { Self::Full }
    }

    /// One of two values.
    pub fn pick<T>(self, full: T, short: T) -> T {
        if self == Self::Full { full } else { short }
    }

    /// The number in a variable, or one of two.
    pub fn number(self, variable: &str, full: u64, short: u64) -> u64 {
        let asked = std::env::var(variable).ok().and_then(|text| text.parse().ok());
        asked.unwrap_or_else(|| self.pick(full, short))
    }
}

/// Whether `--short` or `LOKI_BENCH_SHORT` asks for the short form.
pub fn is_short() -> bool {
    let asked = std::env::args().any(|word| word == "--short");
    asked || std::env::var_os("LOKI_BENCH_SHORT").is_some()
}

/// A measurement reads the clock.
#[derive(Clone, Copy, Debug)]
pub struct Watch(Instant);

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
impl Watch {
    /// Starts it.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Microseconds since the start.
    pub fn micros(self) -> u64 {
        micros(self.elapsed())
    }
}

/// A duration in whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// How often a second, when it was so often in this time.
pub fn rate(count: u64, time: Duration) -> u64 {
    count.saturating_mul(1_000_000) / micros(time).max(1)
}

/// The value below which so many percent of the values lie.
pub fn percentile(values: &mut [u64], percent: usize) -> u64 {
    values.sort_unstable();
    let at = values.len().saturating_sub(1) * percent / 100;
    values.get(at).copied().unwrap_or(0)
}

/// Processor time that a process has used, in microseconds; `None` for this process.
pub fn processor_micros(pid: Option<u32>) -> u64 {
    let stat = fs::read_to_string(proc(pid, "stat")).unwrap_or_default();
    // The name, in brackets, may hold spaces; user and system time are the 14th and 15th field.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK_MICROS
}

/// What a process has in memory now, in KiB.
pub fn resident_kib(pid: Option<u32>) -> u64 {
    let status = fs::read_to_string(proc(pid, "status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn proc(pid: Option<u32>, file: &str) -> PathBuf {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    PathBuf::from("/proc").join(process).join(file)
}

/// Bytes of the blocks that a folder's files have on the disk.
pub fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    const BLOCK_BYTES: u64 = 512;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
        Ok(data) => data.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(size).sum()
}

/// A folder on the disk that counts, removed at the end: `LOKI_BENCH_DIR`, or below `target`, as a
/// temporary folder may lie in memory.
pub fn folder() -> Outcome<tempfile::TempDir> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let place = std::env::var_os("LOKI_BENCH_DIR").map_or_else(usual, PathBuf::from);
    fs::create_dir_all(&place)?;
    Ok(tempfile::Builder::new().prefix("bench-").tempdir_in(place)?)
}

/// What was measured: rows of named figures.
#[derive(Clone, Debug)]
pub struct Report {
    /// The benchmark.
    pub name: String,
    /// What a reader must know of the figures.
    pub notes: Vec<String>,
    /// Each row's name and figures.
    pub rows: Vec<(String, Vec<(&'static str, f64)>)>,
}

impl Report {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), notes: Vec::new(), rows: Vec::new() }
    }

    /// Adds a row, and shows it to whoever waits.
    pub fn row(&mut self, name: &str, figures: Vec<(&'static str, f64)>) {
        say(&format!("{}: {name} measured", self.name));
        self.rows.push((name.to_owned(), figures));
    }

    /// Adds what a reader must know.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// A figure of a row.
    pub fn figure(&self, row: &str, figure: &str) -> Option<f64> {
        let (_, figures) = self.rows.iter().find(|(name, _)| name == row)?;
        figures.iter().find(|(name, _)| *name == figure).map(|(_, value)| *value)
    }

    /// A table in Markdown, its columns in the order in which rows named them.
    pub fn table(&self) -> String {
        let mut columns: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(|(_, figures)| figures) {
            if !columns.contains(name) {
                columns.push(name);
            }
        }
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let heads = std::iter::once(self.name.clone()).chain(columns.iter().map(|&it| it.into()));
        let mut text = line(heads.collect());
        text.push_str(&line(vec!["---".to_owned(); columns.len() + 1]));
        for (name, figures) in &self.rows {
            let cell = |column: &&str| {
                let found = figures.iter().find(|(name, _)| name == column);
                found.map_or_else(String::new, |(_, value)| shown(*value))
            };
            text.push_str(&line(
                std::iter::once(name.clone()).chain(columns.iter().map(cell)).collect(),
            ));
        }
        text
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, figures)| {
            let mut row: Map<String, Value> =
                figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            row.insert("row".to_owned(), json!(name));
            Value::Object(row)
        });
        json!({"benchmark": self.name, "notes": self.notes, "rows": rows.collect::<Vec<_>>()})
    }

    /// Prints it, and appends it as a line of JSON to the file that `LOKI_BENCH_JSON` names.
    pub fn print(&self) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}", self.table())?;
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        if let Some(path) = std::env::var_os("LOKI_BENCH_JSON") {
            let mut file = fs::File::options().create(true).append(true).open(path)?;
            writeln!(file, "{}", self.json())?;
        }
        Ok(())
    }
}

/// Three digits of what is small, whole numbers of what is large.
fn shown(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// Tells whoever waits what happens.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "a figure is read by people")]
pub fn figure(count: u64) -> f64 {
    count as f64
}

/// One figure as a share of another, in percent.
pub fn percent(part: u64, whole: u64) -> f64 {
    100.0 * figure(part) / figure(whole.max(1))
}
