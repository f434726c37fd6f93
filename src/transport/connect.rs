//! Opens a connection to a server and registers on it, over WebSocket or HTTP. It tries once;
//! trying again is the caller's affair.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, client_async_tls_with_config, connect_async_tls_with_config};

use super::conversation::wire;
use super::conversation::{Ended, Handler, Settings};
use super::feed::Feed;
use super::proxy::{self, Proxy};
use super::socket::{READ_BUFFER_BYTES, Socket, Wire};
use super::tls;
use crate::clock::Clock;
use crate::config::ClientTls;
use crate::protocol::payload::{Nack, RegisterAck};
use crate::protocol::{Envelope, MessageType, RELAYED_BYTES_MAX, Refusal, parse_one_within};

/// A server that does not open a connection in this time is away, however patient an attempt is.
const CONNECT_MAX: Duration = Duration::from_secs(30);
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
    /// How long connecting and registering may take, and how long one call waits for its answer.
    pub timeout: Duration,
    /// For answers that name a time.
    pub clock: Clock,
    /// What leads to the server.
    pub way: Way,
}

/// What leads to a server.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// The proxy in between.
    pub proxy: Option<Proxy>,
    /// Certificates; none: the well-known authorities.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl TransportSettings {
    /// How long opening a connection may take.
    fn connect_timeout(&self) -> Duration {
        self.timeout.min(CONNECT_MAX)
    }

    /// A client for calls over HTTP.
    pub(super) fn client(&self) -> Result<reqwest::Client, String> {
        // Which proxy there is was decided already, the same for both transports.
        let mut client =
            reqwest::Client::builder().connect_timeout(self.connect_timeout()).no_proxy();
        if let Some(proxy) = &self.way.proxy {
            let all =
                reqwest::Proxy::all(proxy.url().clone()).map_err(|error| error.to_string())?;
            client = client.proxy(all);
        }
        if let Some(tls) = &self.way.tls {
            client = client.tls_backend_preconfigured(rustls::ClientConfig::clone(tls));
        }
        client.build().map_err(|error| error.to_string())
    }
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

impl Way {
    /// The way to a server by the variables of this process and the configured certificates.
    ///
    /// # Errors
    /// A sentence for the person who set them.
    pub fn find(endpoint: &str, tls: &ClientTls) -> Result<Self, String> {
        let proxy = proxy::of_process(endpoint).map_err(|error| error.to_string())?;
        let tls = tls::client(tls).map_err(|error| error.to_string())?;
        Ok(Self { proxy, tls })
    }

    /// A client for calls over HTTP on this way and no other.
    ///
    /// # Errors
    /// When the proxy is none that the library can use.
    pub fn client(&self) -> reqwest::Result<reqwest::ClientBuilder> {
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(proxy) = &self.proxy {
            client = client.proxy(reqwest::Proxy::all(proxy.url().clone())?);
        }
        if let Some(tls) = &self.tls {
            client = client.tls_backend_preconfigured(rustls::ClientConfig::clone(tls));
        }
        Ok(client)
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
    /// What answered opened no WebSocket.
    #[error("{endpoint} answered HTTP {status} instead of opening a WebSocket")]
    Status {
        /// The server.
        endpoint: String,
        /// The HTTP status.
        status: u16,
    },
    /// What answered lets nothing of ours in.
    #[error("{endpoint}: {reason}")]
    Barred {
        /// The server.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The server refused the register.
    #[error("the server refused to register this agent: {0}")]
    Refused(Refusal),
}

impl ConnectError {
    /// Whether trying again is of no use before a person has done something.
    pub fn is_barred(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Status { status, .. } => matches!(status, 401 | 403 | 404 | 405),
            Self::Barred { .. } => true,
            Self::Refused(refusal) => !refusal.retryable,
        }
    }
}

/// Opens a WebSocket to the server, and says nothing on it yet.
///
/// # Errors
/// When nobody answers in time, or no WebSocket comes of it.
pub async fn upgrade(settings: &TransportSettings) -> Result<Socket, ConnectError> {
    in_time(settings, settings.connect_timeout(), open(settings)).await
}

/// Registers on a socket that was just opened.
///
/// # Errors
/// When no answer comes in time, or the server refuses.
pub async fn register(
    settings: &TransportSettings,
    socket: Socket,
    register: &Envelope,
) -> Result<Connection, ConnectError> {
    in_time(settings, settings.timeout, greet(settings, socket, register)).await
}

/// Opens a WebSocket and registers on it.
///
/// # Errors
/// When nobody answers in time, or the server refuses.
pub async fn connect(
    settings: &TransportSettings,
    envelope: &Envelope,
) -> Result<Connection, ConnectError> {
    register(settings, upgrade(settings).await?, envelope).await
}

async fn in_time<T>(
    settings: &TransportSettings,
    limit: Duration,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(unreachable(settings, format!("no answer in {} s", limit.as_secs_f32())))
    })
}

fn unreachable(settings: &TransportSettings, reason: String) -> ConnectError {
    ConnectError::Unreachable { endpoint: settings.endpoint.clone(), reason }
}

async fn open(settings: &TransportSettings) -> Result<Socket, ConnectError> {
    let url = websocket_url(&settings.endpoint);
    let mut request =
        url.into_client_request().map_err(|error| unreachable(settings, error.to_string()))?;
    if let Some(token) = &settings.token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
            unreachable(settings, "the token has characters that a header cannot hold".into())
        })?;
        request.headers_mut().insert("authorization", value);
    }
    let connector = settings.way.tls.clone().map(Connector::Rustls);
    let stream = match &settings.way.proxy {
        None => None,
        Some(proxy) => {
            let port = request.uri().port_u16().unwrap_or(match request.uri().scheme_str() {
                Some("wss") => 443,
                _ => 80,
            });
            let host = request.uri().host().unwrap_or_default();
            let tunnel = proxy.tunnel(host, port).await;
            Some(tunnel.map_err(|error| unreachable(settings, error.to_string()))?)
        }
    };
    let config = Some(WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES));
    // The library's futures are large, and few of them are alive.
    let opened = match stream {
        None => {
            let opening = connect_async_tls_with_config(request, config, NO_DELAY, connector);
            Box::pin(opening).await
        }
        Some(stream) => {
            Box::pin(client_async_tls_with_config(request, stream, config, connector)).await
        }
    };
    match opened {
        Ok((socket, _)) => Ok(Socket::of_client(socket)),
        Err(Error::Http(response)) => {
            let status = response.status().as_u16();
            Err(ConnectError::Status { endpoint: settings.endpoint.clone(), status })
        }
        Err(error) => Err(unreachable(settings, error.to_string())),
    }
}

async fn greet(
    settings: &TransportSettings,
    mut socket: Socket,
    register: &Envelope,
) -> Result<Connection, ConnectError> {
    let lost = |reason: String| unreachable(settings, reason);
    socket.send(wire(register)).await.map_err(lost)?;
    loop {
        match socket.receive().await {
            Some(Ok(Wire::Text(text))) => {
                if let Some(ack) = registered(text)? {
                    return Ok(Connection { carrier: Carrier::WebSocket(Box::new(socket)), ack });
                }
            }
            Some(Ok(Wire::Ping(_) | Wire::Pong(_) | Wire::Binary)) => {}
            Some(Ok(Wire::Close(_, reason))) => {
                return Err(lost(format!("it closed the connection: {reason}")));
            }
            Some(Err(error)) => return Err(lost(error)),
            None => return Err(lost("it closed the connection".into())),
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
