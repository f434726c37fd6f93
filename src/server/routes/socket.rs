//! `/ws`: the protocol over a WebSocket. The first message registers; then the conversation of
//! [`crate::transport`] runs until either side ends it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{State, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::problem::Failure;
use crate::outbox::Pump;
use crate::protocol::payload::Heads;
use crate::protocol::{
    Envelope, ErrorCode, Fields, MessageType, RELAYED_BYTES_MAX, Refusal, Rejected,
    SERVER_AGENT_ID, parse_frame,
};
use crate::server::core::{Core, SOCKETS_MAX};
use crate::server::intake::{self, Fate, Source, Taken, WINDOW};
use crate::server::life::{Ending, name};
use crate::server::{mail, registry};
use crate::transport::conversation::{receipts, wire};
use crate::transport::socket::READ_BUFFER_BYTES;
use crate::transport::{Answer, Answers, Ended, Handler, Settings, Socket, Wire, run};

/// How long a new connection may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// The close code of a connection that is no longer needed.
const CLOSE_NORMAL: u16 = 1_000;

/// The close code of a program that goes away.
const CLOSE_GOING_AWAY: u16 = 1_001;

/// The close code of a session that another one replaced.
const CLOSE_REPLACED: u16 = 4_001;

/// The close code of a connection that broke the rules of the protocol.
const CLOSE_POLICY: u16 = 1_008;

/// The close code of a server that is full.
const CLOSE_TRY_AGAIN: u16 = 1_013;

/// Closing requests under way: there is one at the most.
const CONTROL_MAX: usize = 1;

/// `GET /ws`.
pub(super) async fn upgrade(
    State(core): State<Arc<Core>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(RELAYED_BYTES_MAX)
            .max_frame_size(RELAYED_BYTES_MAX)
            .read_buffer_size(READ_BUFFER_BYTES)
            .on_upgrade(move |socket| drive(core, Socket::of_server(socket))),
        Err(rejection) => {
            let status = rejection.status().as_u16();
            let detail = "connect with a websocket client".to_owned();
            Failure::other(status, "upgrade_required", detail).into_response()
        }
    }
}

/// An agent's connection after its register.
struct Registered {
    source: Source,
    settings: Settings,
    session_id: String,
}

/// Serves a connection if there is room for one more.
async fn drive(core: Arc<Core>, mut socket: Socket) {
    let Ok(permit) = Arc::clone(&core.sockets).try_acquire_owned() else {
        let reason = format!("try again later; {SOCKETS_MAX} connections are open");
        // The other end may be gone already.
        let _ = socket.send(Wire::Close(CLOSE_TRY_AGAIN, reason)).await;
        return;
    };
    serve(core, socket).await;
    drop(permit);
}

async fn serve(core: Arc<Core>, mut socket: Socket) {
    let registered = tokio::time::timeout(REGISTER_TIMEOUT, register(&core, &mut socket));
    let Ok(Some(agent)) = registered.await else {
        let reason = "send a register first".to_owned();
        // The other end may be gone already.
        let _ = socket.send(Wire::Close(CLOSE_POLICY, reason)).await;
        return;
    };
    let (namespace, agent_id) = (
        agent.source.namespace.clone().unwrap_or_default(),
        agent.source.agent_id.clone().unwrap_or_default(),
    );
    let who = name(&namespace, &agent_id);
    let mailbox = mail::mailbox(&namespace, &agent_id);
    let mut ending = core.life.connect(&who, &agent.session_id);
    let pump = Pump::new(core.store.clone(), core.clock.clone(), mail::policy(), &mailbox)
        .returning(mail::returns(&core.store, &core.clock));
    let (control, mut controlled) = mpsc::channel(CONTROL_MAX);
    let stopping = core.stopping.clone();
    let handler = Connected { core: Arc::clone(&core), source: agent.source };
    let conversation = run(socket, &pump, &handler, &agent.settings, &mut controlled, stopping);
    tokio::pin!(conversation);
    let ended = tokio::select! {
        ended = &mut conversation => ended,
        reason = ended_by(&mut ending) => {
            // Dropped when the connection is gone already.
            let _ = control.send(farewell(reason)).await;
            conversation.await
        }
    };
    tracing::debug!(agent_id, namespace, ?ended, "a connection ended");
    // Another connection has its place, maybe in the same session: it says nothing any more.
    if *ending.borrow() != Ending::Open {
        return;
    }
    core.life.disconnect(&who, &agent.session_id);
    if matches!(ended, Ended::Closed(CLOSE_NORMAL | CLOSE_GOING_AWAY, _)) {
        let session_id = agent.session_id;
        let said = core
            .decided(move |desk| registry::goodbye(desk, &namespace, &agent_id, &session_id))
            .await;
        if let Err(refusal) = said {
            tracing::warn!(%refusal, "a goodbye could not be recorded");
        }
    }
}

async fn ended_by(ending: &mut watch::Receiver<Ending>) -> Ending {
    let reason = ending.wait_for(|ending| *ending != Ending::Open).await.map(|reason| *reason).ok();
    match reason {
        Some(reason) => reason,
        // Nobody can end it any more but the connection itself.
        None => std::future::pending().await,
    }
}

fn farewell(reason: Ending) -> Wire {
    let text = match reason {
        Ending::Replaced => "session_replaced: another instance of this agent registered",
        Ending::Superseded | Ending::Open => "superseded: this instance connected again",
    };
    let code = if reason == Ending::Replaced { CLOSE_REPLACED } else { CLOSE_NORMAL };
    Wire::Close(code, text.to_owned())
}

