//! `loki doctor`: checks what a start needs, and says what to do about what is missing. It
//! changes nothing.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use storage::inspect::{Inspect, told};
use tokio::net::TcpListener;

use super::arguments::Global;
use super::client::Client;
use super::failure::Code;
use super::{Done, output_of, store};
use crate::bridge::settings::Agents;
use crate::clock::Clock;
use crate::config::{BridgeConfig, process_environment};
use crate::executor::agents;

/// Free bytes below which somebody should look.
const FREE_BYTES_GOOD: u64 = 2 << 30;

/// A difference between two clocks that begins to matter: an envelope's time counts at most 60 s
/// ahead, section 6 of the protocol.
const SKEW_MILLIS_MAX: u64 = 30_000;

/// The arguments of the command: it has none of its own.
#[derive(Args, Debug)]
pub struct Arguments {}

/// How a check came out.
enum Found {
    Good(String),
    /// It works, and somebody should look.
    Doubtful(String),
    Bad(String),
}
use Found::{Bad, Doubtful, Good};

/// Runs the command.
pub async fn run(global: &Global, _: &Arguments) -> Done {
    let mut found = Vec::new();
    let loaded = BridgeConfig::load(&global.overrides(), &process_environment());
    let read = BridgeConfig::unchecked(&global.overrides(), &process_environment());
    match &loaded {
        Err(error) => found.push(("configuration", Bad(error.to_string()))),
        Ok(loaded) if loaded.warnings.is_empty() => {
            found.push(("configuration", Good("it is valid".to_owned())));
        }
        Ok(loaded) => {
            let warnings = loaded.warnings.iter().cloned().map(Doubtful);
            found.extend(warnings.map(|warning| ("configuration", warning)));
        }
    }
    if let Ok(read) = read {
        let config = read.config;
        found.extend(agents_of(&config).into_iter().map(|agent| ("agent", agent)));
        let dir = &config.openclaw.data_dir;
        found.push(("data directory", directory(dir)));
        found.push(("store", store_in(dir)));
        found.push(("bridge", bridge(&config).await));
        found.push(("port", port(&config).await));
        found.push(("server", server(&config).await));
    }
    let bad = found.iter().any(|(_, found)| matches!(found, Bad(_)));
    let rows: Vec<Value> = found.into_iter().map(row).collect();
    output_of(global).texts(&rows, &["check", "status", "detail"]);
    Ok(if bad { Code::NotSo.into() } else { ExitCode::SUCCESS })
}

fn row((check, found): (&str, Found)) -> Value {
    let (status, detail) = match found {
        Good(detail) => ("ok", detail),
        Doubtful(detail) => ("warn", detail),
        Bad(detail) => ("fail", detail),
    };
    json!({ "check": check, "status": status, "detail": detail })
}

