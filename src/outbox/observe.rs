//! Who is told of the attempts of a pump, and what. It records nothing.

use std::sync::Arc;
use std::time::Duration;

use storage::record::MessageHead;

use super::verdict::Outcome;

/// How one attempt ended, for those who count.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The message.
    pub head: &'a MessageHead,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// How long the answer took.
    pub took: Duration,
}

/// Who counts attempts. Called when the end of one is durable.
pub type Observer = Arc<dyn Fn(Attempt<'_>) + Send + Sync>;
