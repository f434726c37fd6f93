//! Records in the audit log what is found damaged while the program runs, as a start records what
//! it finds. It looks for nothing: what somebody reads is checked.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use storage::event::Event;
use storage::inspect;
use storage::journal::{Damage, Reader};
use storage::record::Level;
use storage::store::Store;
use storage::transaction::Act;
use tokio::time::{MissedTickBehavior, interval};

/// Who records it.
const ACTOR: &str = "store";

/// Between two looks at what was found.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Records what is found from now on. It never ends by itself.
pub async fn watch(store: Store, journal: Reader) {
    let mut known = inspect::missing(&journal);
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        looks.tick().await;
        let found = journal.found().into_iter();
        let new: Vec<Damage> =
            found.filter(|one| !known.iter().any(|known| known.covers(one))).collect();
        if new.is_empty() {
            continue;
        }
        for one in &new {
            let (segment, reason) = (one.segment.display(), one.reason);
            tracing::error!(%segment, %reason, "a part of the store cannot be read");
        }
        known.extend(new.iter().cloned());
        let written = store.commit(move |tx| -> Result<(), Infallible> {
            for one in &new {
                tx.note(entry(one));
            }
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "damage could not be recorded");
        }
    }
}

fn entry(damage: &Damage) -> Act {
    let name = damage.segment.file_name().unwrap_or_default().to_string_lossy();
    let details = json!({
        "reason": damage.reason.to_string(),
        "offset": damage.offset,
        "bytes": damage.len,
        "first": damage.first,
        "last": damage.last,
    });
    let act = Act::new(Event::StoreDamage, ACTOR, "", &name);
    act.level(Level::Error).details(details.to_string())
}
