//! Carries envelopes over WebSocket or HTTP. Decides nothing about retry, and stores nothing.

pub mod body;
pub mod connect;
pub mod conversation;
pub mod feed;
pub mod http;
pub mod proxy;
pub mod response;
pub mod socket;
pub mod tls;

pub use connect::{Carrier, ConnectError, Connection, TransportSettings, connect};
pub use conversation::{Answer, Answers, Ended, Handler, Settings, run};
pub use feed::{Failure, Feed, Outgoing};
pub use socket::{Socket, Wire};