fn agents_of(config: &BridgeConfig) -> Vec<Found> {
    let agents = Agents::of_config(config);
    if agents.all().is_empty() {
        let text = "none is configured, so no task can run here: name some under `agents`";
        return vec![Doubtful(text.to_owned())];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    let each = agents.all().iter().map(|agent| {
        let one = std::slice::from_ref(agent);
        match agents::check(one, agents.provider(), &path, &here) {
            Ok(()) => Good(format!("{} can run", agent.agent_type)),
            Err(error) => Bad(error.to_string()),
        }
    });
    each.collect()
}

fn directory(dir: &Path) -> Found {
    match store::folder(dir) {
        Err(advice) => Bad(advice),
        Ok((there, free)) => {
            let room = format!("{} MiB are free in {}", free >> 20, there.display());
            if free < FREE_BYTES_GOOD {
                Doubtful(format!("only {room}: make room in time"))
            } else {
                Good(room)
            }
        }
    }
}

/// Whether the journal can be read, up to the frame that was written last.
fn store_in(dir: &Path) -> Found {
    if !dir.join("journal").is_dir() {
        return Good("there is none yet; the first start makes it".to_owned());
    }
    let inspect = match Inspect::open(dir) {
        Ok(inspect) => inspect,
        Err(error) => return Bad(error.to_string()),
    };
    let missing = told(&inspect.damage());
    if let Some(first) = missing.first() {
        let more = missing.len() - 1;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        return Bad(format!(
            "{first}{more}; `loki store check` names the messages that it touches, a backup may \
             still have them"
        ));
    }
    let head = inspect.reader().head();
    let sequence = head.position.sequence;
    match inspect.reader().frame(sequence) {
        _ if sequence == 0 => Good("it is empty".to_owned()),
        Ok(frame) if frame.hash == head.hash => {
            let end = if inspect.is_clean() { ", closed cleanly" } else { "" };
            Good(format!("it can be read up to frame {sequence}{end}"))
        }
        // Another process may have gone on meanwhile.
        Ok(_) | Err(_) if store::is_held(dir) => Good(format!("it is written to, {sequence}")),
        Ok(_) => Bad(format!("frame {sequence} does not fit its hash: restore it from a backup")),
        Err(error) => Bad(error.to_string()),
    }
}

async fn bridge(config: &BridgeConfig) -> Found {
    let client = match Client::holder(config) {
        Ok(None) => return Good("it is stopped".to_owned()),
        Ok(Some(client)) => client,
        Err(failure) => return Bad(failure.message),
    };
    // As they are: what they say to be missing is a finding here.
    let mut answer = client.dated("/api/openclaw/status").await;
    let is_server = answer.as_ref().is_err_and(|failure| failure.absent);
    if is_server {
        answer = client.dated("/health").await;
    }
    let missing = |status: &Value| status["damage"].get(0)?.as_str().map(str::to_owned);
    match answer.map(|(status, _)| status) {
        Err(failure) => Bad(failure.message),
        Ok(status) if missing(&status).is_some() => Bad(format!(
            "it runs at {} and cannot read a part of its store: {}; a backup may still have it",
            client.base(),
            missing(&status).unwrap_or_default()
        )),
        Ok(_) if is_server => {
            Good(format!("the folder belongs to the server at {}", client.base()))
        }
        Ok(status) if status["connected"] == json!(true) => {
            Good(format!("it runs at {} and is connected", client.base()))
        }
        Ok(status) if status["server"].is_null() => Good(format!("it runs at {}", client.base())),
        Ok(status) => {
            let why = status["last_error"].as_str().unwrap_or("it has not tried yet");
            Doubtful(format!("it runs at {} and is not connected: {why}", client.base()))
        }
    }
}

async fn port(config: &BridgeConfig) -> Found {
    let (host, port) = (config.dashboard.host.as_str(), config.dashboard.port);
    match TcpListener::bind((host, port)).await {
        Ok(_) if port == 0 => Good("a free one is taken at the start".to_owned()),
        Ok(_) => Good(format!("{port} of {host} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let own = Client::holder(config).ok().flatten();
            if own.is_some_and(|own| own.base().ends_with(&format!(":{port}"))) {
                return Good(format!("{port} of {host} is that of the running bridge"));
            }
            Bad(format!("{port} of {host} is taken: set LOKI_DASHBOARD_PORT to another, or to 0"))
        }
        Err(error) => Bad(format!("cannot listen on port {port} of {host}: {error}")),
    }
}

async fn server(config: &BridgeConfig) -> Found {
    if config.openclaw.endpoint.is_none() {
        return Good("none is configured; tasks are done by this machine alone".to_owned());
    }
    let (server, clock) = match Client::server(config) {
        Ok(server) => (server, Clock::system()),
        Err(failure) => return Bad(failure.message),
    };
    let asked = clock.now();
    let (health, date) = match server.dated("/health").await {
        Ok(answer) => answer,
        Err(failure) => return Bad(failure.message),
    };
    let base = server.base();
    let version = health["version"].as_str().unwrap_or_default();
    // The header has whole seconds.
    let skew = date.map_or(0, |date| date.abs_diff(asked)).saturating_sub(1_000);
    match health["status"].as_str() {
        Some("ok") if skew > SKEW_MILLIS_MAX => Doubtful(format!(
            "the clocks of {base} and this machine differ by {} s: set them, or what was written \
             last cannot be told",
            skew / 1_000
        )),
        Some("ok") if version != env!("CARGO_PKG_VERSION") => Doubtful(format!(
            "{base} is ok and has version {version}, this is {}",
            env!("CARGO_PKG_VERSION")
        )),
        Some("ok") => Good(format!("{base} is ok, version {version}")),
        Some(other) => Bad(format!("{base} is {other}: look at its log")),
        None => Bad(format!("{base} answers, and is no OpenClaw server: look at the endpoint")),
    }
}
