//! A destination's circuit as its link, its pump and its status share it. What follows from a sign
//! is decided by [`super::circuit`].

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tracing::{info, warn};

use super::circuit::{Admission, Circuit, Sign};
use crate::clock::{Clock, Millis};
use crate::retry::Policy;

/// A circuit that outlives the links of its destination. Clones share it.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    clock: Clock,
    policy: Policy,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    circuit: Circuit,
    reason: Option<String>,
}

/// What people are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateState {
    /// `closed`, `open` or `probing`.
    pub circuit: &'static str,
    /// Until when it is open.
    pub until: Option<Millis>,
    /// Why it was opened; `None` when it is closed.
    pub reason: Option<String>,
}

impl Gate {
    /// A closed one.
    pub fn new(clock: Clock, policy: Policy) -> Self {
        Self(Arc::new(Shared { clock, policy, inner: Mutex::default() }))
    }

    /// Takes a sign over. Whether the circuit was closed by it, so that what waits may go.
    pub fn sign(&self, sign: Sign, reason: &str) -> bool {
        let Shared { clock, policy, inner } = &*self.0;
        let mut inner = inner.lock();
        inner.circuit.follow(clock.now(), policy);
        let was_open = inner.circuit.until().is_some();
        let delay = clock.draw(inner.circuit.bound(sign, policy));
        inner.circuit = std::mem::take(&mut inner.circuit).after(sign, clock.now(), delay);
        let is_open = inner.circuit.until().is_some();
        match (was_open, is_open, sign) {
            (_, false, _) => inner.reason = None,
            (true, true, Sign::Linked) => {}
            (_, true, _) => inner.reason = Some(reason.to_owned()),
        }
        drop(inner);
        match (was_open, is_open) {
            (false, true) => warn!(%reason, "the circuit is open, deliveries wait"),
            (true, false) => info!("the circuit is closed, deliveries go on"),
            _ => {}
        }
        was_open && !is_open
    }

    /// How much may leave now.
    pub fn admits(&self, in_flight: usize) -> Admission {
        self.followed().circuit.admits(self.0.clock.now(), in_flight)
    }

    /// How long to wait before a link is tried again: until the circuit lets a probe out, or a
    /// time drawn from the policy's bound.
    pub fn pause(&self) -> Millis {
        let Shared { clock, policy, .. } = &*self.0;
        let circuit = self.followed().circuit.clone();
        match circuit.admits(clock.now(), 0) {
            Admission::NothingUntil(until) => until.saturating_sub(clock.now()),
            Admission::All => clock.draw(circuit.link_bound(policy)),
            Admission::Probe | Admission::Nothing => 0,
        }
    }

    /// Closes it, because a person wants it tried now.
    pub fn reset(&self) {
        *self.0.inner.lock() = Inner::default();
    }

    fn followed(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.inner.lock();
        inner.circuit.follow(self.0.clock.now(), &self.0.policy);
        inner
    }

    /// What people are shown.
    pub fn state(&self) -> GateState {
        let inner = self.followed();
        GateState {
            circuit: inner.circuit.as_str(self.0.clock.now()),
            until: inner.circuit.until(),
            reason: inner.reason.clone(),
        }
    }
}
