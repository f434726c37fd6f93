//! A server that registers whoever comes, and notes when the first message arrives. It acknowledges
//! nothing, so that a backlog stays.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::Outcome;

/// How long the first message may take: far above what is measured.
const PATIENCE: Duration = Duration::from_mins(2);

const WELCOME: &str = r#"{"message_type":"ack","agent_id":"openclaw-server","payload":
    {"session_id":"s","heartbeat_interval":30,"window":256,"dedup_window_seconds":691200}}"#;

/// It listens until it is dropped.
pub struct Stub {
    /// Its base URL.
    pub address: String,
    arrived: Arc<Notify>,
    /// Ends when it is dropped.
    _task: JoinSet<()>,
}

impl Stub {
    /// Starts to listen.
    pub async fn start() -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let arrived = Arc::new(Notify::new());
        let notify = Arc::clone(&arrived);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks off is not the first message.
                let _ = serve(stream, &notify).await;
            }
        });
        Ok(Self { address, arrived, _task: task })
    }

    /// Waits for the first message of a connection that was not waited for yet.
    pub async fn first(&self) -> Outcome<()> {
        Ok(tokio::time::timeout(PATIENCE, self.arrived.notified()).await?)
    }
}

async fn serve(stream: TcpStream, arrived: &Notify) -> Outcome<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let (mut texts, mut told) = (0, false);
    while let Some(frame) = socket.next().await {
        let Message::Text(text) = frame? else { continue };
        texts += 1;
        if texts == 1 {
            socket.send(Message::Text(WELCOME.into())).await?;
        } else if !told && text.as_str().contains(r#""message_type":"note""#) {
            arrived.notify_one();
            told = true;
        }
    }
    Ok(())
}
