//! `GET /api/events`: the journal as server-sent events, from a place on or from now. Nothing is
//! kept for a reader but its place: it is told what the journal has after that. One that is slow
//! is told later, and one that takes nothing is cut; both come back with `Last-Event-ID`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use storage::codec;
use storage::inspect::AuditFilter;
use storage::journal::Frame;
use storage::record::{EntryId, Record};
use storage::store::Store;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::{Dashboard, Shared};
use crate::audit::query;
use crate::protocol::{ErrorCode, Refusal};

/// Events that wait for a reader's connection. Below them is what the connection holds itself.
const EVENTS_WAITING_MAX: usize = 64;

/// Frames of one look into the journal, after which others have their turn.
const FRAMES_MAX: u64 = 500;

/// Frames that a look goes back for a reader with a rate: what lies before is left out.
const FRAMES_BACK_MAX: u64 = 2_000;

/// Entries of a look without a rate.
const ENTRIES_MAX: usize = 1_000;

/// Between two looks, so that one tells many entries.
const PAUSE: Duration = Duration::from_millis(25);

/// Between two looks for a reader with a rate.
const RATE_PAUSE: Duration = Duration::from_millis(500);

/// Entries a second that may be asked for.
const RATE_MAX: usize = 10_000;

/// What a reader asked for.
struct Wish {
    filter: AuditFilter,
    after: Option<EntryId>,
    /// Entries of one look; the newest are told.
    each_look: Option<usize>,
}

/// `GET /api/events`, with the filters of the audit log, `after`, and `rate`: entries a second at
/// the most.
pub(super) async fn stream(State(dashboard): Shared, headers: HeaderMap, uri: Uri) -> Response {
    let wish = match wish(&headers, &uri) {
        Ok(wish) => wish,
        Err(refusal) => return refused(&refusal),
    };
    let Ok(permit) = Arc::clone(&dashboard.readers).try_acquire_owned() else {
        let detail = "close another window; as many as there may be are looking";
        return refused(&Refusal::new(ErrorCode::Unavailable, detail));
    };
    let (events, told) = mpsc::channel(EVENTS_WAITING_MAX);
    let mut tellers = dashboard.tellers.lock();
    // Those that ended leave room.
    while tellers.try_join_next().is_some() {}
    tellers.spawn(tell(Arc::clone(&dashboard), wish, events, permit));
    drop(tellers);
    let told = stream::unfold(told, async |mut told| {
        told.recv().await.map(|event| (Ok::<_, Infallible>(event), told))
    });
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let problem = refusal.problem();
    let status = StatusCode::from_u16(problem.status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "application/problem+json")], Json(problem)).into_response()
}

fn wish(headers: &HeaderMap, uri: &Uri) -> Result<Wish, Refusal> {
    let asked = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
    let asked = asked.map_err(|_| Refusal::new(ErrorCode::Malformed, "send a readable query"))?.0;
    let rate = asked.iter().find(|(name, _)| name == "rate").map(|(_, rate)| {
        let rate = rate.parse().ok().filter(|rate| (1..=RATE_MAX).contains(rate));
        rate.ok_or_else(|| Refusal::invalid("rate", &format!("a number from 1 to {RATE_MAX}")))
    });
    let mut filter = query::filter(asked)?;
    let asked = filter.before.take();
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let last = last.map(|text| query::position("Last-Event-ID", text)).transpose()?;
    let each_look = rate.transpose()?.map(|rate: usize| rate.div_ceil(2));
    // A browser that comes back says where it is; its address says where it began.
    Ok(Wish { filter, after: last.or(asked), each_look })
}

/// Tells a reader until it goes, is cut, or the program stops.
async fn tell(
    dashboard: Arc<Dashboard>,
    wish: Wish,
    events: mpsc::Sender<Event>,
    permit: OwnedSemaphorePermit,
) {
    let mut teller = Teller::new(&dashboard, wish, events);
    let mut stopping = dashboard.stopping.subscribe();
    tokio::select! {
        // It ends when nobody is to be told anything any more.
        _ = teller.run() => {}
        // An error says that the owner is gone.
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    drop(permit);
}

/// The reader is gone, or takes nothing.
struct Gone;

struct Teller<'a> {
    dashboard: &'a Dashboard,
    wish: Wish,
    events: mpsc::Sender<Event>,
    /// The last entry that was looked at.
    at: EntryId,
}

/// What one look found.
#[derive(Default)]
struct Found {
    entries: VecDeque<(EntryId, Value)>,
    /// Entries that are wanted and left out.
    left_out: u64,
    /// Frames that were not looked at.
    jumped: u64,
    at: EntryId,
    /// The journal has more.
    more: bool,
}

impl<'a> Teller<'a> {
    fn new(dashboard: &'a Dashboard, wish: Wish, events: mpsc::Sender<Event>) -> Self {
        let head = dashboard.store.reader().head().position.sequence;
        let end = EntryId { sequence: head, index: u32::MAX };
        // A place behind the end is one of another journal.
        let at = wish.after.filter(|after| after.sequence <= head).unwrap_or(end);
        Self { dashboard, wish, events, at }
    }

