//! What a person changes on many messages, page by page: a hundred thousand of them take no more
//! memory than a page and their places, and no frame of the journal is too large. What follows for
//! one message is decided by [`crate::outbox`].

use std::convert::Infallible;
use std::sync::Arc;

use storage::journal::Reader;
use storage::record::{EntryId, Status};
use storage::shred::Shredded;
use storage::store::Store;
use storage::view::{Filter, Row};

use super::history::History;
use super::unavailable;
use crate::outbox::GivenUp;
use crate::outbox::again::{self, By, Retried};
use crate::outbox::prune::{self, Pruned};
use crate::protocol::{ErrorCode, Refusal};
use crate::trace;

/// Messages that one decision changes: the committer does nothing else meanwhile.
const PAGE_MESSAGES_MAX: usize = 500;

/// Bytes that one decision writes, about: far below what a frame takes, also with contents, which
/// are written again under a new id.
const PAGE_BYTES_MAX: usize = 2 << 20;

/// Bytes of a change besides its texts and contents.
const CHANGE_BYTES: usize = 512;

/// New ids that are told: whoever retries more looks them up by `retry_of`.
const RENAMED_MAX: usize = 1_000;

/// Which messages: those of the ids if there are any, and then of these those that pass the filter.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// Ids, each of which has to be there.
    pub message_ids: Vec<String>,
    /// What they have to be.
    pub filter: Filter,
}

/// What the changes are made on.
#[derive(Clone)]
pub struct Place {
    /// The store.
    pub store: Store,
    /// Its messages.
    pub history: Arc<dyn History>,
    /// Its journal.
    pub journal: Reader,
    /// Tells the sender of a message that is pruned; a bridge is the sender itself.
    pub given_up: Option<GivenUp>,
}

/// A place in the store, and about what a decision on it writes.
type Weighed = (EntryId, u32);

impl Place {
    /// The rows of a page, the newest first, and where the next one begins.
    async fn page(&self, filter: Filter) -> Result<(Vec<Row>, Option<EntryId>), Refusal> {
        let history = Arc::clone(&self.history);
        let read = tokio::task::spawn_blocking(move || {
            history.complete()?;
            history.rows(&filter)
        });
        let page = read.await.map_err(|error| unavailable(&error))?;
        page.map(|page| (page.rows, page.next)).map_err(|error| unavailable(&error))
    }

    /// The messages of these ids.
    async fn named(&self, ids: &[String]) -> Result<Vec<Row>, Refusal> {
        let (history, ids) = (Arc::clone(&self.history), ids.to_vec());
        let read = tokio::task::spawn_blocking(move || {
            history.complete().map_err(|error| unavailable(&error))?;
            let mut rows = Vec::new();
            for id in &ids {
                let found = history.find(id).map_err(|error| unavailable(&error))?;
                if found.is_empty() {
                    let detail = format!("no message has the id {id}");
                    return Err(Refusal::new(ErrorCode::NotFound, detail));
                }
                rows.extend(found);
            }
            Ok(rows)
        });
        read.await.map_err(|error| unavailable(&error))?
    }
}

fn unwritten(error: &storage::store::CommitError) -> Refusal {
    crate::inbox::unwritten(error)
}

/// Makes the chosen failed messages due again, the oldest first, so that they join their lanes in
/// order.
///
/// # Errors
/// When a named message cannot be sent again, and then none is; or when it is not known whether
/// what was done is durable.
pub async fn retry(place: &Place, chosen: Chosen, by: &By) -> Result<(Retried, usize), Refusal> {
    let mut found: Vec<Weighed> = Vec::new();
    let filter = Filter { status: vec![Status::Failed], limit: 0, ..chosen.filter };
    if chosen.message_ids.is_empty() {
        let mut filter = filter;
        loop {
            let (rows, next) = place.page(filter.clone()).await?;
            found.extend(rows.iter().map(weighed));
            filter.after = next;
            if next.is_none() {
                break;
            }
        }
        found.reverse();
    } else {
        let rows = place.named(&chosen.message_ids).await?;
        check_failed(&chosen.message_ids, &rows)?;
        found.extend(rows.iter().filter(|row| filter.matches(row)).map(weighed));
        found.sort_unstable();
    }
    let (mut retried, mut renamed) = (Retried::default(), 0);
    for page in pages(&found) {
        let entries: Vec<EntryId> = page.iter().map(|(entry, _)| *entry).collect();
        let (by, store) = (by.clone(), place.store.clone());
        let commit = place.store.commit(move |tx| -> Result<Retried, Infallible> {
            Ok(again::again(tx, &store, &entries, &by))
        });
        let done = commit.await.map_err(|error| unwritten(&error))?.unwrap_or_default();
        retried.count += done.count;
        renamed += done.renamed.len();
        let room = RENAMED_MAX.saturating_sub(retried.renamed.len());
        retried.renamed.extend(done.renamed.into_iter().take(room));
    }
    Ok((retried, renamed))
}

fn check_failed(ids: &[String], rows: &[Row]) -> Result<(), Refusal> {
    for id in ids {
        let mut same = rows.iter().filter(|row| row.message_id == *id);
        if same.clone().any(|row| row.status == Status::Failed) {
            continue;
        }
        let status = same.next().map_or("gone", |row| row.status.as_str());
        let detail = format!("the message {id} is {status}; only failed ones are sent again");
        return Err(Refusal::new(ErrorCode::WrongState, detail));
    }
    Ok(())
}

