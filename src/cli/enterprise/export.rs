//! `loki enterprise audit export`: entries as JSON Lines, CSV or syslog, the oldest first, from the
//! journal on disk. It works beside a running program and takes no lock.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use storage::inspect::{AuditEntry, AuditFilter, start_of};

use super::Filters;
use super::read::Told;
use crate::audit::{csv, query, syslog};
use crate::cli::arguments::Global;
use crate::cli::failure::{Code, Failure};
use crate::cli::waiting::Waiting;
use crate::cli::{Done, look, output, past, store};

/// Bytes that are written at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The forms of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line
    #[default]
    Jsonl,
    /// Comma-separated values with a header (RFC 4180)
    Csv,
    /// A syslog message a line (RFC 5424)
    Syslog,
}

/// Which entries, and how.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The form
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only with this text in details, resource or actor
    #[arg(long)]
    text: Option<String>,
    #[command(flatten)]
    filters: Filters,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let mut asked = arguments.filters.whole();
    asked.extend(arguments.text.map(|text| ("text", text)));
    let asked = asked.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let filter = query::filter(asked).map_err(|refusal| store::past_failure(&refusal))?;
    let dir = config.openclaw.data_dir;
    let waiting = Waiting::beside_data(global, "exporting");
    let work = move || export(&dir, &filter, arguments.format, &waiting);
    let done = tokio::task::spawn_blocking(work).await;
    let damage = done.map_err(|error| Failure::new(Code::Store, error.to_string()))??;
    Told::default().warn(&json!({ "damage": damage }));
    Ok(ExitCode::SUCCESS)
}

/// Writes the entries; gives back what is damaged.
fn export(
    dir: &Path,
    filter: &AuditFilter,
    format: Format,
    waiting: &Waiting,
) -> Result<Vec<Value>, Failure> {
    let inspect = past::quietly(dir)?;
    let (first, last) =
        (inspect.reader().first_sequence(), inspect.reader().head().position.sequence);
    let mut watch = |frame: u64| {
        waiting.at((frame + 1).saturating_sub(first), (last + 1).saturating_sub(first));
    };
    let mut starts: HashMap<u32, Value> = HashMap::new();
    let mut text = String::new();
    if format == Format::Csv {
        text.push_str(csv::HEADER);
    }
    let mut show = |one: &AuditEntry| {
        let start = starts.entry(one.epoch).or_insert_with(|| {
            serde_json::from_str(&start_of(inspect.reader(), one.epoch)).unwrap_or_default()
        });
        let entry = query::whole(one, start);
        match format {
            Format::Jsonl => text.push_str(&entry.to_string()),
            Format::Csv => text.push_str(&csv::row(&entry)),
            Format::Syslog => text.push_str(&syslog::message(&entry)),
        }
        text.push_str(if format == Format::Csv { "\r\n" } else { "\n" });
        if text.len() < CHUNK_BYTES {
            return true;
        }
        let is_read = output::raw(text.as_bytes());
        text.clear();
        is_read
    };
    let damage = inspect.each_entry_watched(filter, &mut show, &mut watch);
    output::raw(text.as_bytes());
    let damage = damage.map_err(|error| Failure::new(Code::Store, error.to_string()))?;
    Ok(damage.into_iter().map(Value::from).collect())
}
