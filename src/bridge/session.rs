//! Keeps a session with the server: connect, register, heartbeat, and again with a growing delay.
//! It decides nothing about messages or tasks.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use storage::event::Event;
use storage::record::{Direction, Level, Status};
use storage::transaction::Act;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::mail::DESTINATION;
use super::receive::{Receiver, busy};
use super::task::{self, Origin, TaskStatus};
use super::{LinkState, Shared};
use crate::clock::Millis;
use crate::config::Transport;
use crate::outbox::Pump;
use crate::protocol::payload::{AgentStatus, Heartbeat, Register, RegisterAck, RunningTask};
use crate::protocol::{Envelope, MessageType, Refusal};
use crate::shutdown::Phase;
use crate::transport::conversation::{Settings as Manners, wire};
use crate::transport::{ConnectError, Connection, Ended, TransportSettings, Wire, connect, http};

/// Unacknowledged messages under way, unless the server says otherwise.
const WINDOW_DEFAULT: usize = 256;

/// Upgrades that fail in a row before `auto` takes HTTP, section 4 of the protocol.
const UPGRADES_FAILED_MAX: u32 = 2;

/// The close code of a session that another program took over.
const CLOSE_REPLACED: u16 = 4_001;

/// A heartbeat is never asked for more often than this.
const HEARTBEAT_MIN: Duration = Duration::from_secs(1);

/// Heartbeats and requests to close that wait for the socket: a slow link drops heartbeats.
const CONTROL_MAX: usize = 8;

/// Connects again and again until the program stops or another one takes its place.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        if shared.shutdown.phase() >= Phase::Stopping || shared.link.read().replaced {
            return;
        }
        if shared.link.read().parked {
            tokio::select! {
                () = shared.steered.notified() => {}
                () = shared.shutdown.stopping() => return,
            }
            continue;
        }
        let opened = tokio::select! {
            opened = open(&shared) => opened,
            () = shared.shutdown.stopping() => return,
        };
        let wait = match opened {
            Ok(connection) => {
                hold(&shared, connection).await;
                shared.settings.retry.bound(1)
            }
            Err(reason) => failed(&shared, &reason),
        };
        let bound = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let wait = Duration::from_millis(shared.clock.draw(bound));
        tokio::select! {
            () = sleep(wait) => {}
            () = shared.steered.notified() => {}
            () = shared.shutdown.stopping() => return,
        }
    }
}

async fn open(shared: &Shared) -> Result<Connection, String> {
    let settings = TransportSettings {
        endpoint: shared.settings.server.clone().unwrap_or_default(),
        token: shared.settings.token.as_ref().map(|token| token.reveal().to_owned()),
        timeout: shared.settings.timeout.min(Duration::from_secs(30)),
    };
    let register = register(shared).map_err(|refusal| refusal.to_string())?;
    let opened = match carrier(shared) {
        Carried::Http => http::connect(&settings, &register).await,
        Carried::WebSocket => connect(&settings, &register).await,
    };
    match opened {
        Ok(connection) => Ok(connection),
        Err(error) => {
            if let ConnectError::Status { .. } = &error {
                let mut link = shared.link.write();
                link.upgrades_failed = link.upgrades_failed.saturating_add(1);
            }
            if let ConnectError::Refused(refusal) = &error {
                let act = shared.act(Event::AuthFail, DESTINATION).level(Level::Warning);
                note(shared, act, refusal.code.as_str());
            }
            Err(error.to_string())
        }
    }
}

enum Carried {
    WebSocket,
    Http,
}

/// `auto` takes HTTP when the server answered twice without opening a WebSocket.
fn carrier(shared: &Shared) -> Carried {
    match shared.settings.transport {
        Transport::Http => Carried::Http,
        Transport::Auto if shared.link.read().upgrades_failed >= UPGRADES_FAILED_MAX => {
            Carried::Http
        }
        Transport::WebSocket | Transport::Auto => Carried::WebSocket,
    }
}

fn register(shared: &Shared) -> Result<Envelope, Refusal> {
    let payload = Register {
        running: Some(running(shared)),
        settled_before: Some(settled_before(shared)),
        ..shared.settings.profile()
    };
    shared.author.write(&shared.clock.message_id(), None, None, &payload)
}

/// The offered tasks that are in our hands, also those whose result is on its way: the server must
/// not give them to anybody else meanwhile.
fn running(shared: &Shared) -> Vec<RunningTask> {
    let complete = MessageType::TaskComplete;
    let reported: HashSet<String> = shared.store.messages(|messages| {
        let results = messages
            .iter()
            .filter(|live| live.head.direction == Direction::Outbound)
            .filter(|live| live.head.message_type == complete.as_str());
        results.filter_map(|live| live.head.task_id.clone()).collect()
    });
    task::list(&shared.store.ledger(), &shared.settings.namespace)
        .into_iter()
        .filter(|task| task.origin == Origin::Offered)
        .filter(|task| {
            let held = matches!(task.status, TaskStatus::Accepted | TaskStatus::InProgress);
            held || reported.contains(&task.task_id)
        })
        .map(|task| RunningTask { task_id: task.task_id, attempt: Some(task.attempt) })
        .collect()
}

/// Every message that we sent before this time is finished.
fn settled_before(shared: &Shared) -> Millis {
    let waits = |status| matches!(status, Status::Pending | Status::Sending | Status::Held);
    let oldest = shared.store.messages(|messages| {
        let waiting = messages.iter().filter(|live| waits(live.status));
        waiting.map(|live| live.head.created_at).min()
    });
    oldest.unwrap_or_else(|| shared.clock.now())
}

