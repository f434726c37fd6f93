//! The handle of sled, and the two places where sled 0.34.7 may wait for ever after a disk refused
//! a write: its flush and its drop. Neither holds anybody up here.

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// The last handle of sled. When that is dropped and the disk refuses, sled panics, or waits for
/// ever for a write that will not come. By then the rows are of no use, and the journal has
/// everything: so it is dropped where nobody waits for it, see [`wait_released`].
#[derive(Default)]
pub(super) struct Handle(Option<sled::Db>);

impl Handle {
    pub(super) fn of(db: sled::Db) -> Self {
        Self(Some(db))
    }

    pub(super) fn get(&self) -> Option<&sled::Db> {
        self.0.as_ref()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(db) = self.0.take() else { return };
        let gone = move || {
            let released = AssertUnwindSafe(|| {
                // What refuses here is not waited for when it is dropped.
                let _ = flush(&db);
                drop(db);
            });
            drop(catch_unwind(released));
        };
        if let Err(error) = std::thread::Builder::new().name("sled-drop".into()).spawn(gone) {
            tracing::warn!(error.text = %error, "no thread to let go of the message view");
        }
    }
}

/// How long a flush may take before another one looks after it.
const NUDGE: Duration = Duration::from_secs(1);

/// sled's own flush, as far as the system's cache.
///
/// When a write fails that ended with a reservation, sled keeps the error and tells nobody who is
/// waiting for that write already; until they go on no batch is written in this process, as they
/// hold a lock of all its databases. Somebody who flushes later sees the error and wakes them.
pub(super) fn flush(db: &sled::Db) -> sled::Result<usize> {
    let (flushing, flushed) = channel::<()>();
    let other = db.clone();
    let nudge = move || {
        while flushed.recv_timeout(NUDGE) == Err(RecvTimeoutError::Timeout) {
            if other.flush().is_err() {
                tracing::warn!("sled's flush was woken after an error that it was not told of");
            }
        }
        // It may be the last.
        drop(catch_unwind(AssertUnwindSafe(|| drop(other))));
    };
    // Where no thread can be started it is sled's flush alone.
    let _ = std::thread::Builder::new().name("sled-nudge".into()).spawn(nudge);
    let outcome = db.flush();
    drop(flushing);
    outcome
}

/// Waits until sled has let go of its directory: a thread of its own does so after the last handle
/// is dropped. Whoever still has it then is told by sled.
pub(super) fn wait_released(path: &Path) {
    const TRIES: u32 = 500;
    const PAUSE: Duration = Duration::from_millis(10);
    let Ok(file) = File::open(path.join("db")) else { return };
    for _ in 0..TRIES {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}
