//! Stopping in two steps: the first signal drains, the second stops. Knows no task and no socket.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How far the program is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Ordinary work.
    #[default]
    Running,
    /// What was begun is finished, nothing new is taken.
    Draining,
    /// Everything ends now.
    Stopping,
}

/// A handle of the program's end. Clones share it, and a phase never goes back.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Sender<Phase>);

impl Default for Shutdown {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl Shutdown {
    /// Where the program stands.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Takes nothing new from now on.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Ends everything now.
    pub fn stop(&self) {
        self.advance(Phase::Stopping);
    }

    /// Returns when draining has begun, or later.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns when everything has to end.
    pub async fn stopping(&self) {
        self.reached(Phase::Stopping).await;
    }

    /// Moves one phase on with each interrupt or termination signal, until the last is reached,
    /// however that came about.
    ///
    /// # Errors
    /// When the system does not let us listen for signals.
    pub fn on_signals(self) -> io::Result<impl Future<Output = io::Result<()>> + Send> {
        // From here on no signal ends the program by itself, also before the future is polled.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        Ok(async move {
            while self.phase() < Phase::Stopping {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = self.stopping() => return Ok(()),
                }
                match self.phase() {
                    Phase::Running => self.drain(),
                    Phase::Draining | Phase::Stopping => self.stop(),
                }
            }
            Ok(())
        })
    }

    fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    async fn reached(&self, phase: Phase) {
        let mut watch = self.0.subscribe();
        // The sender is ours, so that the wait ends only by the phase.
        let _ = watch.wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phase_never_goes_back() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.phase(), Phase::Running);
        shutdown.stop();
        shutdown.drain();
        assert_eq!(shutdown.phase(), Phase::Stopping);
        shutdown.draining().await;
        shutdown.stopping().await;
    }
}
