//! What the configuration says about a store, in the store's own terms, and what a store takes, as
//! it is shown. It opens nothing.

use std::time::Duration;

use serde_json::{Value, json};
use storage::database::{Freed, Sizes};
use storage::info::Info;
use storage::retention::{Keep, Retention};

use crate::clock::rfc3339;
use crate::config::StoreRules;

/// The sizes of the store's files.
pub fn sizes(rules: &StoreRules) -> Sizes {
    Sizes { segment_bytes: rules.segment_size.0, reserve_bytes: rules.reserve.0 }
}

/// What is kept of the bodies of finished messages; `usual` where nothing else is said.
pub fn retention(rules: &StoreRules, usual: Duration) -> Retention {
    let keep = |age: Option<Duration>, size: Option<crate::config::Size>| Keep {
        age: u64::try_from(age.unwrap_or(usual).as_millis()).unwrap_or(u64::MAX),
        bytes: size.map_or(u64::MAX, |size| size.0),
    };
    let (age, size) = (&rules.max_age, &rules.max_size);
    Retention {
        delivered: keep(age.delivered, size.delivered),
        expired: keep(age.expired, size.expired),
        processed: keep(age.processed, size.processed),
        rejected: keep(age.rejected, size.rejected),
    }
}

/// What a store takes, as `loki store info` shows it.
pub fn shown(info: &Info, full: Option<&str>) -> Value {
    let messages = info
        .messages
        .iter()
        .map(|(status, (count, bytes))| {
            ((*status).to_owned(), json!({"count": count, "bytes": bytes}))
        })
        .collect::<serde_json::Map<_, _>>();
    json!({
        "format": storage::format::CURRENT,
        "segments": info.segments,
        "bytes": info.bytes,
        "live_bytes": info.live_bytes,
        "spare_segments": info.spares.0,
        "spare_bytes": info.spares.1,
        "reserve_bytes": info.reserve_bytes,
        "quarantined_files": info.quarantine.0,
        "quarantined_bytes": info.quarantine.1,
        "first_frame": info.frames.0,
        "last_frame": info.frames.1,
        "messages": messages,
        "last_compaction": info.last_compaction.map(rfc3339),
        "recorded_since": info.recorded_since.map(rfc3339),
        "last_trim": info.last_trim.map(rfc3339),
        "oldest_unfinished": info.oldest_unfinished.as_ref().map(|(message_id, status)| {
            json!({ "message_id": message_id, "status": status.as_str() })
        }),
        "full": full,
    })
}

/// What a compaction did; `None` when it goes on.
pub fn freed(freed: Option<Freed>) -> Value {
    let done = freed.is_some();
    let Freed { segments, bodies, bytes } = freed.unwrap_or_default();
    json!({"done": done, "segments": segments, "bodies": bodies, "bytes_freed": bytes})
}
