//! One face for the WebSockets of the client and of the server library. It reads no message.

use axum::extract::ws;
use bytes::Bytes;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Bytes read at once. They are zeroed before each read, and each connection keeps as many; a
/// larger message takes several reads.
pub const READ_BUFFER_BYTES: usize = 16 << 10;

/// What crosses a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// One text frame.
    Text(String),
    /// A ping with its number; the library answers it.
    Ping(u64),
    /// The answer to a ping, with the same number.
    Pong(u64),
    /// The end, with its code and reason.
    Close(u16, String),
    /// A binary frame, which the protocol does not know.
    Binary,
}

type Reading = Box<dyn Stream<Item = Result<Wire, String>> + Send + Unpin>;
type Writing = Box<dyn Sink<Wire, Error = String> + Send + Unpin>;

/// A WebSocket of either side.
pub struct Socket {
    pub(crate) reading: Reading,
    pub(crate) writing: Writing,
}

impl Socket {
    /// A socket that the server accepted.
    pub fn of_server(socket: ws::WebSocket) -> Self {
        let (sink, stream) = socket.split();
        let reading = stream.map(|item| item.map(server_wire).map_err(|error| error.to_string()));
        let writing = sink
            .sink_map_err(|error: axum::Error| error.to_string())
            .with(|wire| std::future::ready(Ok::<_, String>(server_message(wire))));
        Self { reading: Box::new(reading), writing: Box::new(writing) }
    }

    /// A socket that this program opened.
    pub fn of_client(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        let (sink, stream) = socket.split();
        let reading =
            stream.map(|item| item.map(client_wire).map_err(|error: Error| error.to_string()));
        let writing = sink
            .sink_map_err(|error: Error| error.to_string())
            .with(|wire| std::future::ready(Ok::<_, String>(client_message(wire))));
        Self { reading: Box::new(reading), writing: Box::new(writing) }
    }

    /// The next thing that arrives; `None` when the socket is gone.
    pub async fn receive(&mut self) -> Option<Result<Wire, String>> {
        self.reading.next().await
    }

    /// Sends, and flushes.
    ///
    /// # Errors
    /// When the socket is gone, with the library's words.
    pub async fn send(&mut self, wire: Wire) -> Result<(), String> {
        self.writing.send(wire).await
    }
}

/// What a ping carries, so that its answer is told from that of another.
fn content(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number of a ping or its answer; 0, which none of ours has, when it is another's.
fn number(content: &[u8]) -> u64 {
    content.try_into().map_or(0, u64::from_be_bytes)
}

fn server_wire(message: ws::Message) -> Wire {
    match message {
        ws::Message::Text(text) => Wire::Text(text.as_str().to_owned()),
        ws::Message::Ping(bytes) => Wire::Ping(number(&bytes)),
        ws::Message::Pong(bytes) => Wire::Pong(number(&bytes)),
        ws::Message::Binary(_) => Wire::Binary,
        ws::Message::Close(frame) => frame.map_or_else(
            || Wire::Close(1_005, String::new()),
            |frame| Wire::Close(frame.code, frame.reason.as_str().to_owned()),
        ),
    }
}

fn server_message(wire: Wire) -> ws::Message {
    match wire {
        Wire::Text(text) => ws::Message::Text(text.into()),
        Wire::Ping(number) => ws::Message::Ping(content(number)),
        Wire::Pong(number) => ws::Message::Pong(content(number)),
        Wire::Binary => ws::Message::Ping(content(0)),
        Wire::Close(code, reason) => {
            ws::Message::Close(Some(ws::CloseFrame { code, reason: reason.into() }))
        }
    }
}

fn client_wire(message: Message) -> Wire {
    match message {
        Message::Text(text) => Wire::Text(text.as_str().to_owned()),
        Message::Ping(bytes) => Wire::Ping(number(&bytes)),
        Message::Frame(_) => Wire::Ping(0),
        Message::Pong(bytes) => Wire::Pong(number(&bytes)),
        Message::Binary(_) => Wire::Binary,
        Message::Close(frame) => frame.map_or_else(
            || Wire::Close(1_005, String::new()),
            |frame| Wire::Close(frame.code.into(), frame.reason.as_str().to_owned()),
        ),
    }
}

fn client_message(wire: Wire) -> Message {
    match wire {
        Wire::Text(text) => Message::Text(text.into()),
        Wire::Ping(number) => Message::Ping(content(number)),
        Wire::Pong(number) => Message::Pong(content(number)),
        Wire::Binary => Message::Ping(content(0)),
        Wire::Close(code, reason) => {
            Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
        }
    }
}
