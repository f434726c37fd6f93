//! One sentence on a message: why it is not delivered yet, or what became of it. Pure: whoever asks
//! brings what is known, a running bridge more than a store on disk.

use serde::{Deserialize, Serialize};
use storage::record::{Direction, Reason, Status};
use storage::view::Row;

use crate::clock::{Millis, rfc3339};
use crate::outbox::pause::Pauses;
use crate::protocol::SERVER_AGENT_ID;

/// The state of the link, as far as it keeps messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A session is open.
    Up,
    /// There is none.
    Down {
        /// Since when.
        since: Option<Millis>,
        /// Why.
        why: String,
    },
    /// A person has disconnected the bridge.
    Parked,
    /// No server is configured.
    Nowhere,
    /// The bridge is stopped: this is told from its store.
    Stopped {
        /// The time of the last thing that it recorded.
        since: Millis,
    },
    /// The message is in a mailbox of a server.
    Mailbox,
}

/// What is known of a message and its way.
pub struct Facts<'a> {
    /// The message.
    pub row: &'a Row,
    /// Its ordering key and the id of the message at the head of its lane, if that is another.
    pub behind: Option<(String, String)>,
    /// No delivery starts after this.
    pub expires_at: Option<Millis>,
    /// What is paused.
    pub pauses: Pauses,
    /// Its link.
    pub link: Link,
    /// Until when the circuit is open, and why.
    pub circuit: Option<(Millis, String)>,
    /// Who made the last change of it.
    pub actor: Option<String>,
    /// Now.
    pub now: Millis,
}

/// The answer of `GET /api/openclaw/messages/{id}/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The message.
    pub message_id: String,
    /// Where it stands.
    pub status: String,
    /// What keeps it, in the order in which it has to go: `paused`, `stopped`, `mailbox`,
    /// `no_server`, `disconnected`, `link_down`, `circuit_open`, `behind`, `next_attempt`; or
    /// nothing.
    pub because: Vec<String>,
    /// One sentence for people.
    pub explanation: String,
}

/// Explains a message.
pub fn explain(facts: &Facts<'_>) -> Explanation {
    let row = facts.row;
    let (because, text) = match (row.direction, row.status) {
        (Direction::Outbound, Status::Pending) => waiting(facts),
        _ => (Vec::new(), settled(facts)),
    };
    Explanation {
        message_id: row.message_id.clone(),
        status: row.status.as_str().to_owned(),
        because: because.into_iter().map(str::to_owned).collect(),
        explanation: format!("{} {text}", row.message_id),
    }
}

/// What keeps a message that waits.
fn waiting(facts: &Facts<'_>) -> (Vec<&'static str>, String) {
    let keeps = [paused(facts), link(facts), circuit(facts), behind(facts), attempt(facts)];
    let (because, mut clauses): (Vec<&str>, Vec<String>) = keeps.into_iter().flatten().unzip();
    if clauses.is_empty() {
        clauses.push("it is due and takes its turn".to_owned());
    }
    if let Some(expires_at) = facts.expires_at {
        clauses.push(format!("it expires at {}", rfc3339(expires_at)));
    }
    (because, format!("waits: {}", clauses.join(", and ")))
}

/// Whether a destination is an agent's mailbox in a server, whose name has a namespace.
pub fn is_mailbox(destination: &str) -> bool {
    destination.contains('/')
}