/// Reads until a `register` was taken. `None`: the connection is of no use.
async fn register(core: &Arc<Core>, socket: &mut Socket) -> Option<Registered> {
    loop {
        let text = match socket.receive().await? {
            Ok(Wire::Text(text)) => text,
            Ok(Wire::Ping(_) | Wire::Pong(_)) => continue,
            Ok(Wire::Close(..) | Wire::Binary) | Err(_) => return None,
        };
        let mut messages = match parse_frame(text) {
            Ok(frame) => frame.messages,
            Err(refusal) => vec![Err(Rejected::from(refusal))],
        };
        let is_register = messages.first().is_some_and(|first| {
            first.as_ref().is_ok_and(|it| *it.message_type() == MessageType::Register)
        });
        if !is_register {
            refuse(socket, &messages).await;
            return None;
        }
        let rest = messages.split_off(1);
        let taken = intake::take(core, &Source::default(), messages).await;
        let registered = welcome(core, socket, taken.first()?).await?;
        if !rest.is_empty() {
            let answers = answers(&intake::take(core, &registered.source, rest).await);
            for receipt in receipts(&answers.answers, &registered.settings) {
                socket.send(receipt).await.ok()?;
            }
        }
        return Some(registered);
    }
}

async fn welcome(core: &Core, socket: &mut Socket, taken: &Taken) -> Option<Registered> {
    let settings = |namespace: &str| Settings {
        agent_id: SERVER_AGENT_ID.to_owned(),
        namespace: namespace.to_owned(),
        window: WINDOW as usize,
        ping_interval: core.rules.heartbeat / 2,
    };
    let (namespace, agent_id) = taken.registered.clone().unwrap_or_default();
    let settings = settings(&namespace);
    let Fate::Accepted(Some(payload)) = &taken.fate else {
        for receipt in receipts(&[answer(taken)], &settings) {
            socket.send(receipt).await.ok()?;
        }
        return None;
    };
    let session_id = payload.get("session_id").and_then(Value::as_str)?.to_owned();
    let fields = Fields {
        agent_id: Some(SERVER_AGENT_ID),
        namespace: Some(&namespace),
        timestamp: Some(core.clock.now()),
        to: Some(&agent_id),
        ..Fields::default()
    };
    let ack = Envelope::compose(MessageType::Ack, fields, payload).ok()?;
    socket.send(wire(&ack)).await.ok()?;
    let source = Source {
        agent_id: Some(agent_id),
        namespace: Some(namespace),
        session_id: Some(session_id.clone()),
        window: Some(WINDOW),
        ..Source::default()
    };
    Some(Registered { source, settings, session_id })
}

async fn refuse(socket: &mut Socket, messages: &[Result<Envelope, Rejected>]) {
    let settings = Settings {
        agent_id: SERVER_AGENT_ID.to_owned(),
        namespace: crate::protocol::DEFAULT_NAMESPACE.to_owned(),
        window: 0,
        ping_interval: Duration::from_secs(1),
    };
    let detail = "send a register as the first message of a connection";
    let early = || Refusal::new(ErrorCode::Unauthorized, detail).at("message_type");
    let answers: Vec<Answer> = messages
        .iter()
        .enumerate()
        .map(|(position, message)| {
            let (message_id, refusal) = match message {
                Ok(envelope) => (envelope.message_id().map(str::to_owned), early()),
                Err(rejected) => (rejected.message_id.clone(), rejected.refusal.clone()),
            };
            let index = message_id.is_none().then_some(u32::try_from(position).unwrap_or(0));
            Answer { message_id, index, outcome: Err(refusal), heads: Heads::default() }
        })
        .collect();
    for receipt in receipts(&answers, &settings) {
        if socket.send(receipt).await.is_err() {
            return;
        }
    }
}

/// Takes what arrives on a registered connection.
struct Connected {
    core: Arc<Core>,
    source: Source,
}

impl Handler for Connected {
    async fn frame(&self, messages: Vec<Result<Envelope, Rejected>>) -> Answers {
        answers(&intake::take(&self.core, &self.source, messages).await)
    }
}

fn answers(taken: &[Taken]) -> Answers {
    let replaced = taken
        .iter()
        .any(|one| matches!(&one.fate, Fate::Refused(it) if it.code == ErrorCode::SessionReplaced));
    // Only a new connection brings a session that is known.
    let unknown = taken.iter().any(|one| {
        matches!(&one.fate, Fate::Refused(it)
            if it.field.as_deref() == Some(registry::SESSION_FIELD))
    });
    let close = match (replaced, unknown) {
        (true, _) => Some((CLOSE_REPLACED, "session_replaced".to_owned())),
        (false, true) => Some((CLOSE_TRY_AGAIN, "register again".to_owned())),
        (false, false) => None,
    };
    Answers { answers: taken.iter().map(answer).collect(), close }
}

fn answer(taken: &Taken) -> Answer {
    let (outcome, heads) = match &taken.fate {
        Fate::Accepted(Some(payload)) => {
            (Ok(()), serde_json::from_value(payload.clone()).unwrap_or_default())
        }
        Fate::Accepted(None) | Fate::Duplicate => (Ok(()), Heads::default()),
        Fate::Refused(refusal) => (Err(refusal.clone()), Heads::default()),
    };
    Answer { message_id: taken.message_id.clone(), index: taken.index, outcome, heads }
}
