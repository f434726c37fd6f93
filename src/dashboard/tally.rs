//! Messages counted for an overview: where how many stand, and for whom. It looks at a bounded
//! number of messages, however many there are.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use storage::messages::Messages;
use storage::record::{Direction, Status};
use storage::view::{Filter, View, ViewError};

/// Pages of a list that are looked at for what is not counted anyway, each of 1,000 rows.
const PAGES_MAX: usize = 2;

/// Peers that are named, those with the most to wait for first.
const PEERS_MAX: usize = 50;

/// Whether an outbound message waits to be delivered.
pub fn waits(status: Status) -> bool {
    matches!(status, Status::Pending | Status::Sending)
}

/// How many outbound messages have a status that is asked for.
pub fn outbound(messages: &Messages, is_asked: impl Fn(Status) -> bool) -> u64 {
    let counts = messages.counts().iter();
    let asked = counts.filter(|((_, direction, status), _)| {
        *direction == Direction::Outbound && is_asked(*status)
    });
    asked.map(|(_, count)| count).sum()
}

/// How many messages stand where.
pub fn counts(messages: &Messages) -> Vec<Value> {
    let mut counts: BTreeMap<(Direction, Status), u64> = BTreeMap::new();
    for ((_, direction, status), count) in messages.counts() {
        *counts.entry((*direction, *status)).or_default() += count;
    }
    let shown = counts.into_iter().filter(|(_, count)| *count > 0);
    let shown = shown.map(|((direction, status), count)| {
        json!({"direction": direction.as_str(), "status": status.as_str(), "count": count})
    });
    shown.collect()
}

/// What is unfinished for one peer.
#[derive(Default)]
struct Unfinished {
    by_status: BTreeMap<&'static str, u64>,
    total: u64,
}

/// Unfinished outbound messages by what the counts call their destination: of a server these are
/// the mailboxes.
pub fn by_destination(messages: &Messages) -> Value {
    let mut peers: BTreeMap<String, Unfinished> = BTreeMap::new();
    for ((destination, direction, status), count) in messages.counts() {
        if *direction == Direction::Outbound && !status.is_finished() && *count > 0 {
            add(&mut peers, destination, *status, *count);
        }
    }
    shown(peers, true)
}

/// Unfinished outbound messages by whom they are for, of the newest ones when there are many.
///
/// # Errors
/// When the rows cannot be read.
pub fn by_peer(view: &View) -> Result<Value, ViewError> {
    let status = Status::ALL.into_iter().filter(|status| !status.is_finished()).collect();
    let direction = Some(Direction::Outbound);
    let mut filter = Filter { status, direction, ..Filter::default() };
    let mut peers: BTreeMap<String, Unfinished> = BTreeMap::new();
    for _ in 0..PAGES_MAX {
        let page = view.list(&filter)?;
        for row in &page.rows {
            add(&mut peers, &row.peer, row.status, 1);
        }
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    Ok(shown(peers, filter.after.is_none()))
}

fn add(peers: &mut BTreeMap<String, Unfinished>, peer: &str, status: Status, count: u64) {
    if !peers.contains_key(peer) {
        peers.insert(peer.to_owned(), Unfinished::default());
    }
    let Some(unfinished) = peers.get_mut(peer) else { return };
    *unfinished.by_status.entry(status.as_str()).or_default() += count;
    unfinished.total += count;
}

fn shown(peers: BTreeMap<String, Unfinished>, is_all: bool) -> Value {
    let mut peers: Vec<(String, Unfinished)> = peers.into_iter().collect();
    peers.sort_by_key(|(_, unfinished)| std::cmp::Reverse(unfinished.total));
    let more = peers.len() > PEERS_MAX;
    peers.truncate(PEERS_MAX);
    let peers: Vec<Value> = peers
        .into_iter()
        .map(|(peer, it)| json!({"peer": peer, "messages": it.by_status, "total": it.total}))
        .collect();
    json!({"peers": peers, "complete": is_all && !more})
}
