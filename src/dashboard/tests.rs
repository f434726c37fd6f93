//! The stream from outside: a store in memory, the routes on a free port, a reader of plain bytes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use storage::event::Event;
use storage::fold::State;
use storage::journal::{Identity, MemoryLog};
use storage::record::Level;
use storage::store::Store;
use storage::transaction::Act;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::{Dashboard, Gauges, READERS_MAX, Subject, router};
use crate::clock::Clock;

/// Far above what anything here takes.
const TIMEOUT: Duration = Duration::from_secs(30);

struct Nothing;

impl Subject for Nothing {
    fn gauges(&self) -> Gauges {
        Gauges { is_up: true, waiting: 7, ..Gauges::default() }
    }

    fn overview(&self) -> Value {
        serde_json::json!({"program": "nothing"})
    }
}

struct World {
    store: Store,
    dashboard: Arc<Dashboard>,
    listener: std::net::SocketAddr,
    _serves: JoinSet<std::io::Result<()>>,
}

impl World {
    async fn new(patience: Duration) -> Self {
        let log = Box::new(MemoryLog::new(Identity { journal: [0xab; 16], key: [2; 16] }));
        let clock = Clock::system();
        let now = Box::new(move || clock.now());
        let store = Store::start(log, State::new([2; 16]), now, Box::new(|_| {})).unwrap();
        let dashboard = Dashboard::with_patience(store.clone(), Box::new(Nothing), patience);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = socket.local_addr().unwrap();
        let mut serves = JoinSet::new();
        serves.spawn(axum::serve(socket, router(Arc::clone(&dashboard))).into_future());
        Self { store, dashboard, listener, _serves: serves }
    }

    /// Records an event about each number, one a frame.
    async fn note(&self, event: Event, numbers: std::ops::Range<u32>, details: &str) {
        for number in numbers {
            let details = details.to_owned();
            let commit = self.store.commit(move |tx| -> Result<(), std::convert::Infallible> {
                let act = Act::new(event, "tester", "default", &format!("n{number}"));
                tx.note(act.level(Level::Info).details(details));
                Ok(())
            });
            commit.await.unwrap().unwrap();
        }
    }

    async fn read(&self, query: &str, headers: &str) -> Stream {
        self.read_with(TcpSocket::new_v4().unwrap(), query, headers).await
    }

    async fn read_with(&self, socket: TcpSocket, query: &str, headers: &str) -> Stream {
        let mut stream = socket.connect(self.listener).await.unwrap();
        let request = format!(
            "GET /api/events?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             {headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Stream { stream, text: String::new() }
    }
}

struct Stream {
    stream: TcpStream,
    text: String,
}

impl Stream {
    /// Reads until the text has this; `false` when the stream ended before.
    async fn until(&mut self, wanted: &str) -> bool {
        let mut bytes = vec![0; 64 << 10];
        while !self.text.contains(wanted) {
            let read = tokio::time::timeout(TIMEOUT, self.stream.read(&mut bytes)).await;
            match read.expect("in time").unwrap_or(0) {
                0 => return false,
                count => self.text.push_str(&String::from_utf8_lossy(&bytes[..count])),
            }
        }
        true
    }

    /// The numbers of the entries that were told, in order.
    fn told(&self) -> Vec<u32> {
        let found = self.text.split("\"resource\":\"n").skip(1);
        found.filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
    }

