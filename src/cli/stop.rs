//! `loki stop`: has the running bridge drain, and waits until it has ended. It sends no signal: a
//! second step is left to whoever is impatient.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::arguments::Global;
use super::client::Client;
use super::failure::{Code, Failure};
use super::{Done, look, output, store};
use crate::clock::Clock;

/// What a bridge needs beside its drain time to close its store.
const CLOSE: Duration = Duration::from_secs(30);

/// Between two looks whether it still runs.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let bridge = Client::bridge(&config).await?;
    bridge.post("/api/openclaw/stop", &json!({})).await?;
    let (clock, patience) = (Clock::system(), config.openclaw.drain_timeout + CLOSE);
    output::say("the bridge is draining: what runs may end");
    while store::is_held(&config.openclaw.data_dir) {
        if Duration::from_millis(clock.monotonic()) > patience {
            let text = format!("the bridge has not ended within {} s", patience.as_secs());
            return Err(Failure::new(Code::NotSo, text));
        }
        tokio::time::sleep(PAUSE).await;
    }
    output::say("the bridge has stopped");
    Ok(ExitCode::SUCCESS)
}
