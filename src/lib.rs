//! `loki-openclaw`: the agent's bridge and the coordination server of the OpenClaw protocol, on a
//! durable journal.
//!
//! # The promise
//!
//! What was acknowledged is on stable storage. It is delivered at least once, in order within its
//! ordering key, and applied once per message id. If it cannot be delivered it stays visible, with
//! the reason, until a person retries or prunes it. Nothing disappears.
//!
//! This is the only place that states it; everything else links here. `docs/architecture.md` shows
//! the parts and who may import whom; `docs/protocol.md` is the wire.

pub mod audit;
pub mod bridge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dashboard;
pub mod executor;
pub mod inbox;
pub mod inspector;
pub mod logging;
pub mod metrics;
pub mod outbox;
pub mod protocol;
pub mod retry;
pub mod server;
pub mod shutdown;
pub mod trace;
pub mod transport;
pub mod upkeep;