    /// The place of the last complete entry.
    fn last_id(&self) -> String {
        let whole = self.text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let entry = whole.rsplit("event: entry\nid: ").next().unwrap_or_default();
        entry.split('\n').next().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn a_reader_that_comes_back_is_told_the_rest_and_nothing_twice() {
    let world = World::new(TIMEOUT).await;
    world.note(Event::TaskCreate, 0..5, "").await;
    let mut first = world.read("after=0.0", "").await;
    assert!(first.until("\"n4\"").await);
    assert!(first.text.contains(&"ab".repeat(16)), "it says which journal it reads");
    assert_eq!(first.told(), [0, 1, 2, 3, 4]);
    world.note(Event::TaskCreate, 5..6, "").await;
    assert!(first.until("\"n5\"").await, "what is recorded now is told now");
    let at = first.last_id();
    drop(first);
    world.note(Event::TaskCreate, 6..1_500, "").await;
    let mut again = world.read("after=0.0", &format!("Last-Event-ID: {at}\r\n")).await;
    assert!(again.until("\"n1499\"").await);
    assert_eq!(again.told(), (6..1_500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_without_a_place_or_with_one_of_another_journal_begins_now() {
    let world = World::new(TIMEOUT).await;
    world.note(Event::TaskCreate, 0..5, "").await;
    for query in ["", "after=900.0"] {
        let mut reader = world.read(query, "").await;
        assert!(reader.until("event: hello").await);
        world.note(Event::TaskCreate, 77..78, "").await;
        assert!(reader.until("\"n77\"").await);
        assert_eq!(reader.told(), [77], "{query}");
    }
}

#[tokio::test]
async fn filters_are_those_of_the_audit_log() {
    let world = World::new(TIMEOUT).await;
    world.note(Event::TaskCreate, 0..3, "").await;
    world.note(Event::MessageFailed, 3..4, "").await;
    world.note(Event::TaskCreate, 4..5, "").await;
    world.note(Event::MessageRetry, 5..6, "").await;
    let mut reader = world.read("after=0.0&event=message.*", "").await;
    assert!(reader.until("\"n5\"").await);
    assert_eq!(reader.told(), [3, 5]);
    let mut bad = world.read("event=message.gone", "").await;
    assert!(bad.until("invalid_field").await);
    assert!(bad.text.starts_with("HTTP/1.1 400"), "{}", bad.text);
}

#[tokio::test]
async fn a_rate_tells_the_newest_and_how_many_were_left_out() {
    let world = World::new(TIMEOUT).await;
    world.note(Event::TaskCreate, 0..100, "").await;
    let mut reader = world.read("after=0.0&rate=20", "").await;
    assert!(reader.until("\"n99\"").await);
    assert_eq!(reader.told(), (90..100).collect::<Vec<_>>());
    assert!(reader.text.contains(r#"data: {"entries":90,"frames":0}"#), "{}", reader.text);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_catches_up() {
    let world = World::new(Duration::from_millis(200)).await;
    // More than the connection and its buffers hold.
    let details = format!("{{\"text\":\"{}\"}}", "x".repeat(4_000));
    world.note(Event::TaskCreate, 0..3_000, &details).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut slow = world.read_with(socket, "after=0.0", "").await;
    assert!(slow.until("event: hello").await);
    let free = tokio::time::timeout(TIMEOUT, async {
        while world.dashboard.readers.available_permits() < READERS_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    free.await.expect("the slow reader is let go");
    assert!(!slow.until("\"n2999\"").await, "its stream ended before the end");
    let (told, at) = (slow.told(), slow.last_id());
    assert_eq!(told, (0..u32::try_from(told.len()).unwrap()).collect::<Vec<_>>());
    let mut again = world.read("", &format!("Last-Event-ID: {at}\r\n")).await;
    assert!(again.until("\"n2999\"").await);
    let next = *again.told().first().unwrap();
    assert!(next as usize <= told.len(), "nothing is missing: {next} after {}", told.len());
}

#[tokio::test]
async fn there_are_only_so_many_readers_and_a_stop_ends_them_all() {
    let world = World::new(TIMEOUT).await;
    let mut readers = Vec::new();
    for _ in 0..READERS_MAX {
        let mut reader = world.read("", "").await;
        assert!(reader.until("event: hello").await);
        readers.push(reader);
    }
    let mut refused = world.read("", "").await;
    assert!(refused.until("unavailable").await);
    assert!(refused.text.starts_with("HTTP/1.1 503"), "{}", refused.text);
    world.dashboard.run(Clock::system(), std::future::ready(())).await;
    for reader in &mut readers {
        assert!(!reader.until("never said").await, "the stream ends");
    }
}

#[tokio::test]
async fn samples_and_overviews_are_told_to_who_looks() {
    let world = World::new(TIMEOUT).await;
    let mut reader = world.read("", "").await;
    assert!(reader.until("event: hello").await);
    while world.dashboard.overview.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    world.dashboard.take_sample(60_000, 2_000);
    assert!(reader.until("event: sample").await && reader.until("event: overview").await);
    assert!(reader.until(r#"data: {"program":"nothing"}"#).await);
    let points = world.dashboard.series.lock().points(false);
    assert_eq!((points.len(), &points[0][0], &points[0][9]), (1, &60_000.into(), &7.into()));
}
