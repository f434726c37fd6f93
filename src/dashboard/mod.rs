//! What an operator looks at: one page, embedded in both programs, and what it needs beside their
//! own APIs: an overview, a past for its charts, and the journal as a live stream. It reads only;
//! what the page changes it changes by the APIs of its program.

pub mod assets;
pub mod browser;
mod events;
mod pulse;
mod series;
pub mod tally;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde_json::{Value, json};
use storage::store::Store;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use pulse::Pulse;
use series::{Sample, Series};

/// Streams at once: a browser has one for each window that is looked at.
const READERS_MAX: usize = 64;

/// Between two samples of the charts.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// A reader of the stream that takes nothing for this long is cut; it comes back with the place
/// that it had read up to.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// What is measured at each sample. Asking for it must be cheap: it is asked for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauges {
    /// A bridge: whether its session is open. A server: whether it writes.
    pub is_up: bool,
    /// How long the last answer of the other side took.
    pub link_ms: Option<u64>,
    /// Messages that wait to be delivered.
    pub waiting: u64,
    /// Messages that were given up and that nobody has decided about.
    pub failed: u64,
    /// The age of the oldest one that waits.
    pub oldest_seconds: u64,
    /// Agents that are there.
    pub agents: u64,
}

/// The program that a dashboard is of.
pub trait Subject: Send + Sync + 'static {
    /// What is measured at each sample.
    fn gauges(&self) -> Gauges;

    /// Everything that the page shows at a glance, and which routes the program has.
    fn overview(&self) -> Value;
}

/// A dashboard that runs.
pub struct Dashboard {
    store: Store,
    subject: Box<dyn Subject>,
    pulse: Arc<Pulse>,
    series: Mutex<Series>,
    /// Rung after each durable frame.
    bell: Arc<Notify>,
    sample: watch::Sender<Option<Sample>>,
    overview: watch::Sender<Arc<str>>,
    stopping: watch::Sender<bool>,
    readers: Arc<Semaphore>,
    /// Who tells the readers.
    tellers: Mutex<JoinSet<()>>,
    patience: Duration,
}

impl Dashboard {
    /// Begins to listen.
    pub fn new(store: Store, subject: Box<dyn Subject>) -> Arc<Self> {
        Self::with_patience(store, subject, READER_PATIENCE)
    }

    /// Measures until `stop` is there, and then ends the streams.
    pub async fn run(&self, clock: Clock, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            () = self.measure(clock) => {}
        }
        self.stopping.send_replace(true);
        let mut tellers = std::mem::take(&mut *self.tellers.lock());
        while tellers.join_next().await.is_some() {}
    }

    fn with_patience(store: Store, subject: Box<dyn Subject>, patience: Duration) -> Arc<Self> {
        let (pulse, bell) = (Arc::new(Pulse::default()), Arc::new(Notify::new()));
        let (felt, rung) = (Arc::downgrade(&pulse), Arc::clone(&bell));
        store.listen(Box::new(move |published| {
            let Some(pulse) = felt.upgrade() else { return false };
            pulse.hear(published);
            rung.notify_waiters();
            true
        }));
        Arc::new(Self {
            store,
            subject,
            pulse,
            series: Mutex::default(),
            bell,
            sample: watch::Sender::new(None),
            overview: watch::Sender::new("".into()),
            stopping: watch::Sender::new(false),
            tellers: Mutex::default(),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            patience,
        })
    }

    async fn measure(&self, clock: Clock) {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut before = clock.monotonic();
        loop {
            ticks.tick().await;
            let now = clock.monotonic();
            let millis = now.saturating_sub(before);
            before = now;
            self.take_sample(clock.now(), millis);
        }
    }

    fn take_sample(&self, now: u64, millis: u64) {
        let sample = Sample::of(now, millis, &self.pulse.take(), self.subject.gauges());
        self.series.lock().add(sample.clone());
        self.sample.send_replace(Some(sample));
        // Nobody looks: nobody counts.
        if self.overview.receiver_count() > 0 {
            let text: Arc<str> = self.subject.overview().to_string().into();
            self.overview.send_if_modified(|known| {
                let is_new = *known != text;
                *known = text;
                is_new
            });
        }
    }
}

type Shared = State<Arc<Dashboard>>;

/// The routes of the page.
pub fn router<S: Clone + Send + Sync + 'static>(dashboard: Arc<Dashboard>) -> Router<S> {
    Router::new()
        .route("/", get(assets::index))
        .route("/dashboard/{name}", get(assets::file))
        .route("/api/overview", get(overview))
        .route("/api/series", get(past))
        .route("/api/events", get(events::stream))
        .with_state(dashboard)
}

async fn overview(State(dashboard): Shared) -> Response {
    let kind = [(CONTENT_TYPE, "application/json")];
    (kind, dashboard.subject.overview().to_string()).into_response()
}

/// `GET /api/series`: the last half hour, or with `range=day` the last day.
async fn past(State(dashboard): Shared, uri: Uri) -> Json<Value> {
    let is_day = uri.query().is_some_and(|query| query.split('&').any(|it| it == "range=day"));
    let points = dashboard.series.lock().points(is_day);
    Json(json!({ "columns": Sample::COLUMNS, "points": points }))
}
