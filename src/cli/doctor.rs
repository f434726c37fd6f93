//! `loki doctor`: checks what a start needs, and says what to do about what is missing. It
//! changes nothing.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::arguments::Global;
use super::client::Client;
use super::failure::Code;
use super::{Done, output_of};
use crate::bridge::settings::Agents;
use crate::config::{BridgeConfig, process_environment};
use crate::executor::agents::check;

/// The arguments of the command: it has none of its own.
#[derive(Args, Debug)]
pub struct Arguments {}

/// Runs the command.
pub async fn run(global: &Global, _: &Arguments) -> Done {
    let mut checks = Vec::new();
    match BridgeConfig::load(&global.overrides(), &process_environment()) {
        Err(error) => checks.push(checked("configuration", Err(error.to_string()))),
        Ok(loaded) => {
            checks.push(checked("configuration", Ok("it is valid".to_owned())));
            checks.push(checked("agents", agents(&loaded.config)));
            if loaded.config.openclaw.endpoint.is_some() {
                checks.push(checked("server", server(&loaded.config).await));
            }
        }
    }
    output_of(global).list(&checks, &["check", "ok", "detail"]);
    let good = checks.iter().all(|check| check["ok"] == json!(true));
    Ok(if good { ExitCode::SUCCESS } else { Code::NotSo.into() })
}

fn checked(name: &str, outcome: Result<String, String>) -> Value {
    let ok = outcome.is_ok();
    let detail = outcome.unwrap_or_else(|problem| problem);
    json!({ "check": name, "ok": ok, "detail": detail })
}

fn agents(config: &BridgeConfig) -> Result<String, String> {
    let agents = Agents::of_config(config);
    if agents.all().is_empty() {
        return Err("no agents are configured: name some under agents".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::current_dir().map_err(|error| error.to_string())?;
    check(agents.all(), agents.provider(), &path, &here).map_err(|error| error.to_string())?;
    Ok(agents.types().join(", "))
}

async fn server(config: &BridgeConfig) -> Result<String, String> {
    let server = Client::server(config).map_err(|failure| failure.message)?;
    let health = server.get("/health", &[]).await.map_err(|failure| failure.message)?;
    let word = health["status"].as_str().unwrap_or("without a status");
    Ok(format!("{} is {word}", server.base()))
}
