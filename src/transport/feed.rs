//! What a link takes its messages from and tells the answers to. The outbox implements it; a
//! transport knows nothing of stores.

use std::future::Future;

use tokio::time::Instant;

use crate::protocol::Refusal;

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Its id, by which the peer answers.
    pub message_id: String,
    /// The envelope.
    pub bytes: Vec<u8>,
}

/// Why messages got no answer of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Their bytes never left.
    NotSent,
    /// They left, and nothing came back in time.
    TimedOut,
    /// The peer, or something before it, lets nothing of ours in; the reason.
    Barred(String),
}

/// The store of this side has stopped: nothing can be recorded, so nothing may be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store has stopped")]
pub struct StoreStopped;

/// The messages of one destination.
pub trait Feed: Send + Sync {
    /// Messages that are out and unanswered.
    fn in_flight(&self) -> usize;

    /// Waits until something is due and takes up to `limit` messages out. Dropping the future
    /// loses nothing.
    fn next(&self, limit: usize) -> impl Future<Output = Vec<Outgoing>> + Send;

    /// The peer acknowledged these. Ids that are not out are left alone.
    fn delivered(
        &self,
        message_ids: &[String],
    ) -> impl Future<Output = Result<(), StoreStopped>> + Send;

    /// The peer refused this one.
    fn refused(
        &self,
        message_id: &str,
        refusal: Refusal,
    ) -> impl Future<Output = Result<(), StoreStopped>> + Send;

    /// These got no answer of their own.
    fn failed(
        &self,
        message_ids: &[String],
        failure: Failure,
    ) -> impl Future<Output = Result<(), StoreStopped>> + Send;

    /// The peer has read what was given before this time, as it answered a ping that was sent then.
    /// Receipts, which nobody has to acknowledge, are thereby settled.
    fn arrived(&self, before: Instant) -> impl Future<Output = Result<(), StoreStopped>> + Send;

    /// Waits until a message is out for longer than an attempt may take, and gives up waiting for
    /// its answer. Dropping the future loses nothing.
    fn overdue(&self) -> impl Future<Output = Result<(), StoreStopped>> + Send;

    /// The link is gone: what was out is pending again, and may have arrived.
    fn broken(&self) -> impl Future<Output = Result<(), StoreStopped>> + Send;
}
