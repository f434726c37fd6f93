//! `loki store compact`: writes every file of the journal anew that has content which nobody keeps,
//! by the running bridge or on a stopped store.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::open::{check_there, close, is_held, open};
use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output_of};
use crate::clock::Clock;
use crate::config::BridgeConfig;
use crate::shutdown::Shutdown;
use crate::upkeep;

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let dir = &config.openclaw.data_dir;
    check_there(dir)?;
    let answer = if is_held(dir) {
        running(&config).await?
    } else {
        let stopped = tokio::task::spawn_blocking(move || stopped(&config)).await;
        stopped.map_err(|error| Failure::new(Code::Store, error.to_string()))??
    };
    output_of(global).object(&answer, &["done", "segments", "bodies", "bytes_freed"]);
    Ok(ExitCode::SUCCESS)
}

/// The bridge answers within seconds, also when it goes on: then it is asked again.
async fn running(config: &BridgeConfig) -> Result<Value, Failure> {
    let bridge = Client::bridge(config).await?;
    loop {
        let answer = bridge.post("/api/openclaw/compact", &json!({})).await?;
        if answer["done"] == true {
            return Ok(answer);
        }
    }
}

fn stopped(config: &BridgeConfig) -> Result<Value, Failure> {
    let (rules, usual) = (&config.openclaw.store, config.openclaw.retention);
    let database = open(&config.openclaw.data_dir, rules, &Clock::system(), &Shutdown::default())?;
    database.set_retention(upkeep::retention(rules, usual));
    let settled = database.view().settle();
    let freed = database.upkeep().compact();
    close(database)?;
    settled.map_err(|error| Failure::new(Code::Store, error.to_string()))?;
    Ok(upkeep::freed(freed))
}