fn weighed(row: &Row) -> Weighed {
    let texts = CHANGE_BYTES + row.error.len();
    (row.entry, row.size_bytes.saturating_add(u32::try_from(texts).unwrap_or(u32::MAX)))
}

/// Pages of what one decision takes.
fn pages(found: &[Weighed]) -> impl Iterator<Item = &[Weighed]> {
    let mut rest = found;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(PAGE_MESSAGES_MAX).take_while(|(_, weight)| {
            let before = bytes;
            bytes += *weight as usize;
            before == 0 || bytes <= PAGE_BYTES_MAX
        });
        let (page, after) = rest.split_at(fits.count());
        rest = after;
        (!page.is_empty()).then_some(page)
    })
}

/// Ends the chosen messages, the failed ones unless another status is chosen; with `shred` their
/// content is to go, also that of finished ones.
///
/// # Errors
/// When a named message cannot be pruned, and then none is; or when it is not known whether what
/// was done is durable.
pub async fn prune(
    place: &Place,
    mut chosen: Chosen,
    shred: bool,
    actor: &str,
) -> Result<Pruned, Refusal> {
    let shredded = if shred { read_shredded(place).await? } else { Shredded::default() };
    let is_left = |row: &Row| !(row.status.is_finished() && shredded.is_dead(row.entry));
    let mut pruned = Pruned::default();
    if !chosen.message_ids.is_empty() {
        let mut rows = place.named(&chosen.message_ids).await?;
        for id in &chosen.message_ids {
            // A server has a message twice: as it came in, and as it lies in a mailbox.
            let mut same = rows.iter().filter(|row| row.message_id == *id);
            if !same.clone().any(|row| check_prunable(row, shred).is_ok()) {
                same.next().map_or(Ok(()), |row| check_prunable(row, shred))?;
            }
        }
        rows.retain(|row| check_prunable(row, shred).is_ok());
        if chosen.filter.status.is_empty() {
            chosen.filter.status = Status::ALL.to_vec();
        }
        rows.retain(|row| chosen.filter.matches(row) && is_left(row));
        for page in rows.chunks(PAGE_MESSAGES_MAX) {
            pruned = add(pruned, decide(place, page.to_vec(), shred, actor).await?);
        }
        return Ok(pruned);
    }
    if chosen.filter.status.is_empty() {
        chosen.filter.status.push(Status::Failed);
    }
    let mut filter = Filter { limit: PAGE_MESSAGES_MAX, ..chosen.filter };
    loop {
        let (mut rows, next) = place.page(filter.clone()).await?;
        rows.retain(is_left);
        if !rows.is_empty() {
            pruned = add(pruned, decide(place, rows, shred, actor).await?);
        }
        filter.after = next;
        if next.is_none() {
            return Ok(pruned);
        }
    }
}

async fn read_shredded(place: &Place) -> Result<Shredded, Refusal> {
    let journal = place.journal.clone();
    let read = tokio::task::spawn_blocking(move || Shredded::read(&journal));
    let read = read.await.map_err(|error| unavailable(&error))?;
    read.map_err(|error| unavailable(&error))
}

fn check_prunable(row: &Row, shred: bool) -> Result<(), Refusal> {
    let (id, status) = (&row.message_id, row.status.as_str());
    let detail = match row.status {
        status if prune::may_end(status, row.reason) => return Ok(()),
        status if status.is_finished() && shred => return Ok(()),
        Status::Pruned => format!("the message {id} is pruned already"),
        Status::Received => format!("the message {id} is being applied; wait for its end"),
        _ => format!(
            "the message {id} is {status}, so that there is nothing to end; shred it to have its \
             content removed"
        ),
    };
    Err(Refusal::new(ErrorCode::WrongState, detail))
}

async fn decide(
    place: &Place,
    rows: Vec<Row>,
    shred: bool,
    actor: &str,
) -> Result<Pruned, Refusal> {
    let (actor, store) = (actor.to_owned(), place.store.clone());
    let given_up = place.given_up.clone();
    // Of what has long ended nothing is read in order to be rid of it.
    let traced = move |row: Row| {
        let is_open = !row.status.is_finished();
        let trace = is_open.then(|| trace::of_body(store.body(row.body))).flatten();
        (row, trace)
    };
    let read = tokio::task::spawn_blocking(move || rows.into_iter().map(traced).collect());
    let rows: Vec<(Row, Option<String>)> = read.await.map_err(|error| unavailable(&error))?;
    let commit = place.store.commit(move |tx| -> Result<Pruned, Infallible> {
        Ok(prune::prune(tx, &rows, (shred, &actor), given_up.as_ref()))
    });
    Ok(commit.await.map_err(|error| unwritten(&error))?.unwrap_or_default())
}

fn add(one: Pruned, other: Pruned) -> Pruned {
    Pruned { count: one.count + other.count, shredded: one.shredded + other.shredded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded_in_messages_and_in_bytes() {
        let weights = |weights: &[u32]| {
            let found: Vec<Weighed> = (1..)
                .zip(weights)
                .map(|(sequence, weight)| (EntryId { sequence, index: 0 }, *weight))
                .collect();
            pages(&found).map(<[Weighed]>::len).collect::<Vec<_>>()
        };
        assert_eq!(weights(&[]), Vec::<usize>::new());
        assert_eq!(weights(&[600; 1_201]), [500, 500, 201]);
        let large = u32::try_from(PAGE_BYTES_MAX).expect("a small number");
        assert_eq!(weights(&[large + 1, 1, large, large / 2, large / 2]), [1, 1, 1, 2]);
    }
}
