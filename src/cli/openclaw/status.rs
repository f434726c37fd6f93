//! `loki openclaw status`: 0 when the bridge is connected, 1 when it is not, also when it is
//! stopped.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::arguments::Global;
use crate::cli::client::Client;
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of};

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let asked = async { Client::bridge(&config)?.get("/api/openclaw/status", &[]).await };
    let status = match asked.await {
        Ok(status) => status,
        Err(Failure { code: Code::Unreachable, message, .. }) => {
            output::say(&message);
            if !global.json {
                return Ok(Code::NotSo.into());
            }
            json!({
                "connected": false,
                "agent_id": config.openclaw.agent_id,
                "namespace": config.openclaw.namespace,
                "server": config.openclaw.endpoint,
                "version": env!("CARGO_PKG_VERSION"),
            })
        }
        Err(failure) => return Err(failure),
    };
    output_of(global).object(&status);
    let connected = status["connected"] == json!(true);
    Ok(if connected { ExitCode::SUCCESS } else { Code::NotSo.into() })
}
