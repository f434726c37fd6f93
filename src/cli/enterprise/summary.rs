//! `loki enterprise audit summary`: how many entries there are, by event, level and actor.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::Filters;
use super::read::Told;
use crate::cli::arguments::Global;
use crate::cli::{Done, look, output_of, past};

/// Which entries.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    filters: Filters,
}

/// The columns of the table.
const COLUMNS: [&str; 3] = ["by", "name", "count"];

/// Runs the command.
pub async fn run(global: &Global, arguments: &Arguments) -> Done {
    let config = look(global)?;
    let answer = past::get(&config, "/api/audit/summary", &arguments.filters.whole()).await?;
    Told::default().warn(&answer);
    let output = output_of(global);
    if output.json {
        output.object(&answer, &[]);
    } else {
        output.list(&rows(&answer), &COLUMNS);
    }
    Ok(ExitCode::SUCCESS)
}

/// The answer as a table has it.
fn rows(answer: &Value) -> Vec<Value> {
    let row =
        |by: &str, name: &Value, count: &Value| json!({"by": by, "name": name, "count": count});
    let levels = answer["levels"].as_object().into_iter().flatten();
    let listed = |by: &'static str, field: &str| {
        let all = answer[field].as_array().into_iter().flatten();
        all.map(move |one| row(by, &one["name"], &one["count"])).collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    if answer["entries"].as_u64().unwrap_or_default() > 0 {
        let period = format!("{} to {}", plain(&answer["first"]), plain(&answer["last"]));
        rows.push(row("all", &period.into(), &answer["entries"]));
    }
    // By gravity, which the names of the levels do not tell.
    for name in ["error", "warning", "info", "debug"] {
        let found = levels.clone().find(|(level, _)| *level == name);
        rows.extend(found.map(|(_, count)| row("level", &name.into(), count)));
    }
    rows.extend(listed("event", "events"));
    rows.extend(listed("actor", "actors"));
    if answer["other_actors"].as_u64().unwrap_or_default() > 0 {
        rows.push(row("actor", &"others".into(), &answer["other_actors"]));
    }
    rows
}

fn plain(time: &Value) -> &str {
    time.as_str().unwrap_or("-")
}
