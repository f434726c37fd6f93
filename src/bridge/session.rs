//! Keeps a session with the server: connect, register, heartbeat, and again with a growing delay.
//! It decides nothing about messages or tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use storage::event::Event;
use storage::record::{Direction, Level, Status};
use storage::store::CommitError;
use storage::transaction::Act;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::mail::DESTINATION;
use super::receive::Receiver;
use super::task::{self, Origin};
use super::witness;
use super::{LinkState, Shared, dial, meter, work};
use crate::audit::witness::Witness;
use crate::clock::Millis;
use crate::outbox::Pump;
use crate::outbox::circuit::Sign;
use crate::protocol::payload::{AgentStatus, Heads, Heartbeat, Register, RegisterAck, RunningTask};
use crate::protocol::{Envelope, ErrorCode, MessageType, Refusal};
use crate::shutdown::Phase;
use crate::transport::conversation::{CLOSE_REPLACED, Settings as Manners, wire};
use crate::transport::feed::Feed as _;
use crate::transport::{ConnectError, Connection, Ended, Wire};

/// Unacknowledged messages under way, unless the server says otherwise.
const WINDOW_DEFAULT: usize = 256;

/// How long a connection may take to end: a peer that takes nothing does not keep the program.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a heartbeat waits for the end of the journal that it shows to be remembered.
const HEADS_PATIENCE: Duration = Duration::from_millis(500);

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
        match opened {
            Ok(connection) => {
                let mut held = Some(connection);
                while let Some(connection) = held.take() {
                    held = hold(&shared, connection).await;
                }
                if shared.link.read().replaced {
                    work::abandon(&shared).await;
                    shared.shutdown.stop();
                    return;
                }
            }
            Err(error) => failed(&shared, &error),
        }
        let wait = Duration::from_millis(shared.gate.pause());
        tokio::select! {
            () = sleep(wait) => {}
            () = shared.steered.notified() => {}
            () = shared.shutdown.stopping() => return,
        }
    }
}

async fn open(shared: &Shared) -> Result<Connection, ConnectError> {
    let register = register(shared).await.map_err(ConnectError::Refused)?;
    let begun = Instant::now();
    let connection = dial::open(shared, &register).await?;
    shared.answered("connect", begun.elapsed());
    Ok(connection)
}

async fn register(shared: &Shared) -> Result<Envelope, Refusal> {
    let stopped = |error: CommitError| Refusal::new(ErrorCode::Unavailable, error.to_string());
    let Witness { acked, shown, seen, .. } = witness::show(shared).await.map_err(stopped)?;
    // Before there was an answer, there is nothing that the server must know.
    let claim = acked.map(|acked| serde_json::json!([acked, shown]));
    let payload = Register {
        running: Some(running(shared)),
        settled_before: Some(settled_before(shared)),
        journal_head: shown.map(Into::into),
        journal_shown: claim,
        peer_head: seen.map(Into::into),
        ..shared.settings.profile()
    };
    shared.author.write(&shared.clock.message_id(), None, None, None, &payload)
}

/// The offered tasks that are in our hands, also those whose result is on its way: the server must
/// not give them to anybody else meanwhile.
fn running(shared: &Shared) -> Vec<RunningTask> {
    let complete = MessageType::TaskComplete;
    let results = shared.store.select(|one| {
        one.direction == Direction::Outbound
            && one.message_type == complete.as_str()
            // One that failed for good tells nobody anything any more.
            && one.status != Status::Failed
    });
    let reported = results.iter().filter_map(|live| live.head.task_id.as_deref().map(Arc::from));
    let ids: BTreeSet<Arc<str>> = shared.board.holders().into_iter().chain(reported).collect();
    let ledger = shared.store.ledger();
    let found = ids.iter().filter_map(|id| task::get(&ledger, &shared.settings.namespace, id));
    found
        .filter(|task| task.origin == Origin::Offered)
        .map(|task| RunningTask { task_id: task.task_id, attempt: Some(task.attempt) })
        .collect()
}

/// Every message that we sent before this time is finished.
fn settled_before(shared: &Shared) -> Millis {
    let waits = |status| matches!(status, Status::Pending | Status::Sending | Status::Held);
    let oldest = shared.store.messages(|messages| {
        let waiting = messages.iter().filter(|live| waits(live.status));
        waiting.map(|live| live.created_at).min()
    });
    oldest.unwrap_or_else(|| shared.clock.now())
}

fn failed(shared: &Shared, error: &ConnectError) {
    let reason = error.to_string();
    let sign = if error.is_barred() { Sign::Unwelcome } else { Sign::Unreachable };
    let is_news = {
        let mut link = shared.link.write();
        let before = link.last_error.replace(reason.clone());
        before.as_ref() != Some(&reason)
    };
    shared.gate.sign(sign, &reason);
    if is_news {
        warn!(%reason, "cannot connect to the server, trying again");
    }
    if let ConnectError::Refused(refusal) = error {
        let act = shared.act(Event::AuthFail, DESTINATION).level(Level::Warning);
        note(shared, act, refusal.code.as_str());
    }
}

