//! Opens a connection to a server and registers on it, over WebSocket or HTTP. It tries once;
//! trying again is the caller's affair.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::conversation::wire;
use super::conversation::{Ended, Handler, Settings};
use super::feed::Feed;
use super::socket::{Socket, Wire};
use crate::protocol::payload::{Nack, RegisterAck};
use crate::protocol::{Envelope, MessageType, RELAYED_BYTES_MAX, Refusal, parse_one_within};

/// What is written leaves at once: an answer that waits for the acknowledgement of an earlier one
/// comes 40 ms late.
const NO_DELAY: bool = true;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// The server's base URL, `http://` or `https://`.
    pub endpoint: String,
    /// The bearer token, if the server wants one.
    pub token: Option<String>,
    /// How long connecting and registering may take.
    pub timeout: Duration,
}

/// What carries a registered connection.
pub enum Carrier {
    /// For [`super::run`].
    WebSocket(Box<Socket>),
    /// For [`super::http::run`].
    Http(super::http::Session),
}

/// A registered connection.
pub struct Connection {
    /// What carries it.
    pub carrier: Carrier,
    /// What the server said to the register.
    pub ack: RegisterAck,
}

impl Connection {
    /// The transport's name, as configuration writes it.
    pub fn transport(&self) -> &'static str {
        match self.carrier {
            Carrier::WebSocket(_) => "websocket",
            Carrier::Http(_) => "http",
        }
    }

    /// Drives the connection until it ends, whatever carries it.
    pub async fn run(
        self,
        pump: &impl Feed,
        handler: &impl Handler,
        settings: &Settings,
        control: &mut mpsc::Receiver<Wire>,
        stop: watch::Receiver<bool>,
    ) -> Ended {
        match self.carrier {
            Carrier::WebSocket(socket) => {
                super::conversation::run(*socket, pump, handler, settings, control, stop).await
            }
            Carrier::Http(session) => {
                super::http::run(session, pump, handler, settings, control, stop).await
            }
        }
    }
}

/// A connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered, or not in time.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// What answered is not a server of this protocol, or a proxy in between refused.
    #[error("{endpoint} answered HTTP {status} instead of opening a WebSocket")]
    Status {
        /// The server.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// The server refused the register.
    #[error("the server refused to register this agent: {0}")]
    Refused(Refusal),
}

/// Connects over WebSocket and registers.
///
/// # Errors
/// When nobody answers in time, or the server refuses.
pub async fn connect(
    settings: &TransportSettings,
    register: &Envelope,
) -> Result<Connection, ConnectError> {
    let unreachable =
        |reason: String| ConnectError::Unreachable { endpoint: settings.endpoint.clone(), reason };
    match timeout(settings.timeout, open(settings, register)).await {
        Ok(result) => result,
        Err(_) => Err(unreachable(format!("no answer in {} s", settings.timeout.as_secs()))),
    }
}

async fn open(
    settings: &TransportSettings,
    register: &Envelope,
) -> Result<Connection, ConnectError> {
    let unreachable =
        |reason: String| ConnectError::Unreachable { endpoint: settings.endpoint.clone(), reason };
    let url = websocket_url(&settings.endpoint);
    let mut request = url.into_client_request().map_err(|error| unreachable(error.to_string()))?;
    if let Some(token) = &settings.token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            unreachable("the token has characters that a header cannot hold".into())
        })?;
        request.headers_mut().insert("authorization", value);
    }
    let socket = match connect_async_with_config(request, None, NO_DELAY).await {
        Ok((socket, _)) => socket,
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            return Err(ConnectError::Status { endpoint: settings.endpoint.clone(), status });
        }
        Err(error) => return Err(unreachable(error.to_string())),
    };
    let mut socket = Socket::of_client(socket);
    socket.send(wire(register)).await.map_err(unreachable)?;
    loop {
        match socket.receive().await {
            Some(Ok(Wire::Text(text))) => {
                if let Some(ack) = registered(text)? {
                    return Ok(Connection { carrier: Carrier::WebSocket(Box::new(socket)), ack });
                }
            }
            Some(Ok(Wire::Ping | Wire::Pong | Wire::Binary)) => {}
            Some(Ok(Wire::Close(_, reason))) => {
                return Err(unreachable(format!("it closed the connection: {reason}")));
            }
            Some(Err(error)) => return Err(unreachable(error)),
            None => return Err(unreachable("it closed the connection".into())),
        }
    }
}

/// The register's ack; `None` when the message is another one.
fn registered(text: String) -> Result<Option<RegisterAck>, ConnectError> {
    let Ok(envelope) = parse_one_within(text, RELAYED_BYTES_MAX) else { return Ok(None) };
    match envelope.message_type() {
        MessageType::Ack => Ok(serde_json::from_slice(envelope.payload_raw()).ok()),
        MessageType::Nack => match serde_json::from_slice::<Nack>(envelope.payload_raw()) {
            Ok(nack) => Err(ConnectError::Refused(nack.refusal())),
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

fn websocket_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    let base = match base.strip_prefix("https://") {
        Some(rest) => format!("wss://{rest}"),
        None => format!("ws://{}", base.trim_start_matches("http://")),
    };
    format!("{base}/ws")
}
