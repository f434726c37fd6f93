//! beanstalkd with its write-ahead log, synced at each put: `put`, `reserve`, `delete`.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;

use super::daemon::{self, Daemon};
use super::{CONTENT, Client};
use crate::support::Outcome;

/// Starts it as durable as it gets.
pub fn start() -> Outcome<Result<Daemon, String>> {
    daemon::start("beanstalkd", |port, folder| {
        let (port, folder) = (port.to_string(), folder.to_string_lossy().into_owned());
        let words = ["-l", "127.0.0.1", "-p", &port, "-b", &folder, "-f", "0"];
        words.map(str::to_owned).to_vec()
    })
}

/// A connection.
pub struct Beanstalk(BufStream<TcpStream>);

impl Beanstalk {
    async fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(line)
    }

    async fn expect(&mut self, word: &str) -> Outcome<String> {
        self.0.flush().await?;
        let line = self.line().await?;
        if line.starts_with(word) { Ok(line) } else { Err(format!("beanstalkd: {line}").into()) }
    }
}

impl Client for Beanstalk {
    async fn connect(address: &str, _: u64) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufStream::new(stream)))
    }

    async fn enqueue(&mut self, batch: usize) -> Outcome<()> {
        for _ in 0..batch {
            let put = format!("put 1024 0 600 {}\r\n", CONTENT.len());
            self.0.write_all(put.as_bytes()).await?;
            self.0.write_all(&CONTENT).await?;
            self.0.write_all(b"\r\n").await?;
            self.expect("INSERTED").await?;
        }
        Ok(())
    }

    async fn live(&mut self, batch: usize) -> Outcome<()> {
        self.enqueue(batch).await?;
        for _ in 0..batch {
            self.0.write_all(b"reserve\r\n").await?;
            let reserved = self.expect("RESERVED").await?;
            let id = reserved.split_whitespace().nth(1).ok_or("beanstalkd gave no id")?.to_owned();
            let mut content = [0; CONTENT.len() + 2];
            self.0.read_exact(&mut content).await?;
            self.0.write_all(format!("delete {id}\r\n").as_bytes()).await?;
            self.expect("DELETED").await?;
        }
        Ok(())
    }
}
