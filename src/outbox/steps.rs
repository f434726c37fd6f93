//! What a pump records of a message: that it has left, that it has failed, and how an attempt
//! ended. It decides nothing.

use storage::event::Event;
use storage::messages::Live;
use storage::record::{Level, Reason, Status};
use storage::transaction::{Act, Change, Transaction};

use super::pump::GivenUp;
use super::verdict::act_of;
use crate::trace::traced;

pub(super) fn tell(
    given_up: Option<&GivenUp>,
    transaction: &mut Transaction<'_>,
    live: &Live,
    why: &str,
) {
    if let Some(given_up) = given_up {
        given_up(transaction, live, why);
    }
}

pub(super) fn act(event: Event, live: &Live, trace: Option<&str>) -> Act {
    let head = &live.head;
    traced(Act::new(event, &head.sender, &head.namespace, &head.message_id), trace)
}

pub(super) fn start(transaction: &mut Transaction<'_>, live: &Live, trace: Option<&str>) {
    let attempts = live.attempts + 1;
    let details = format!(r#"{{"attempt":{attempts}}}"#);
    let change =
        Change { status: Status::Sending, attempts, next_attempt_at: 0, ..Change::of(live) };
    let act = act(Event::MessageSent, live, None).details(details);
    transaction.change(traced(act, trace), live, change);
}

pub(super) fn fail(
    transaction: &mut Transaction<'_>,
    live: &Live,
    error: &str,
    trace: Option<&str>,
) {
    let change = Change {
        status: Status::Failed,
        reason: Reason::Permanent,
        next_attempt_at: 0,
        error: error.into(),
        ..Change::of(live)
    };
    transaction.change(act(Event::MessageFailed, live, trace).level(Level::Error), live, change);
}

pub(super) fn settle_one(
    transaction: &mut Transaction<'_>,
    live: &Live,
    change: Change,
    trace: Option<&str>,
) {
    transaction.change(traced(act_of(live, &change), trace), live, change);
}
