//! `loki openclaw messages`: the messages of the bridge, running or not, newest first, or grouped by
//! what keeps them.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use storage::record::{Reason, Status};

use crate::cli::arguments::Global;
use crate::cli::{Done, look, moment, output, output_of, past};
use crate::clock::{Clock, Millis, parse_rfc3339};
use crate::config::BridgeConfig;

/// Which messages.
#[derive(Args, Debug)]
pub struct Arguments {
    /// At most so many, up to 1000
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// Only older ones than on the page that ended with this
    #[arg(long, value_name = "NEXT")]
    after: Option<String>,
    /// Of this status
    #[arg(long, value_parser = Status::ALL.map(Status::as_str))]
    status: Option<String>,
    /// That have their status for this reason
    #[arg(long, value_parser = reasons())]
    reason: Option<String>,
    /// Sent from here, or received
    #[arg(long, value_parser = ["outbound", "inbound"])]
    direction: Option<String>,
    /// Of this type
    #[arg(long = "type")]
    message_type: Option<String>,
    /// To or from this agent
    #[arg(long, visible_alias = "to")]
    peer: Option<String>,
    /// Of this namespace; a server has many
    #[arg(long)]
    namespace: Option<String>,
    /// About this task
    #[arg(long)]
    task_id: Option<String>,
    /// Written at this time or later: 2026-02-15T14:30:00Z, or 15m for the last 15 minutes
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    since: Option<String>,
    /// Written before this time
    #[arg(long, value_name = "TIME", value_parser = moment::read)]
    until: Option<String>,
    /// Group all of them by cause, the failed ones unless a status is named
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    by_cause: bool,
}

/// Why a message can have its status.
pub fn reasons() -> Vec<&'static str> {
    Reason::NAMED.into_iter().filter_map(Reason::as_str).collect()
}

/// The columns of causes, the most important first.
const CAUSES: [&str; 7] = ["messages", "cause", "reason", "peers", "types", "newest", "example"];

/// The columns, the most important first.
const COLUMNS: [&str; 7] = ["message_id", "status", "detail", "type", "way", "tries", "peer"];

/// Runs the command.
pub async fn run(global: &Global, arguments: Arguments) -> Done {
    let config = look(global)?;
    let optional = [
        ("status", arguments.status),
        ("reason", arguments.reason),
        ("direction", arguments.direction),
        ("type", arguments.message_type),
        ("peer", arguments.peer),
        ("namespace", arguments.namespace),
        ("task_id", arguments.task_id),
        ("since", arguments.since),
        ("until", arguments.until),
        ("after", arguments.after),
    ];
    let named = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
    if arguments.by_cause {
        return by_cause(global, &config, &named.collect::<Vec<_>>()).await;
    }
    let mut query = vec![("limit", arguments.limit.to_string())];
    query.extend(named);
    let answer = past::get(&config, "/api/openclaw/messages", &query).await?;
    let messages = answer["messages"].as_array().cloned().unwrap_or_default();
    let now = Clock::system().now();
    output_of(global).list_as(&messages, &COLUMNS, |message| shown(message, now));
    if let Some(next) = answer["next"].as_str() {
        output::say(&format!("there are more: add --after {next}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn by_cause(global: &Global, config: &BridgeConfig, query: &[(&str, String)]) -> Done {
    let answer = past::get(config, "/api/openclaw/causes", query).await?;
    let causes = answer["causes"].as_array().cloned().unwrap_or_default();
    output_of(global).texts(&causes, &CAUSES);
    if !causes.is_empty() {
        output::say(&summary(answer["messages"].as_u64().unwrap_or_default(), causes.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// `312 messages, one cause`
fn summary(messages: u64, causes: usize) -> String {
    let count = |count: u64, noun: &str| match count {
        1 => format!("one {noun}"),
        _ => format!("{count} {noun}s"),
    };
    format!("{}, {}", count(messages, "message"), count(causes as u64, "cause"))
}

/// A message as its row of the table.
fn shown(message: &Value, now: Millis) -> Value {
    let way = if message["direction"] == "outbound" { "out" } else { "in" };
    let due = message["next_attempt_at"].as_str().and_then(parse_rfc3339);
    json!({
        "message_id": message["message_id"],
        "status": message["status"],
        "detail": due.map_or(message["reason"].clone(), |due| until(due, now).into()),
        "type": message["message_type"],
        "way": way,
        "tries": message["attempts"],
        "peer": message["peer"],
    })
}

/// How long it is until a time, in its largest unit.
fn until(due: Millis, now: Millis) -> String {
    match due.saturating_sub(now).div_ceil(1_000) {
        0 => "due now".to_owned(),
        seconds @ 1..60 => format!("due in {seconds}s"),
        seconds @ 60..3_600 => format!("due in {}m", seconds / 60),
        seconds => format!("due in {}h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_messages_with_one_cause_are_told_so() {
        assert_eq!(summary(312, 1), "312 messages, one cause");
        assert_eq!(summary(1, 1), "one message, one cause");
        assert_eq!(summary(4, 2), "4 messages, 2 causes");
    }

    #[test]
    fn the_time_until_the_next_attempt_is_told_in_its_largest_unit() {
        let cases = [
            (5, "due now"),
            (11, "due in 1s"),
            (59_010, "due in 59s"),
            (90_010, "due in 1m"),
            (7_200_010, "due in 2h"),
        ];
        for (due, told) in cases {
            assert_eq!(until(due, 10), told);
        }
    }
}
