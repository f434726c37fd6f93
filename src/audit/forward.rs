//! A copy of the audit log to a syslog server, from a position of its own. It is a reader of the
//! journal: nobody waits for it, and what it could not send it sends later.
//!
//! Over TCP (counted octets, RFC 6587) an entry arrives at least once: after each batch the
//! connection is half-closed, and only when the server has read to that end and closes in turn does
//! the position move on. TCP alone would not tell what a server that went away has read. Over UDP
//! (RFC 5426) it is best effort: what was handed to the network counts as sent.
//!
//! The position is not synced: one that a power cut sets back, or takes, has entries sent again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use storage::codec;
use storage::inspect::{AuditEntry, start_of};
use storage::journal::{Frame, Hold, Reader};
use storage::record::{EntryId, Record};
use storage::store::Store;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::{heads, query, syslog};
use crate::config::{Syslog, SyslogProtocol};
use crate::retry::Policy;
use crate::shutdown::Shutdown;

/// The file of the data directory with the end of the last frame that was sent.
pub const POSITION_FILE: &str = "syslog";

/// Entries of a batch, rounded up to a whole frame.
const BATCH_ENTRIES_MAX: usize = 1_000;

/// Bytes of a datagram: longer messages are cut, as RFC 5426 lets them be. Every receiver takes
/// 2,048 by that RFC, usual ones take 8,192.
const DATAGRAM_BYTES_MAX: usize = 8_192;

/// Between two batches while entries come, so that one has many.
const GATHER: Duration = Duration::from_millis(100);

/// How long a server may take for a connection, for a batch, and for its end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the last batch may take when the program ends.
const LAST_PATIENCE: Duration = Duration::from_millis(800);

/// A server that does not answer is tried again after a minute at the most.
const INTERVAL_MAX: Duration = Duration::from_mins(1);

/// What sends.
pub struct Forward {
    journal: Reader,
    changed: Arc<Notify>,
    file: PathBuf,
    to: Target,
    /// What is not sent yet is not dropped, however old it is.
    hold: Hold,
    shutdown: Shutdown,
}

/// Where to.
struct Target {
    host: String,
    port: u16,
    protocol: SyslogProtocol,
}

/// What is sent at once.
struct Batch {
    messages: Vec<String>,
    /// The last frame of it.
    through: u64,
    /// The end of the journal there; `None` when no frame could be read.
    head: Option<String>,
}

impl Forward {
    /// What sends the entries of this store; `None` when no server is configured.
    pub fn new(
        syslog: &Syslog,
        (store, journal): (&Store, &Reader),
        data_dir: &Path,
        shutdown: &Shutdown,
    ) -> Option<Self> {
        let host = syslog.host.clone()?;
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        store.listen(Box::new(move |_| {
            wake.notify_one();
            true
        }));
        let file = data_dir.join(POSITION_FILE);
        let at = begin(&file, journal, syslog.protocol);
        Some(Self {
            journal: journal.clone(),
            changed,
            hold: journal.hold(at.saturating_add(1)),
            file,
            to: Target { host, port: syslog.port, protocol: syslog.protocol },
            shutdown: shutdown.clone(),
        })
    }

    /// Sends until the program ends.
    ///
    /// # Errors
    /// None; the server's are retried.
    pub async fn run(self) -> io::Result<()> {
        let mut at = begin(&self.file, &self.journal, self.to.protocol);
        let policy = Policy { max_interval: INTERVAL_MAX, ..Policy::default() };
        let mut failures = 0;
        loop {
            let done = self.step(&mut at).await;
            self.hold.advance(at.saturating_add(1));
            let pause = match done {
                Ok(true) => GATHER,
                Ok(false) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = self.shutdown.stopping() => {}
                    }
                    GATHER
                }
                Err(error) => {
                    self.complain(failures, &error);
                    failures += 1;
                    policy.bound(failures)
                }
            };
            if pause == GATHER && failures > 0 {
                tracing::warn!(host = %self.to.host, "the syslog server takes entries again");
                failures = 0;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.stopping() => break,
            }
        }
        // What is not sent now is sent by the next start.
        let _ = timeout(LAST_PATIENCE, self.step(&mut at)).await;
        Ok(())
    }

    fn complain(&self, failures: u32, error: &io::Error) {
        let Target { host, port, .. } = &self.to;
        if failures == 0 {
            tracing::warn!(%host, port, %error, "syslog has no audit entries; they are sent later");
        } else {
            tracing::debug!(%host, port, %error, failures, "syslog is tried again later");
        }
    }

    /// Sends a batch; whether there was one.
    async fn step(&self, at: &mut u64) -> io::Result<bool> {
        let (journal, from) = (self.journal.clone(), *at);
        let batch = tokio::task::spawn_blocking(move || read(&journal, from));
        let batch = batch.await.map_err(io::Error::other)?;
        if !batch.messages.is_empty() {
            match self.to.protocol {
                SyslogProtocol::Tcp => by_tcp(&self.to, &batch.messages).await?,
                SyslogProtocol::Udp => by_udp(&self.to, &batch.messages).await?,
            }
        }
        let is_new = batch.through > *at;
        *at = batch.through;
        if let Some(head) = batch.head.filter(|_| is_new) {
            let file = self.file.clone();
            let kept = tokio::task::spawn_blocking(move || keep(&file, &head)).await;
            if let Err(error) = kept.map_err(io::Error::other).and_then(|kept| kept) {
                tracing::warn!(%error, "the place in syslog is not kept; entries are sent again");
            }
        }
        Ok(is_new)
    }
}