    async fn run(&mut self) -> Result<(), Gone> {
        self.greet().await?;
        let dashboard = self.dashboard;
        let (mut samples, mut overviews) =
            (dashboard.sample.subscribe(), dashboard.overview.subscribe());
        overviews.mark_unchanged();
        let pause = if self.wish.each_look.is_some() { RATE_PAUSE } else { PAUSE };
        loop {
            let rung = dashboard.bell.notified();
            tokio::pin!(rung);
            // From here on no ring is missed.
            rung.as_mut().enable();
            if self.look().await? {
                continue;
            }
            tokio::select! {
                () = rung => sleep(pause).await,
                Ok(()) = samples.changed() => {
                    let sample = samples.borrow_and_update().as_ref().map(super::Sample::point);
                    // With the place, so that a filter that shows nothing is not asked twice.
                    let event = Event::default().event("sample").id(self.at.to_string());
                    self.send(event, &sample.unwrap_or_default()).await?;
                }
                Ok(()) = overviews.changed() => {
                    let overview = Arc::clone(&overviews.borrow_and_update());
                    self.hand_over(Event::default().event("overview").data(&*overview)).await?;
                }
                () = self.events.closed() => return Err(Gone),
            }
        }
    }

    /// Says which journal this is, so that a place in another one is not taken for one in this.
    async fn greet(&self) -> Result<(), Gone> {
        let identity = self.dashboard.store.reader().identity();
        let journal = format!("{:032x}", u128::from_be_bytes(identity.journal));
        let event = Event::default().event("hello").id(self.at.to_string());
        let version = env!("CARGO_PKG_VERSION");
        let event = event.retry(Duration::from_secs(2));
        self.send(event, &json!({"journal": journal, "version": version})).await
    }

    /// Tells what is new; `true`: there is more.
    async fn look(&mut self) -> Result<bool, Gone> {
        let store = self.dashboard.store.clone();
        let (filter, at, rate) = (self.wish.filter.clone(), self.at, self.wish.each_look);
        // The journal is on disk.
        let found = tokio::task::spawn_blocking(move || find(&store, &filter, at, rate));
        let found = found.await.map_err(|_| Gone)?;
        self.at = found.at;
        if found.left_out + found.jumped > 0 {
            let left_out = json!({"entries": found.left_out, "frames": found.jumped});
            self.send(Event::default().event("skipped"), &left_out).await?;
        }
        for (entry, shown) in found.entries {
            let event = Event::default().event("entry").id(entry.to_string());
            self.send(event, &shown).await?;
        }
        Ok(found.more)
    }

    async fn send(&self, event: Event, data: &Value) -> Result<(), Gone> {
        // A value of ours is always JSON.
        let event = event.json_data(data).map_err(|_| Gone)?;
        self.hand_over(event).await
    }

    async fn hand_over(&self, event: Event) -> Result<(), Gone> {
        let sent = timeout(self.dashboard.patience, self.events.send(event)).await;
        sent.map_err(|_| Gone)?.map_err(|_| Gone)
    }
}

/// What the journal has after a place.
fn find(store: &Store, filter: &AuditFilter, at: EntryId, each_look: Option<usize>) -> Found {
    let reader = store.reader();
    let head = reader.head().position.sequence;
    let mut found = Found { at, ..Found::default() };
    let mut from = at.sequence;
    if each_look.is_some() && head.saturating_sub(from) > FRAMES_BACK_MAX {
        found.jumped = head - FRAMES_BACK_MAX - from;
        from = head - FRAMES_BACK_MAX;
    }
    if from > head || (from == head && at.index == u32::MAX) {
        return found;
    }
    let frames_max = if each_look.is_some() { FRAMES_BACK_MAX } else { FRAMES_MAX };
    // One more than is taken: the first may be known already. What is damaged is left out.
    for frame in reader.frames(from).flatten() {
        let sequence = frame.position.sequence;
        if sequence > from + frames_max || found.entries.len() >= ENTRIES_MAX {
            found.more = true;
            break;
        }
        for (entry, shown) in shown(&frame, filter, at) {
            found.entries.push_back((entry, shown));
        }
        found.at = EntryId { sequence, index: u32::MAX };
        while each_look.is_some_and(|most| found.entries.len() > most) {
            found.entries.pop_front();
            found.left_out += 1;
        }
    }
    found
}

/// The entries of a frame after a place that a filter asks for.
fn shown(frame: &Frame, filter: &AuditFilter, after: EntryId) -> Vec<(EntryId, Value)> {
    let place = |index| EntryId { sequence: frame.position.sequence, index };
    let new = frame.entries.iter().filter(|one| place(one.index) > after);
    let records = new.filter_map(|one| {
        codec::decode::<Record>(&one.head).ok().map(|record| (place(one.index), record))
    });
    records
        .filter(|(_, record)| query::shows(filter, frame.time, record))
        .map(|(at, record)| (at, query::entry(at, frame.time, &record)))
        .collect()
}