fn failed(shared: &Shared, reason: &str) -> Duration {
    let failures = {
        let mut link = shared.link.write();
        link.failures = link.failures.saturating_add(1);
        link.last_error = Some(reason.to_owned());
        link.failures
    };
    if failures == 1 {
        warn!(%reason, "cannot connect to the server, trying again");
    }
    metrics::gauge!("loki_openclaw_connected").set(0.0);
    shared.settings.retry.bound(failures)
}

/// Keeps one connection until it ends.
async fn hold(shared: &Arc<Shared>, connection: Connection) {
    let ack = connection.ack.clone();
    let interval = interval(shared, &ack);
    connected(shared, &ack, connection.transport());
    let pump = Pump::new(
        shared.store.clone(),
        shared.clock.clone(),
        shared.settings.retry.clone(),
        DESTINATION,
    );
    let manners = Manners {
        agent_id: shared.settings.agent_id.clone(),
        namespace: shared.settings.namespace.clone(),
        window: ack.window.and_then(|window| window.try_into().ok()).unwrap_or(WINDOW_DEFAULT),
        ping_interval: interval / 2,
    };
    let (control, mut commands) = mpsc::channel(CONTROL_MAX);
    let (stop, stopped) = watch::channel(false);
    let handler = Receiver(Arc::clone(shared));
    let conversation = connection.run(&pump, &handler, &manners, &mut commands, stopped);
    tokio::pin!(conversation);
    let ended = tokio::select! {
        ended = &mut conversation => ended,
        () = beat(shared, interval, control) => Ended::Stopped,
        () = steered(shared) => {
            stop.send_replace(true);
            conversation.await
        }
    };
    disconnected(shared, ended);
}

/// Returns when the session has to end: by request, or because the program stops.
async fn steered(shared: &Shared) {
    tokio::select! {
        () = shared.steered.notified() => {}
        () = shared.shutdown.stopping() => {}
    }
}

fn interval(shared: &Shared, ack: &RegisterAck) -> Duration {
    let asked = ack.heartbeat_interval.and_then(|it| Duration::try_from_secs_f64(it).ok());
    asked.unwrap_or(shared.settings.heartbeat_interval).max(HEARTBEAT_MIN)
}

/// Sends heartbeats; it never returns.
async fn beat(shared: &Shared, interval: Duration, control: mpsc::Sender<Wire>) {
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        let Ok(envelope) = heartbeat(shared) else { continue };
        if control.try_send(wire(&envelope)).is_ok() {
            shared.link.write().last_heartbeat = Some(shared.clock.now());
        }
    }
}

fn heartbeat(shared: &Shared) -> Result<Envelope, Refusal> {
    let tasks = task::list(&shared.store.ledger(), &shared.settings.namespace);
    let status = match (shared.shutdown.phase(), busy(&tasks)) {
        (Phase::Draining | Phase::Stopping, _) => AgentStatus::Draining,
        (Phase::Running, 0) => AgentStatus::Idle,
        (Phase::Running, _) => AgentStatus::Busy,
    };
    let payload = Heartbeat {
        status: Some(status),
        running: Some(running(shared)),
        settled_before: Some(settled_before(shared)),
        ..Heartbeat::default()
    };
    shared.author.write(&shared.clock.message_id(), None, None, &payload)
}

fn connected(shared: &Shared, ack: &RegisterAck, transport: &'static str) {
    *shared.link.write() = LinkState {
        connected: true,
        transport: Some(transport),
        session_id: ack.session_id.clone(),
        since: Some(shared.clock.now()),
        ..LinkState::default()
    };
    metrics::gauge!("loki_openclaw_connected").set(1.0);
    info!(server = shared.settings.server, session = ack.session_id, "connected");
    note(shared, shared.act(Event::Connect, DESTINATION), "connected");
    shared.changed.notify_waiters();
}

fn disconnected(shared: &Shared, ended: Ended) {
    let by_request = matches!(ended, Ended::Stopped);
    let (reason, replaced) = match ended {
        Ended::Closed(CLOSE_REPLACED, reason) => (reason, true),
        Ended::Closed(code, reason) => (format!("closed with {code}: {reason}"), false),
        Ended::Lost(reason) => (reason, false),
        Ended::Stopped => ("disconnected by request".to_owned(), false),
        Ended::StoreStopped => ("the store has stopped".to_owned(), false),
    };
    {
        let mut link = shared.link.write();
        link.connected = false;
        link.since = Some(shared.clock.now());
        link.session_id = None;
        link.transport = None;
        link.last_error = Some(reason.clone());
        link.replaced = replaced;
    }
    metrics::gauge!("loki_openclaw_connected").set(0.0);
    if by_request {
        info!(%reason, "disconnected");
    } else {
        warn!(%reason, "disconnected");
    }
    note(shared, shared.act(Event::Disconnect, DESTINATION), &reason);
    if replaced {
        // The other program has our tasks now.
        shared.shutdown.stop();
    }
    shared.changed.notify_waiters();
}

/// Records an event of the link. It is informative: nobody waits for it.
fn note(shared: &Shared, act: Act, detail: &str) {
    let details = serde_json::json!({ "detail": detail }).to_string();
    drop(shared.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
        tx.note(act.details(details));
        Ok(())
    }));
}
