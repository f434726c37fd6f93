//! The bodies of a retry and of a prune, carried out on a store. Which messages a body means is
//! read by [`super::selection`], what is done with them by [`super::bulk`].

use serde_json::{Value, json};
use storage::record::Status;

use super::bulk::{self, Place};
use super::selection::Change;
use crate::outbox::again::By;
use crate::protocol::Refusal;

/// Sends again what the body of a retry asks for: all that failed, if it names nothing. Whoever
/// sends it is named by the body, and else by `by`.
///
/// # Errors
/// When the body is wrong, a named message cannot be sent again, or the store cannot write.
pub async fn retried(place: &Place, by: By, body: &[u8]) -> Result<Value, Refusal> {
    let change = Change::read(body)?;
    if change.status.as_deref().is_some_and(|status| status != Status::Failed.as_str()) {
        let wanted = "failed: other messages need nobody to send them again";
        return Err(Refusal::invalid("status", wanted));
    }
    if change.shred {
        return Err(Refusal::invalid("shred", "left out: what is sent again needs it"));
    }
    let (chosen, actor) = change.chosen()?;
    let (retried, renamed_count) = bulk::retry(place, chosen, &By { actor, ..by }).await?;
    let renamed: serde_json::Map<String, Value> =
        retried.renamed.into_iter().map(|(old, new)| (old, new.into())).collect();
    Ok(json!({
        "retried": retried.count, "renamed": renamed, "renamed_count": renamed_count,
    }))
}

/// Ends what the body of a prune asks for: all that failed, if it names nothing.
///
/// # Errors
/// As [`retried`].
pub async fn pruned(place: &Place, body: &[u8]) -> Result<Value, Refusal> {
    let change = Change::read(body)?;
    let shred = change.shred;
    let (chosen, actor) = change.chosen()?;
    let finished = chosen.filter.status.iter().find(|status| status.is_finished());
    if let Some(status) = finished.filter(|_| !shred && chosen.message_ids.is_empty()) {
        let (status, wanted) = (status.as_str(), "another one, or shred be true");
        let why =
            format!("{wanted}: a message that is {status} has nothing to end but its content");
        return Err(Refusal::invalid("status", &why));
    }
    let pruned = bulk::prune(place, chosen, shred, &actor).await?;
    Ok(json!({ "pruned": pruned.count, "shredded": pruned.shredded }))
}
