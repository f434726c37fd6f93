//! Makes a written frame durable, and only then visible: state, listeners, answers, in this order
//! (JOURNAL rule 1). It decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::heads::OfFrame;
use super::{CommitError, Decision, Fatal, Inner, Published};
use crate::journal::{AppendError, Log, Position};

/// A frame that is written and not known to be durable.
pub(super) struct Written {
    pub(super) published: Published,
    pub(super) waiting: Vec<Box<dyn Decision>>,
}

pub(super) struct Publisher {
    pub(super) shared: Arc<Inner>,
    pub(super) log: Arc<Mutex<Box<dyn Log>>>,
    pub(super) fatal: Fatal,
}

impl Publisher {
    /// Takes what the sync of a frame ended in, publishes and answers; `false` when the store
    /// cannot go on.
    pub(super) fn complete(&self, done: Result<Position, AppendError>, written: Written) -> bool {
        let Written { published, waiting } = written;
        let finished = self.log.lock().finish_sync(done);
        if let Err(error) = finished {
            // It is final: what was written may or may not be there (JOURNAL rule 4).
            for one in waiting {
                one.answer(Err(CommitError::Stopped));
            }
            (self.fatal)(&error.to_string());
            return false;
        }
        // It is durable: whoever decided it is told so, whatever becomes of its listeners.
        let told = catch_unwind(AssertUnwindSafe(|| self.publish(&published)));
        for one in waiting {
            one.answer(Ok(()));
        }
        // Heads that are kept no longer go when nobody waits for it.
        if told.is_err() {
            self.shared.broken.store(true, Ordering::SeqCst);
            (self.fatal)("what follows from a commit failed inside the program");
        }
        told.is_ok()
    }

    /// Gives back what is to be dropped when everybody is answered.
    fn publish(&self, published: &Published) -> Vec<OfFrame> {
        let mut state = self.shared.state.write();
        for (entry, record, body) in published.entries.iter() {
            state.apply(*entry, published.time, record, *body);
        }
        let unfinished = state.messages.live_len() as u64;
        drop(state);
        if let Some(space) = self.shared.space.get() {
            space.owe(unfinished);
        }
        let old = self.shared.heads.keep(published);
        self.shared.listeners.lock().retain_mut(|listener| listener(published));
        old
    }
}
