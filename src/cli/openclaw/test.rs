//! `loki openclaw test`: sends a real message, a question about capabilities, and tells how long it
//! took until the server had it: through the running bridge, or directly when there is none.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::arguments::Global;
use crate::cli::client::{Client, target};
use crate::cli::failure::{Code, Failure};
use crate::cli::{Done, look, output, output_of, store};
use crate::clock::Clock;
use crate::config::BridgeConfig;

/// How long a person waits for the message to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs the command.
pub async fn run(global: &Global) -> Done {
    let config = look(global)?;
    let clock = Clock::system();
    let outcome = if store::is_held(&config.openclaw.data_dir) {
        through(&Client::bridge(&config).await?, &clock).await
    } else {
        directly(&config, &clock).await
    };
    let report = outcome.map_err(|failure| match failure.code {
        // What the server refuses is no mistake of whoever tests.
        Code::Usage if config.openclaw.endpoint.is_some() => {
            Failure { code: Code::NotSo, ..failure }
        }
        _ => failure,
    })?;
    if global.json {
        output_of(global).object(&report, &[]);
    } else {
        let text = |name: &str| report[name].as_str().unwrap_or_default().to_owned();
        let time = report["round_trip_ms"].as_u64().unwrap_or_default();
        output::line(&format!("{} has it after {time} ms, {}", text("server"), text("via")));
    }
    Ok(ExitCode::SUCCESS)
}

fn question() -> Value {
    json!({ "message_type": "capability_query", "payload": { "query_type": "list" } })
}

async fn through(bridge: &Client, clock: &Clock) -> Result<Value, Failure> {
    let status = bridge.get("/api/openclaw/status", &[]).await?;
    let server = status["server"].as_str().unwrap_or("a server");
    if status["connected"] != json!(true) {
        let reason = status["last_error"].as_str().unwrap_or("it has not tried yet");
        let text = format!("the bridge is not connected to {server}: {reason}");
        return Err(Failure::new(Code::Unreachable, text));
    }
    let begun = clock.monotonic();
    let sent = bridge.post("/api/openclaw/send", &question()).await?;
    let id = sent["message_id"].as_str().unwrap_or_default();
    loop {
        let message = bridge.get(&format!("/api/openclaw/messages/{id}"), &[]).await?;
        let waited = clock.monotonic() - begun;
        match message["status"].as_str().unwrap_or_default() {
            "delivered" => {
                let via =
                    format!("through the bridge ({})", status["transport"].as_str().unwrap_or("-"));
                return Ok(report(server, id, waited, &via));
            }
            "failed" | "expired" => {
                let step = message["history"].as_array().and_then(|steps| steps.last());
                let error = step.and_then(|step| step["error"].as_str()).unwrap_or("for good");
                return Err(Failure::new(Code::NotSo, format!("{server} refused it: {error}")));
            }
            _ if Duration::from_millis(waited) > PATIENCE => {
                let text = format!("{server} did not take it within {} s", PATIENCE.as_secs());
                return Err(Failure::new(Code::Unreachable, text));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn directly(config: &BridgeConfig, clock: &Clock) -> Result<Value, Failure> {
    let bridge = &config.openclaw;
    let server = Client::server(config)?;
    let agent_id = store::agent_id(&bridge.data_dir, bridge.agent_id.as_deref(), false)?;
    let id = clock.message_id();
    let mut envelope = question();
    envelope["agent_id"] = agent_id.as_str().into();
    envelope["namespace"] = bridge.namespace.as_str().into();
    envelope["message_id"] = id.as_str().into();
    let begun = clock.monotonic();
    server.post("/messages", &envelope).await?;
    let waited = clock.monotonic() - begun;
    // The answer is taken back out of the mailbox, which belongs to the bridge.
    let query = [("agent_id", agent_id.clone()), ("namespace", bridge.namespace.clone())];
    let mail = server.get("/messages", &query).await?;
    let mail = mail["messages"].as_array().cloned().unwrap_or_default();
    let answer = mail.iter().find(|message| message["correlation_id"] == json!(id));
    let answer = answer.ok_or_else(|| {
        let text = format!("{} took the question and has no answer to it", server.base());
        Failure::new(Code::NotSo, text)
    })?;
    let ack = json!({
        "agent_id": agent_id,
        "namespace": bridge.namespace,
        "message_ids": [answer["message_id"]],
    });
    server.post(&target("/messages/ack", &query[1..]), &ack).await?;
    Ok(report(server.base(), &id, waited, "directly, as no bridge is running"))
}

fn report(server: &str, id: &str, waited: u64, via: &str) -> Value {
    json!({
        "server": server,
        "message_id": id,
        "status": "delivered",
        "round_trip_ms": waited,
        "via": via,
    })
}