type Keeps = Option<(&'static str, String)>;

fn paused(facts: &Facts<'_>) -> Keeps {
    let peer = &facts.row.peer;
    let pause = facts.pauses.holds(peer)?;
    let (what, which) = match facts.pauses.all {
        Some(_) if is_mailbox(&facts.row.destination) => {
            let (by, since) = (&pause.by, rfc3339(pause.since));
            let how = format!("`POST /agents/{peer}/resume` lets it go on");
            return Some((
                "paused",
                format!("{by} holds the mailbox of {peer} since {since} ({how})"),
            ));
        }
        Some(_) => ("all deliveries".to_owned(), String::new()),
        None => (format!("deliveries to {peer}"), format!(" --to {peer}")),
    };
    let (by, since) = (&pause.by, rfc3339(pause.since));
    let how = format!("`loki openclaw resume{which}` lets them go");
    Some(("paused", format!("it is held, as {by} paused {what} at {since} ({how})")))
}

fn link(facts: &Facts<'_>) -> Keeps {
    Some(match &facts.link {
        Link::Up => return None,
        Link::Stopped { since } => {
            ("stopped", format!("the bridge is stopped since {}", rfc3339(*since)))
        }
        Link::Mailbox => {
            let peer = &facts.row.peer;
            ("mailbox", format!("it lies in the mailbox of {peer} until that agent takes it"))
        }
        Link::Nowhere => {
            ("no_server", "no server is configured (set LOKI_OPENCLAW_ENDPOINT)".to_owned())
        }
        Link::Parked => {
            let how = "`loki openclaw reconnect` ends that";
            ("disconnected", format!("a person has disconnected the bridge ({how})"))
        }
        Link::Down { since, why } => {
            let since = since.map_or_else(String::new, |at| format!(" since {}", rfc3339(at)));
            ("link_down", format!("the link to the server is down{since} ({why})"))
        }
    })
}

fn circuit(facts: &Facts<'_>) -> Keeps {
    let (until, why) = facts.circuit.as_ref()?;
    let text = match &facts.link {
        // What opened it is what keeps the link.
        Link::Down { .. } => format!("it is tried again at {}", rfc3339(*until)),
        _ => format!("the circuit is open until {} ({why})", rfc3339(*until)),
    };
    Some(("circuit_open", text))
}

fn behind(facts: &Facts<'_>) -> Keeps {
    let (key, head) = facts.behind.as_ref()?;
    Some(("behind", format!("it comes behind {head}, the first of the ordering key {key}")))
}

fn attempt(facts: &Facts<'_>) -> Keeps {
    let row = facts.row;
    if row.next_attempt_at <= facts.now || facts.behind.is_some() {
        return None;
    }
    let (due, error) = (rfc3339(row.next_attempt_at), error_of(row));
    let text = match row.attempts {
        0 => format!("its first attempt is due at {due}"),
        count => format!("attempt {} is due at {due}{error}", count + 1),
    };
    Some(("next_attempt", text))
}

fn error_of(row: &Row) -> String {
    if row.error.is_empty() { String::new() } else { format!(" ({})", row.error) }
}

/// What became of a message, or what is being done with it.
fn settled(facts: &Facts<'_>) -> String {
    let row = facts.row;
    let (at, error) = (rfc3339(row.updated_at), error_of(row));
    let tries = match row.attempts {
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts"),
    };
    let maybe = if row.maybe_delivered { "; it may have arrived" } else { "" };
    match row.status {
        Status::Delivered => {
            let who = match row.peer.as_str() {
                SERVER_AGENT_ID => "the server",
                peer if is_mailbox(&row.destination) => peer,
                _ => "the server of its recipient",
            };
            format!("is delivered: {who} has it since {at}, after {tries}")
        }
        Status::Sending => {
            format!("is out since {at}: attempt {} waits for its answer", row.attempts)
        }
        Status::Failed => {
            let reason = row.reason.as_str().unwrap_or("permanent");
            let how = format!("`loki openclaw retry {}` sends it again", row.message_id);
            format!("has failed at {at} after {tries}: {reason}{error}{maybe}; {how}")
        }
        Status::Expired if row.error.is_empty() => {
            format!("has expired at {at}, after {tries}{maybe}")
        }
        Status::Expired => format!("has expired at {at}: {}{maybe}", row.error),
        Status::Pruned => {
            let by = facts.actor.as_deref().unwrap_or("somebody");
            format!("was pruned by {by} at {at}, after {tries}{maybe}")
        }
        Status::Received if row.reason == Reason::Sealed => {
            format!("came from {} at {at}, sealed, and no key here opens it", row.peer)
        }
        Status::Received => format!("came from {} at {at} and is being applied", row.peer),
        Status::Processed => format!("came from {} and is applied since {at}", row.peer),
        Status::Rejected => format!("came from {} at {at} and was not applied{error}", row.peer),
        Status::Held => format!("is held since {at}"),
        Status::Pending => format!("waits since {at}"),
    }
}

#[cfg(test)]
mod tests {
    use storage::messages::BodyPlace;
    use storage::record::EntryId;

    use super::*;
    use crate::outbox::pause::Pause;

    const NOW: Millis = 1_771_165_800_000;

    fn row(status: Status, error: &str) -> Row {
        Row {
            entry: EntryId::default(),
            message_id: "m".into(),
            direction: if matches!(status, Status::Processed | Status::Received) {
                Direction::Inbound
            } else {
                Direction::Outbound
            },
            message_type: "task_update".into(),
            peer: "bob".into(),
            destination: "d".into(),
            namespace: "default".into(),
            status,
            reason: if status == Status::Failed { Reason::MaxAge } else { Reason::None },
            attempts: 2,
            next_attempt_at: 0,
            created_at: NOW - 9_000,
            updated_at: NOW - 1_000,
            size_bytes: 1,
            sealed: false,
            maybe_delivered: false,
            task_id: None,
            correlation_id: None,
            error: error.into(),
            body: BodyPlace::default(),
            digest: [0; 32],
        }
    }

    fn told(row: &Row, change: impl FnOnce(&mut Facts<'_>)) -> String {
        let mut facts = Facts {
            row,
            behind: None,
            expires_at: None,
            pauses: Pauses::default(),
            link: Link::Up,
            circuit: None,
            actor: Some("ada".into()),
            now: NOW,
        };
        change(&mut facts);
        let told = explain(&facts);
        format!("{} [{}]", told.explanation, told.because.join(" "))
    }

    #[test]
    fn what_keeps_a_message_is_told_in_the_order_in_which_it_has_to_go() {
        let pending = row(Status::Pending, "no answer came in time");
        let later = Row { next_attempt_at: NOW + 5_000, ..pending.clone() };
        let down = || Link::Down { since: Some(NOW), why: "refused".into() };
        let pause = Pause { by: "ada".into(), since: NOW };
        let bob = Pauses { peers: [("bob".to_owned(), pause.clone())].into(), all: None };
        let all = Pauses { all: Some(pause), ..Pauses::default() };
        let now = "2026-02-15T14:30:00.000Z";
        let soon = "2026-02-15T14:30:05.000Z";
        let head = || Some(("key".to_owned(), "h".to_owned()));
        let cases = [
            (told(&pending, |_| {}), "it is due and takes its turn []".to_owned()),
            (
                told(&later, |_| {}),
                format!("attempt 3 is due at {soon} (no answer came in time) [next_attempt]"),
            ),
            (
                told(&pending, |it| it.link = down()),
                format!("the link to the server is down since {now} (refused) [link_down]"),
            ),
            (
                told(&later, |it| {
                    (it.link, it.behind) = (down(), head());
                    it.circuit = Some((NOW, "x".into()));
                }),
                format!(
                    "the link to the server is down since {now} (refused), and it is tried again \
                     at {now}, and it comes behind h, the first of the ordering key key \
                     [link_down circuit_open behind]"
                ),
            ),
            (
                told(&pending, |it| it.circuit = Some((NOW + 5_000, "HTTP 403".into()))),
                format!("the circuit is open until {soon} (HTTP 403) [circuit_open]"),
            ),
            (
                told(&pending, |it| {
                    (it.behind, it.expires_at) = (head(), Some(NOW + 5_000));
                }),
                format!(
                    "it comes behind h, the first of the ordering key key, and it expires at \
                     {soon} [behind]"
                ),
            ),
            (
                told(&pending, |it| {
                    (it.pauses, it.link) = (bob, Link::Stopped { since: NOW });
                }),
                format!(
                    "it is held, as ada paused deliveries to bob at {now} (`loki openclaw resume \
                     --to bob` lets them go), and the bridge is stopped since {now} \
                     [paused stopped]"
                ),
            ),
            (
                told(&pending, |it| it.pauses = all),
                format!(
                    "it is held, as ada paused all deliveries at {now} (`loki openclaw resume` \
                     lets them go) [paused]"
                ),
            ),
        ];
        for (told, expected) in cases {
            assert_eq!(told, format!("m waits: {expected}"));
        }
    }

    #[test]
    fn a_person_who_disconnected_the_bridge_is_told_how_that_ends() {
        let told = told(&row(Status::Pending, ""), |it| it.link = Link::Parked);
        let how = "(`loki openclaw reconnect` ends that) [disconnected]";
        assert_eq!(told, format!("m waits: a person has disconnected the bridge {how}"));
    }

    #[test]
    fn what_lies_in_a_mailbox_of_a_server_is_told_so() {
        let letter = |status| Row { destination: "default/bob".into(), ..row(status, "") };
        let pause = Pause { by: "ada".into(), since: NOW };
        let held = told(&letter(Status::Pending), |it| {
            it.link = Link::Mailbox;
            it.pauses = Pauses { all: Some(pause), ..Pauses::default() };
        });
        let expected = "m waits: ada holds the mailbox of bob since 2026-02-15T14:30:00.000Z \
                        (`POST /agents/bob/resume` lets it go on), and it lies in the mailbox of \
                        bob until that agent takes it [paused mailbox]";
        assert_eq!(held, expected);
        let delivered = told(&letter(Status::Delivered), |_| {});
        assert!(delivered.starts_with("m is delivered: bob has it since "), "{delivered}");
    }

    #[test]
    fn what_became_of_a_message_is_told_with_its_time() {
        let at = "2026-02-15T14:29:59.000Z";
        let tries = "after 2 attempts";
        let cases = [
            (
                Status::Delivered,
                "",
                format!("is delivered: the server of its recipient has it since {at}, {tries}"),
            ),
            (
                Status::Failed,
                "busy",
                format!(
                    "has failed at {at} {tries}: max_age (busy); `loki openclaw retry m` sends it \
                     again"
                ),
            ),
            (Status::Expired, "", format!("has expired at {at}, {tries}")),
            (Status::Expired, "sent again as n", format!("has expired at {at}: sent again as n")),
            (Status::Pruned, "busy", format!("was pruned by ada at {at}, {tries}")),
            (Status::Sending, "", format!("is out since {at}: attempt 2 waits for its answer")),
            (Status::Processed, "", format!("came from bob and is applied since {at}")),
        ];
        for (status, error, expected) in cases {
            assert_eq!(told(&row(status, error), |_| {}), format!("m {expected} []"));
        }
        let out = Row { maybe_delivered: true, ..row(Status::Pruned, "") };
        assert!(told(&out, |_| {}).contains("; it may have arrived"));
    }
}
