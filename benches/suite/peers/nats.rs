//! NATS `JetStream` with a file store and one durable pull consumer, and its own default of when to
//! sync, every two minutes: what it confirms does not survive a power cut.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use super::daemon::{self, Daemon};
use super::{CONTENT, Client};
use crate::support::Outcome;

/// Starts it as it comes.
pub fn start() -> Outcome<Result<Daemon, String>> {
    daemon::start("nats-server", |port, folder| {
        let (port, folder) = (port.to_string(), folder.to_string_lossy().into_owned());
        ["-a", "127.0.0.1", "-p", &port, "-js", "-sd", &folder].map(str::to_owned).to_vec()
    })
}

/// A connection.
pub struct Nats {
    stream: BufStream<TcpStream>,
    inbox: String,
}

/// A message of the server.
struct Message {
    reply: Option<String>,
    content: Vec<u8>,
}

impl Nats {
    async fn publish(&mut self, subject: &str, content: &[u8]) -> Outcome<()> {
        let head = format!("PUB {subject} {}.r {}\r\n", self.inbox, content.len());
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(content).await?;
        Ok(self.stream.write_all(b"\r\n").await?)
    }

    async fn message(&mut self) -> Outcome<Message> {
        self.stream.flush().await?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("nats-server closed a connection".into());
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["MSG", _, _, rest @ .., length] => {
                    let reply = rest.first().map(|reply| (*reply).to_owned());
                    let mut content = vec![0; length.parse::<usize>()? + 2];
                    self.stream.read_exact(&mut content).await?;
                    return Ok(Message { reply, content });
                }
                ["PING"] => {
                    self.stream.write_all(b"PONG\r\n").await?;
                    self.stream.flush().await?;
                }
                ["PONG" | "INFO" | "+OK", ..] => {}
                _ => return Err(format!("nats-server: {line}").into()),
            }
        }
    }

    /// The answer of the server's own interface.
    async fn call(&mut self, subject: &str, request: &serde_json::Value) -> Outcome<()> {
        self.publish(subject, request.to_string().as_bytes()).await?;
        let answer = self.message().await?.content;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if answer.contains("\"error\"") { Err(answer.into()) } else { Ok(()) }
    }
}

impl Client for Nats {
    async fn connect(address: &str, number: u64) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut nats = Self { stream: BufStream::new(stream), inbox: format!("_INBOX.{number}") };
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {}.* 1\r\n",
            nats.inbox
        );
        nats.stream.write_all(hello.as_bytes()).await?;
        if number == 0 {
            // What an earlier measurement left is not to be read by this one; the first has none.
            let _ = nats.call("$JS.API.STREAM.DELETE.S", &json!({})).await;
            let stream = json!({"name": "S", "subjects": ["s"], "storage": "file"});
            nats.call("$JS.API.STREAM.CREATE.S", &stream).await?;
            let consumer = json!({"durable_name": "C", "ack_policy": "explicit",
                                  "max_ack_pending": 10_000});
            let request = json!({"stream_name": "S", "config": consumer});
            nats.call("$JS.API.CONSUMER.DURABLE.CREATE.S.C", &request).await?;
        }
        Ok(nats)
    }

    async fn enqueue(&mut self, batch: usize) -> Outcome<()> {
        for _ in 0..batch {
            self.publish("s", &CONTENT).await?;
        }
        for _ in 0..batch {
            let answer = self.message().await?.content;
            if !String::from_utf8_lossy(&answer).contains("\"seq\"") {
                return Err("nats-server did not take a message".into());
            }
        }
        Ok(())
    }

    async fn live(&mut self, batch: usize) -> Outcome<()> {
        self.enqueue(batch).await?;
        for _ in 0..batch {
            self.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", b"1").await?;
            let reply = self.message().await?.reply.ok_or("a message has no reply subject")?;
            self.publish(&reply, b"+ACK").await?;
            self.message().await?;
        }
        Ok(())
    }
}
