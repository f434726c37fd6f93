//! `GET /api/audit`: the audit log, which is the journal read by event. Not served yet from the
//! journal's past: only what is asked for is checked, and the answer says so.

use super::problem::Failed;
use crate::protocol::{ErrorCode, Refusal};

/// `GET /api/audit`
pub async fn list() -> Failed {
    let detail = "the audit log cannot be read through the bridge in this release";
    Failed(Refusal::new(ErrorCode::Unavailable, detail).with_retryable(false))
}