/// Keeps one connection until it ends. Gives another one when that took its place.
async fn hold(shared: &Arc<Shared>, connection: Connection) -> Option<Connection> {
    let ack = connection.ack.clone();
    let transport = connection.transport();
    let interval = interval(shared, &ack);
    connected(shared, &ack, transport);
    // A store that stopped is told elsewhere.
    let _ = witness::judge(shared, &ack).await;
    let pump = pump(shared);
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
            if let Ok(ended) = timeout(STOP_TIMEOUT, &mut conversation).await {
                ended
            } else {
                // What was out waits again; a store that stopped is told elsewhere.
                let _ = pump.broken().await;
                Ended::Stopped
            }
        }
        socket = dial::better(shared, transport) => {
            // The server fences the old session, so that it has to be over first.
            stop.send_replace(true);
            let ended = conversation.await;
            disconnected(shared, ended);
            return dial::register(shared, socket, &register(shared).await.ok()?).await;
        }
    };
    disconnected(shared, ended);
    None
}

fn pump(shared: &Arc<Shared>) -> Pump {
    let counting = Arc::clone(shared);
    Pump::new(
        shared.store.clone(),
        shared.clock.clone(),
        shared.settings.retry.clone(),
        DESTINATION,
    )
    .with_gate(shared.gate.clone())
    .with_timeout(shared.settings.timeout)
    .observed(Arc::new(move |attempt| meter::attempted(&counting, attempt)))
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
    let (mut told, mut said) = (shared.shutdown.phase(), None);
    // The end of the server's journal that it knows to be kept here.
    let mut kept = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // The server is to give nothing more to a bridge that is about to stop.
            () = shared.shutdown.draining(), if told == Phase::Running => {}
        }
        told = shared.shutdown.phase();
        let status = status(shared);
        if said.replace(status).is_some_and(|said| said != status) {
            let word = serde_json::to_value(status).unwrap_or_default();
            let act = shared.act(Event::Heartbeat, DESTINATION).level(Level::Debug);
            note(shared, act, word.as_str().unwrap_or_default());
        }
        // A disk that is slow keeps no sign of life from leaving.
        let heads = tokio::time::timeout(HEADS_PATIENCE, witness::beat(shared, kept.as_ref()));
        let heads = heads.await.unwrap_or_default();
        let Ok(envelope) = heartbeat(shared, status, &heads) else { continue };
        if control.try_send(wire(&envelope)).is_ok() {
            shared.link.write().last_heartbeat = Some(shared.clock.now());
            if let Some(head) = heads.journal_head.as_ref().and_then(Value::as_str) {
                shared.pace.lock().shown(shared.clock.monotonic(), head);
            }
            kept = heads.peer_head.as_ref().and_then(Value::as_str).map(str::to_owned).or(kept);
        }
    }
}

fn status(shared: &Shared) -> AgentStatus {
    match (shared.shutdown.phase(), shared.board.holders().len()) {
        (Phase::Draining | Phase::Stopping, _) => AgentStatus::Draining,
        (Phase::Running, 0) => AgentStatus::Idle,
        (Phase::Running, _) => AgentStatus::Busy,
    }
}

fn heartbeat(shared: &Shared, status: AgentStatus, heads: &Heads) -> Result<Envelope, Refusal> {
    let Heads { journal_head, peer_head } = heads.clone();
    let payload = Heartbeat {
        status: Some(status),
        running: Some(running(shared)),
        settled_before: Some(settled_before(shared)),
        journal_head,
        peer_head,
        ..Heartbeat::default()
    };
    shared.author.write(&shared.clock.message_id(), None, None, None, &payload)
}

pub(super) fn connected(shared: &Shared, ack: &RegisterAck, transport: &'static str) {
    {
        let mut link = shared.link.write();
        *link = LinkState {
            connected: true,
            transport: Some(transport),
            session_id: ack.session_id.clone(),
            since: Some(shared.clock.now()),
            latency_ms: link.latency_ms,
            upgrades_failed: if transport == "http" { link.upgrades_failed } else { 0 },
            // A person may have disconnected the bridge while it connected.
            parked: link.parked,
            dedup_window: ack.dedup_window_seconds.map(Duration::from_secs).or(link.dedup_window),
            ..LinkState::default()
        };
    }
    shared.gate.sign(Sign::Linked, "");
    info!(server = shared.settings.server, session = ack.session_id, "connected");
    note(shared, shared.act(Event::Connect, DESTINATION), transport);
    let session = ack.session_id.as_deref().unwrap_or_default();
    note(shared, shared.act(Event::Register, DESTINATION), session);
    shared.changed.notify_waiters();
}

fn disconnected(shared: &Shared, ended: Ended) {
    let by_request = matches!(ended, Ended::Stopped);
    let (reason, replaced) = match ended {
        Ended::Closed(CLOSE_REPLACED, reason) => (reason, true),
        Ended::Closed(code, reason) => (format!("closed with {code}: {reason}"), false),
        Ended::Lost(reason) => (reason, false),
        Ended::Barred(reason) => {
            // What was out has said so already.
            if shared.gate.state().reason.is_none() {
                shared.gate.sign(Sign::Barred, &reason);
            }
            (reason, false)
        }
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
        link.replaced |= replaced;
    }
    if by_request {
        info!(%reason, "disconnected");
    } else {
        warn!(%reason, "disconnected");
    }
    note(shared, shared.act(Event::Disconnect, DESTINATION), &reason);
    shared.changed.notify_waiters();
}

/// Records an event of the link.
fn note(shared: &Shared, act: Act, detail: &str) {
    shared.tell(act.details(serde_json::json!({ "detail": detail }).to_string()));
}
