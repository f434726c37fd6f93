//! A pump over a real store on simulated time: what leaves when, and what is recorded of it.

mod ends;

use std::path::Path;
use std::time::Duration;

use storage::database::Database;
use storage::event::Event;
use storage::messages::Live;
use storage::record::{Direction, MessageKey, Reason, Status};
use storage::transaction::Change;
use tempfile::TempDir;

use super::circuit::Sign;
use super::{Gate, Policy, Pump, pause, stage, sweep};
use crate::clock::Clock;
use crate::protocol::{Envelope, ErrorCode, Fields, MessageType, Refusal};
use crate::transport::feed::{Failure, Feed};

const START: u64 = 1_771_165_800_000;

struct Place {
    dir: TempDir,
    clock: Clock,
    database: Database,
}

fn open(dir: &Path, clock: &Clock) -> Database {
    let wall = clock.clone();
    Database::open(dir, Box::new(move || wall.now()), Box::new(|_| {})).expect("a store").0
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let clock = Clock::simulated(START, 7);
        let database = open(dir.path(), &clock);
        Self { dir, clock, database }
    }

    /// As after a crash.
    fn reopened(self) -> Self {
        let Self { dir, clock, database } = self;
        drop(database);
        let database = open(dir.path(), &clock);
        Self { dir, clock, database }
    }

    fn pump(&self) -> Pump {
        let policy = Policy::default();
        Pump::new(self.database.store().clone(), self.clock.clone(), policy, "d")
    }

    async fn send(&self, ids: &[String], expires_at: Option<u64>) {
        self.send_to("p", ids, expires_at).await;
    }

    async fn send_to(&self, peer: &'static str, ids: &[String], expires_at: Option<u64>) {
        self.stage(("d", peer), ids, Fields { expires_at, ..Fields::default() }).await;
    }

    async fn send_in(
        &self,
        ordering_key: Option<&'static str>,
        peer: &'static str,
        ids: &[String],
        expires_at: Option<u64>,
    ) {
        let more = Fields { expires_at, ordering_key, ..Fields::default() };
        self.stage(("d", peer), ids, more).await;
    }

    async fn send_by(&self, destination: &'static str, ids: &[String]) {
        self.stage((destination, "p"), ids, Fields::default()).await;
    }

    /// Messages of one lane.
    async fn lane(&self, ids: &[&str]) {
        let ids: Vec<String> = ids.iter().map(|&id| id.into()).collect();
        self.stage(("d", "p"), &ids, Fields { ordering_key: Some("k"), ..Fields::default() }).await;
    }

    async fn stage(
        &self,
        (destination, peer): (&'static str, &'static str),
        ids: &[String],
        more: Fields<'static>,
    ) {
        let clock = self.clock.clone();
        let ids = ids.to_vec();
        let commit = self.database.store().commit(move |tx| -> Result<(), Refusal> {
            for id in &ids {
                let fields = Fields {
                    message_id: Some(id),
                    agent_id: Some("a"),
                    namespace: Some("default"),
                    timestamp: Some(clock.now()),
                    ..more.clone()
                };
                let payload = serde_json::json!({"k": 1});
                let envelope = Envelope::compose(MessageType::StateSync, fields, &payload)?;
                stage(tx, &envelope, destination, peer);
            }
            Ok(())
        });
        commit.await.expect("durable").expect("staged");
    }

    /// Pauses a peer, or all, or lets it go on.
    async fn hold(&self, peer: Option<&'static str>, holds: bool) {
        let commit = self.database.store().commit(move |tx| -> Result<(), Refusal> {
            let done = if holds {
                pause::pause(tx, "ada", "default", ("d", peer))
            } else {
                pause::resume(tx, "ada", "default", ("d", peer)) == 1
            };
            assert!(done, "it was not so before");
            Ok(())
        });
        commit.await.expect("durable").expect("decided");
    }

    fn status(&self, id: &str) -> Status {
        let direction = Direction::Outbound;
        let key = MessageKey { direction, namespace: "default", peer: "p", message_id: id };
        self.database.store().messages(|all| all.find(&key).expect("known").status)
    }

    /// Attempts, and whether it may have arrived.
    fn tries(&self, id: &str) -> (u32, bool) {
        let live = self.live(id);
        (live.attempts, live.maybe_delivered)
    }

    fn reason(&self, id: &str) -> Reason {
        self.live(id).reason
    }

    fn live(&self, id: &str) -> Live {
        let lives = self.database.store().select(|_| true);
        lives.into_iter().find(|live| live.head.message_id == id).expect("unfinished")
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("m-{number:02}")).collect()
}

