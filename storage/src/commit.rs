//! The answer of a commit: a future, or a call that waits. It needs no runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::store::CommitError;

struct Shared<R> {
    state: Mutex<Waiting<R>>,
    done: Condvar,
}

struct Waiting<R> {
    result: Option<Result<R, CommitError>>,
    waker: Option<Waker>,
}

/// The answer of a commit, once everything that it decided is on stable storage.
#[must_use = "a commit that nobody waits for is not known to be durable"]
pub struct Commit<R>(Arc<Shared<R>>);

/// Gives the answer. Dropped without one, it says that the store stopped.
pub(crate) struct Answer<R>(Option<Arc<Shared<R>>>);

pub(crate) fn channel<R>() -> (Answer<R>, Commit<R>) {
    let state = Mutex::new(Waiting { result: None, waker: None });
    let shared = Arc::new(Shared { state, done: Condvar::new() });
    (Answer(Some(Arc::clone(&shared))), Commit(shared))
}

impl<R> Answer<R> {
    pub(crate) fn give(mut self, result: Result<R, CommitError>) {
        if let Some(shared) = self.0.take() {
            shared.give(result);
        }
    }
}

impl<R> Drop for Answer<R> {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.give(Err(CommitError::Stopped));
        }
    }
}

impl<R> Shared<R> {
    fn give(&self, result: Result<R, CommitError>) {
        let waker = {
            let mut state = self.state.lock();
            state.result = Some(result);
            state.waker.take()
        };
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R> Commit<R> {
    /// Blocks this thread until the answer is there.
    ///
    /// # Errors
    /// When the store stopped or refused the frame.
    pub fn wait(self) -> Result<R, CommitError> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            self.0.done.wait(&mut state);
        }
    }
}

impl<R> Future for Commit<R> {
    type Output = Result<R, CommitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
