//! `loki openclaw pause` and `resume`: holds deliveries, all or those to one agent, and lets them go
//! on, with the bridge running or stopped. What a person paused outlives a restart.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::selection::actor;
use crate::cli::arguments::Global;
use crate::cli::{Done, look, output, output_of, store};

/// Which deliveries.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only those to this agent
    #[arg(long, visible_alias = "peer", value_name = "AGENT")]
    to: Option<String>,
}

/// Runs the command of this name.
pub async fn run(global: &Global, command: &str, arguments: Arguments) -> Done {
    let body = json!({ "to": arguments.to, "actor": actor() });
    let path = format!("/api/openclaw/{command}");
    let (answer, _) = store::post(&look(global)?, &path, &body).await?;
    if global.json {
        output_of(global).object(&answer, &[]);
    } else {
        output::line(&told(&answer));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is paused now.
fn told(answer: &Value) -> String {
    let paused = answer["paused"].as_array().map_or(&[][..], Vec::as_slice);
    if paused.is_empty() {
        return "nothing is paused".to_owned();
    }
    let one = |pause: &Value| {
        let what = pause["to"]
            .as_str()
            .map_or("all deliveries".to_owned(), |to| format!("deliveries to {to}"));
        let text = |name: &str| pause[name].as_str().unwrap_or_default().to_owned();
        format!("{what} (by {} at {})", text("by"), text("since"))
    };
    format!("paused: {}", paused.iter().map(one).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paused_now_is_told_in_one_line() {
        assert_eq!(told(&json!({"paused": []})), "nothing is paused");
        let answer = json!({"paused": [
            {"to": null, "by": "ada", "since": "T"}, {"to": "bob", "by": "eve", "since": "U"},
        ]});
        let both = "paused: all deliveries (by ada at T), deliveries to bob (by eve at U)";
        assert_eq!(told(&answer), both);
    }
}
