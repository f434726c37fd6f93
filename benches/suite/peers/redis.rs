//! Redis Streams with one consumer group: `XADD`, `XREADGROUP`, `XACK`. The append-only file is
//! synced before each answer.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use super::daemon::{self, Daemon};
use super::{CONTENT, Client};
use crate::support::Outcome;

/// Starts it as durable as it gets.
pub fn start() -> Outcome<Result<Daemon, String>> {
    daemon::start("redis-server", |port, folder| {
        let port = port.to_string();
        let folder = folder.to_string_lossy().into_owned();
        let words = ["--bind", "127.0.0.1", "--port", &port, "--dir", &folder, "--save", ""];
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        words.iter().chain(&durable).map(|word| (*word).to_owned()).collect()
    })
}

/// A connection.
pub struct Redis {
    stream: BufStream<TcpStream>,
    name: String,
}

/// An answer: what follows its type byte, its content, or its parts.
enum Reply {
    Line(String),
    Bulk(Option<Vec<u8>>),
    Parts(Vec<Reply>),
}

impl Redis {
    async fn command(&mut self, words: &[&[u8]]) -> Outcome<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn reply(&mut self) -> Outcome<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        let text = line.get(1..).unwrap_or_default().trim_end();
        match line.as_bytes().first() {
            Some(b'+' | b':') => Ok(Reply::Line(text.to_owned())),
            Some(b'$') if text.starts_with('-') => Ok(Reply::Bulk(None)),
            Some(b'$') => {
                let mut bytes = vec![0; text.parse::<usize>()? + 2];
                self.stream.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Bulk(Some(bytes)))
            }
            Some(b'*') => {
                let mut parts = Vec::new();
                for _ in 0..text.parse::<i64>()?.max(0) {
                    parts.push(Box::pin(self.reply()).await?);
                }
                Ok(Reply::Parts(parts))
            }
            _ => Err(format!("redis answered {line}").into()),
        }
    }

    async fn read(&mut self, batch: usize) -> Outcome<Vec<Vec<u8>>> {
        let (name, count) = (self.name.clone().into_bytes(), batch.to_string());
        let words: [&[u8]; 9] = [
            b"XREADGROUP",
            b"GROUP",
            b"g",
            &name,
            b"COUNT",
            count.as_bytes(),
            b"STREAMS",
            b"s",
            b">",
        ];
        self.command(&words).await?;
        self.stream.flush().await?;
        let mut ids = Vec::new();
        // Parts: a list of streams, each with its name and messages, each with its id and fields.
        let Reply::Parts(streams) = self.reply().await? else { return Ok(ids) };
        for stream in streams {
            let Reply::Parts(stream) = stream else { continue };
            let Some(Reply::Parts(messages)) = stream.into_iter().nth(1) else { continue };
            for message in messages {
                let Reply::Parts(message) = message else { continue };
                if let Some(Reply::Bulk(Some(id))) = message.into_iter().next() {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }
}

impl Client for Redis {
    async fn connect(address: &str, number: u64) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut redis = Self { stream: BufStream::new(stream), name: format!("c{number}") };
        if number == 0 {
            // What an earlier measurement left is not to be read by this one.
            for words in [
                &[&b"DEL"[..], b"s"][..],
                &[&b"XGROUP"[..], b"CREATE", b"s", b"g", b"0", b"MKSTREAM"][..],
            ] {
                redis.command(words).await?;
                redis.stream.flush().await?;
                redis.reply().await?;
            }
        }
        Ok(redis)
    }

    async fn enqueue(&mut self, batch: usize) -> Outcome<()> {
        for _ in 0..batch {
            self.command(&[b"XADD", b"s", b"*", b"d", &CONTENT]).await?;
        }
        self.stream.flush().await?;
        for _ in 0..batch {
            if !matches!(self.reply().await?, Reply::Bulk(Some(_))) {
                return Err("redis did not take a message".into());
            }
        }
        Ok(())
    }

    async fn live(&mut self, batch: usize) -> Outcome<()> {
        self.enqueue(batch).await?;
        let ids = self.read(batch).await?;
        if ids.is_empty() {
            return Err("redis had no message for a reader".into());
        }
        for id in &ids {
            self.command(&[b"XACK", b"s", b"g", id]).await?;
        }
        self.stream.flush().await?;
        for _ in &ids {
            if !matches!(self.reply().await?, Reply::Line(count) if count == "1") {
                return Err("redis did not take an acknowledgement".into());
            }
        }
        Ok(())
    }
}
