//! `loki openclaw prune`: ends messages that nobody wants delivered any more, with the bridge running
//! or stopped. Their ids and their history stay.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use storage::record::Status;

use super::selection::Selection;
use crate::cli::arguments::Global;
use crate::cli::{Done, look, moment, output, output_of, store};

/// Which messages; without any of these, all that failed.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    selection: Selection,
    /// Of this status instead of failed
    #[arg(long, value_parser = Status::ALL.map(Status::as_str))]
    status: Option<String>,
    /// Written longer ago than this: 90s, 15m, 2h, 3d
    #[arg(long, value_name = "AGE", value_parser = moment::read, conflicts_with = "until")]
    older_than: Option<String>,
    /// Have their content removed too, at the next compaction; also that of finished messages
    #[arg(long)]
    shred: bool,
}

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let mut body = arguments.selection.body(arguments.status.as_deref());
    body["shred"] = arguments.shred.into();
    if let Some(before) = arguments.older_than {
        body["until"] = before.into();
    }
    let (answer, _) = store::post(&config, "/api/openclaw/prune", &body).await?;
    if global.json {
        output_of(global).object(&answer, &[]);
    } else {
        output::line(&told(&answer, arguments.shred));
    }
    Ok(ExitCode::SUCCESS)
}

fn told(answer: &Value, shred: bool) -> String {
    let count = |name: &str| answer[name].as_u64().unwrap_or_default();
    let messages = |count: u64| match count {
        1 => "1 message".to_owned(),
        _ => format!("{count} messages"),
    };
    let pruned = format!("{} pruned", messages(count("pruned")));
    if !shred {
        return pruned;
    }
    format!("{pruned}, the content of {} leaves the store", messages(count("shredded")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_gone_and_what_goes_is_told() {
        let answer = json!({"pruned": 1, "shredded": 312});
        assert_eq!(told(&answer, false), "1 message pruned");
        let both = "1 message pruned, the content of 312 messages leaves the store";
        assert_eq!(told(&answer, true), both);
    }
}