/// What leaves now; nothing when nothing does within a while.
async fn left(pump: &Pump, limit: usize) -> Vec<String> {
    let batch = tokio::time::timeout(Duration::from_mins(1), pump.next(limit)).await;
    batch.unwrap_or_default().into_iter().map(|one| one.message_id).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_failures_in_a_row_leave_one_probe_and_its_success_lets_the_rest_go() {
    let place = Place::new();
    let ids = ids(20);
    place.send(&ids, None).await;
    let gate = Gate::new(place.clock.clone(), Policy::default());
    let pump = place.pump().with_gate(gate.clone());
    let busy = Refusal::new(ErrorCode::Unavailable, "the disk is slow");
    for batch in [8, 2] {
        let out = left(&pump, batch).await;
        assert_eq!(out.len(), batch);
        for id in &out {
            pump.refused(id, busy.clone()).await.expect("recorded");
        }
    }
    assert_eq!(gate.state().circuit, "open");
    assert_eq!(gate.state().reason.as_deref(), Some("unavailable: the disk is slow"));
    assert_eq!(left(&pump, 10).await, Vec::<String>::new(), "nothing leaves while it is open");
    assert_eq!(place.tries(&ids[15]), (0, false), "waiting is no attempt");

    place.clock.advance(Duration::from_secs(1));
    let probe = left(&pump, 10).await;
    assert_eq!(probe.len(), 1, "one message decides");
    assert_eq!(left(&pump, 10).await, Vec::<String>::new());
    pump.refused(&probe[0], busy).await.expect("recorded");
    assert_eq!(gate.state().circuit, "open");

    place.clock.advance(Duration::from_secs(2));
    let probe = left(&pump, 10).await;
    pump.delivered(&probe).await.expect("recorded");
    assert_eq!((gate.state().circuit, gate.state().reason), ("closed", None));
    let (mut rest, mut out) = (0, left(&pump, 50).await);
    while !out.is_empty() {
        rest += out.len();
        pump.delivered(&out).await.expect("recorded");
        out = left(&pump, 50).await;
    }
    assert_eq!(rest, 19, "the due times of the refused ones are pulled in");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_returns_is_given_more_as_it_answers_and_not_all_at_once() {
    let place = Place::new();
    let ids: Vec<String> = (0..1_000).map(|number| format!("m-{number:04}")).collect();
    place.send(&ids, None).await;
    let pump = place.pump();
    let mut sizes = Vec::new();
    let mut out = left(&pump, 256).await;
    while sizes.len() < 5 {
        let early = left(&pump, 256 - out.len()).await;
        assert_eq!(early, Vec::<String>::new(), "no more before an answer");
        sizes.push(out.len());
        pump.delivered(&out).await.expect("recorded");
        out = left(&pump, 256).await;
    }
    assert_eq!(sizes, [8, 16, 32, 64, 128]);
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_stays_and_lets_others_pass_and_goes_after_the_pause() {
    let place = Place::new();
    place.send_to("bob", &ids(40), None).await;
    place.send_to("eve", &["e-1".to_owned()], None).await;
    place.hold(Some("bob"), true).await;
    let pump = place.pump();
    assert_eq!(left(&pump, 5).await, ["e-1"], "the forty before it are not for eve");
    pump.delivered(&["e-1".to_owned()]).await.expect("recorded");
    place.hold(None, true).await;
    place.send_to("eve", &["e-2".to_owned()], None).await;
    assert_eq!(left(&pump, 5).await, Vec::<String>::new(), "all are paused");
    drop(pump);
    let place = place.reopened();
    let pump = place.pump();
    assert_eq!(left(&pump, 5).await, Vec::<String>::new(), "also after a restart");
    assert_eq!(place.tries("m-00"), (0, false), "to be held is no attempt");
    place.hold(Some("bob"), false).await;
    assert_eq!(left(&pump, 5).await, Vec::<String>::new(), "the other pause goes on");
    place.hold(None, false).await;
    let out = left(&pump, 50).await;
    assert_eq!((out.len(), out[0].as_str()), (8, "m-00"), "in their order");
}

#[tokio::test(start_paused = true)]
async fn an_ordering_key_keeps_the_order_to_one_recipient_and_holds_up_no_other() {
    let place = Place::new();
    place.send_in(Some("k"), "bob", &ids(2), None).await;
    place.send_in(Some("k"), "eve", &["e-1".to_owned()], None).await;
    let pump = place.pump();
    assert_eq!(left(&pump, 5).await, ["m-00", "e-1"]);
    let unknown = Refusal::new(ErrorCode::UnknownAgent, "bob never came");
    pump.refused("m-00", unknown).await.expect("recorded");
    assert_eq!(left(&pump, 5).await, Vec::<String>::new(), "the next for bob waits behind");
    place.clock.advance(Policy::default().max_interval);
    assert_eq!(left(&pump, 5).await, ["m-00"]);
    pump.delivered(&["m-00".to_owned()]).await.expect("recorded");
    assert_eq!(left(&pump, 5).await, ["m-01"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_expires_all_the_same() {
    let place = Place::new();
    place.hold(None, true).await;
    place.send(&ids(1), Some(START + 1_000)).await;
    place.clock.advance(Duration::from_secs(2));
    let pump = place.pump();
    assert_eq!(left(&pump, 1).await, Vec::<String>::new());
    sweep::pass(place.database.store(), &Policy::default(), place.clock.now()).await;
    assert_eq!(place.status("m-00"), Status::Expired);
}

#[tokio::test(start_paused = true)]
async fn what_lets_nothing_in_is_not_a_fault_of_the_messages() {
    let place = Place::new();
    place.send(&ids(3), None).await;
    let gate = Gate::new(place.clock.clone(), Policy::default());
    let pump = place.pump().with_gate(gate.clone());
    let out = left(&pump, 3).await;
    pump.failed(&out[..1], Failure::Barred("HTTP 403".into())).await.expect("recorded");
    assert_eq!((place.status("m-00"), gate.state().circuit), (Status::Pending, "open"));
    pump.refused("m-01", Refusal::new(ErrorCode::Unauthorized, "show a token")).await.expect("ok");
    assert_eq!(place.status("m-01"), Status::Pending);
    pump.failed(&out[2..], Failure::NotSent).await.expect("recorded");
    assert_eq!(place.tries("m-02"), (0, false), "bytes that never left are no attempt");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_waits_for_its_answer_as_long_as_it_is_told() {
    let place = Place::new();
    place.send(&ids(2), None).await;
    let pump = place.pump().with_timeout(Duration::from_secs(30));
    assert_eq!(left(&pump, 1).await, ["m-00"]);
    let early = tokio::time::timeout(Duration::from_secs(29), pump.overdue()).await;
    assert!(early.is_err(), "it waits");
    pump.overdue().await.expect("recorded");
    assert_eq!((place.status("m-00"), place.tries("m-00")), (Status::Pending, (1, true)));
    assert_eq!(pump.in_flight(), 0);
    assert!(tokio::time::timeout(Duration::from_mins(5), pump.overdue()).await.is_err());
}

#[tokio::test]
async fn what_was_in_flight_at_a_crash_starts_again_only_when_that_is_durable() {
    let mut place = Place::new();
    place.send(&ids(1), None).await;
    for crash in 0..4 {
        let pump = place.pump();
        assert_eq!(left(&pump, 5).await, ["m-00"]);
        if crash > 0 {
            // Published is durable: the start is known before the caller has the bytes.
            assert_eq!(place.tries("m-00"), (crash + 1, true));
        } else {
            // The first start is not waited for; whatever is decided after it comes after it.
            place.send(&[], None).await;
        }
        drop(pump);
        place = place.reopened();
        assert_eq!((place.status("m-00"), place.tries("m-00").0), (Status::Pending, crash + 1));
    }
    let pump = place.pump();
    let out = left(&pump, 5).await;
    assert_eq!(place.tries("m-00").0, 5);
    pump.delivered(&out).await.expect("recorded");
    assert_eq!(place.status("m-00"), Status::Delivered);
}

#[tokio::test]
async fn a_guarded_message_that_never_left_is_given_back_without_an_attempt() {
    let mut place = Place::new();
    place.send(&ids(1), None).await;
    let pump = place.pump();
    left(&pump, 1).await;
    pump.broken().await.expect("recorded");
    assert_eq!(place.tries("m-00"), (1, true));
    drop(pump);
    place = place.reopened();
    let pump = place.pump();
    // A caller that looks once and goes away, before the start is durable.
    let mut next = Box::pin(pump.next(1));
    let looked = futures_util::future::poll_immediate(&mut next).await;
    drop(next);
    if looked.is_none() {
        pump.broken().await.expect("recorded");
        assert_eq!((place.status("m-00"), place.tries("m-00")), (Status::Pending, (1, true)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_puts_no_message_off() {
    let place = Place::new();
    place.send(&ids(1), None).await;
    let pump = place.pump();
    left(&pump, 1).await;
    let later = Refusal::new(ErrorCode::RateLimited, "slow down").retry_after(60);
    pump.refused("m-00", later).await.expect("recorded");
    assert_eq!(left(&pump, 1).await, Vec::<String>::new());
    place.clock.jump(-24 * 60 * 60 * 1_000);
    place.clock.advance(Policy::default().max_interval);
    assert_eq!(left(&pump, 1).await, ["m-00"]);
}

#[tokio::test]
async fn age_is_judged_also_while_nothing_can_leave() {
    let place = Place::new();
    let policy = Policy { max_age: Duration::from_hours(1), ..Policy::default() };
    place.send(&["soon".to_owned()], Some(START + 1_000)).await;
    place.send(&["long".to_owned()], None).await;
    let store = place.database.store();
    assert_eq!(sweep::pass(store, &policy, place.clock.now()).await, 0);
    place.clock.advance(Duration::from_secs(2));
    assert_eq!(sweep::pass(store, &policy, place.clock.now()).await, 1);
    assert_eq!((place.status("soon"), place.status("long")), (Status::Expired, Status::Pending));
    place.clock.advance(Duration::from_hours(2));
    place.send(&["young".to_owned()], None).await;
    assert_eq!(sweep::pass(store, &policy, place.clock.now()).await, 1);
    assert_eq!((place.status("long"), place.reason("long")), (Status::Failed, Reason::MaxAge));
    assert_eq!(place.status("young"), Status::Pending);
}

#[tokio::test]
async fn what_is_out_gets_its_answer_before_its_age_counts() {
    let place = Place::new();
    place.send(&["out".to_owned()], Some(START + 1_000)).await;
    let pump = place.pump();
    let out = left(&pump, 1).await;
    place.send(&["other".to_owned()], None).await;
    place.clock.advance(Duration::from_secs(2));
    sweep::pass(place.database.store(), &Policy::default(), place.clock.now()).await;
    assert_eq!(place.status("out"), Status::Sending);
    pump.delivered(&out).await.expect("recorded");
    assert_eq!(place.status("out"), Status::Delivered);
}

/// An acknowledgement by another way, as over HTTP, tells the pump nothing but what is durable.
#[tokio::test]
async fn an_end_that_others_record_lets_the_next_of_the_lane_leave_at_once() {
    let place = Place::new();
    place.lane(&["first", "second"]).await;
    let pump = place.pump();
    assert_eq!(left(&pump, 8).await, ["first"]);
    let waits = tokio::time::timeout(Duration::from_secs(4), pump.next(8));
    let acknowledged = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let commit = place.database.store().commit(|tx| -> Result<(), ()> {
            let key = MessageKey {
                direction: Direction::Outbound,
                namespace: "default",
                peer: "p",
                message_id: "first",
            };
            let live = tx.find(&key).and_then(|known| tx.live(known.entry)).ok_or(())?;
            let act = super::steps::act(Event::MessageDelivered, &live, None);
            tx.change(act, &live, Change { status: Status::Delivered, ..Change::of(&live) });
            Ok(())
        });
        commit.await.expect("durable").expect("delivered");
    };
    let (next, ()) = tokio::join!(waits, acknowledged);
    let next = next.expect("woken by the commit, and not by the look every few seconds");
    assert_eq!(next[0].message_id, "second");
}

#[tokio::test]
async fn what_is_accepted_for_others_wakes_no_pump() {
    let other = "elsewhere";
    let place = Place::new();
    let pump = place.pump();
    assert_eq!(left_now(&pump).await, 0);
    let mut woken = pump.wakings();
    place.send_by(other, &ids(3)).await;
    assert!(!woken.has_changed().expect("the pump lives"), "nothing of it can leave here");
    place.send(&["own".to_owned()], None).await;
    assert!(woken.has_changed().expect("the pump lives"));
    woken.mark_unchanged();
    assert_eq!(left_now(&pump).await, 1);
}

/// How many leave within a moment.
async fn left_now(pump: &Pump) -> usize {
    let moment = Duration::from_millis(100);
    tokio::time::timeout(moment, pump.next(8)).await.map_or(0, |batch| batch.len())
}

#[test]
fn a_person_who_wants_it_tried_now_closes_the_circuit() {
    let clock = Clock::simulated(START, 7);
    let gate = Gate::new(clock, Policy::default());
    gate.sign(Sign::Unwelcome, "no");
    assert_eq!(gate.state().circuit, "open");
    gate.reset();
    assert_eq!((gate.state().circuit, gate.pause() <= 500), ("closed", true));
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_record_is_lost_fails_visibly_and_the_others_leave() {
    let place = Place::new();
    place.send(&ids(2), None).await;
    let journal = place.dir.path().join("journal");
    // Its head left the memory with the program.
    let place = place.reopened();
    let mut damaged = 0;
    for file in std::fs::read_dir(journal).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(4).position(|part| part == b"m-00") else { continue };
        bytes[at] = b'n';
        std::fs::write(&path, bytes).unwrap();
        damaged += 1;
    }
    assert_eq!(damaged, 1);
    place.send(&["later".to_owned()], None).await;
    assert_eq!(left(&place.pump(), 10).await, ["later"]);
    // What the pump recorded was decided before this.
    place.send(&[], None).await;
    let failed = place.database.store().select(|one| one.status == Status::Failed);
    let why: Vec<&str> = failed.iter().map(|live| &*live.error).collect();
    assert_eq!(why, ["its record in the journal cannot be read"; 2]);
}