/// The last frame that was sent. Without one that this journal has, all is sent again over TCP, and
/// over UDP what this start of the program recorded.
fn begin(file: &Path, journal: &Reader, protocol: SyslogProtocol) -> u64 {
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    let (kept, now) = (kept.trim(), heads::head(journal));
    if heads::is_same_journal(kept, &now) && heads::has(journal, kept) {
        return heads::sequence(kept).unwrap_or_default();
    }
    let epoch = journal.head().position.epoch;
    match protocol {
        SyslogProtocol::Tcp => 0,
        SyslogProtocol::Udp => {
            let segments = journal.segments();
            let first = segments.iter().rev().find(|segment| segment.epoch() == epoch);
            first.map_or(0, |segment| segment.range().0.saturating_sub(1))
        }
    }
}

/// Keeps the place aside first, so that it is there as a whole or as it was.
fn keep(file: &Path, head: &str) -> io::Result<()> {
    let aside = file.with_extension("new");
    std::fs::write(&aside, format!("{head}\n"))?;
    std::fs::rename(&aside, file)
}

/// The frames after one, as messages. What cannot be read is left out: it is named by others.
fn read(journal: &Reader, after: u64) -> Batch {
    let end = journal.head().position.sequence;
    let mut batch = Batch { messages: Vec::new(), through: after, head: None };
    let mut starts: HashMap<u32, Value> = HashMap::new();
    for frame in journal.frames(after + 1).flatten() {
        let epoch = frame.position.epoch;
        let start = starts
            .entry(epoch)
            .or_insert_with(|| serde_json::from_str(&start_of(journal, epoch)).unwrap_or_default());
        batch
            .messages
            .extend(entries(&frame).map(|one| syslog::message(&query::whole(&one, start))));
        batch.through = frame.position.sequence;
        batch.head = Some(heads::of_frame(journal.identity(), &frame));
        if batch.messages.len() >= BATCH_ENTRIES_MAX {
            return batch;
        }
    }
    batch.through = batch.through.max(end);
    batch
}

fn entries(frame: &Frame) -> impl Iterator<Item = AuditEntry> {
    frame.entries.iter().filter_map(|one| {
        Some(AuditEntry {
            entry: EntryId { sequence: frame.position.sequence, index: one.index },
            epoch: frame.position.epoch,
            time: frame.time,
            frame_hash: frame.hash,
            record: codec::decode::<Record>(&one.head).ok()?,
        })
    })
}

/// Sends messages, and waits until the server has read them and closes.
async fn by_tcp(to: &Target, messages: &[String]) -> io::Result<()> {
    let mut bytes = String::new();
    for message in messages {
        // Writing into a string does not fail.
        let _ = write!(bytes, "{} {message}", message.len());
    }
    let connect = TcpStream::connect((to.host.as_str(), to.port));
    let mut stream = within(connect).await?;
    within(stream.write_all(bytes.as_bytes())).await?;
    within(stream.shutdown()).await?;
    let mut rest = [0; 512];
    // Syslog servers say nothing; one that does has read no less for it.
    while within(stream.read(&mut rest)).await? > 0 {}
    Ok(())
}

/// Hands messages to the network.
async fn by_udp(to: &Target, messages: &[String]) -> io::Result<()> {
    let found = within(lookup_host((to.host.as_str(), to.port))).await?.next();
    let address = found.ok_or_else(|| io::Error::other("the host has no address"))?;
    let any: SocketAddr =
        if address.is_ipv6() { ([0_u16; 8], 0).into() } else { ([0_u8; 4], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    for message in messages {
        let end = message.floor_char_boundary(DATAGRAM_BYTES_MAX);
        within(socket.send_to(&message.as_bytes()[..end], address)).await?;
    }
    Ok(())
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "the server does not answer");
    timeout(PATIENCE, work).await.map_err(|_| silent())?
}
