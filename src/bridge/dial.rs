//! Which transport carries a session, section 4 of the protocol, and opening it. It keeps no
//! session and decides nothing about trying again.

use tokio::time::sleep;
use tracing::info;

use super::Shared;
use crate::config::Transport;
use crate::protocol::Envelope;
use crate::transport::{ConnectError, Connection, Socket, TransportSettings, connect, http};

/// Upgrades that fail in a row, while the server answers otherwise, before `auto` takes HTTP.
const UPGRADES_FAILED_MAX: u32 = 2;

fn settings(shared: &Shared) -> TransportSettings {
    TransportSettings {
        endpoint: shared.settings.server.clone().unwrap_or_default(),
        token: shared.settings.token.as_ref().map(|token| token.reveal().to_owned()),
        timeout: shared.settings.timeout,
        clock: shared.clock.clone(),
        way: shared.settings.way.clone(),
    }
}

/// Opens a session by the configured transport.
pub(super) async fn open(shared: &Shared, envelope: &Envelope) -> Result<Connection, ConnectError> {
    let settings = settings(shared);
    let error = match shared.settings.transport {
        Transport::Http => return http::connect(&settings, envelope).await,
        Transport::WebSocket => return connect::connect(&settings, envelope).await,
        Transport::Auto => match connect::upgrade(&settings).await {
            Ok(socket) => return connect::register(&settings, socket, envelope).await,
            Err(error) => error,
        },
    };
    // A server that is away altogether is no reason to give the WebSocket up.
    let is_there = http::is_there(&settings).await;
    let failed = {
        let mut link = shared.link.write();
        link.upgrades_failed = if is_there { link.upgrades_failed.saturating_add(1) } else { 0 };
        link.upgrades_failed
    };
    if failed < UPGRADES_FAILED_MAX {
        return Err(error);
    }
    info!(%error, "no WebSocket gets through, taking HTTP");
    http::connect(&settings, envelope).await
}

/// Waits until a WebSocket opens, for a session that `auto` has to carry over HTTP; for any other
/// it waits for ever.
pub(super) async fn better(shared: &Shared, transport: &str) -> Socket {
    if shared.settings.transport != Transport::Auto || transport != "http" {
        return std::future::pending().await;
    }
    loop {
        sleep(shared.settings.websocket_retry).await;
        if let Ok(socket) = connect::upgrade(&settings(shared)).await {
            return socket;
        }
    }
}

/// Registers on a WebSocket that took the place of HTTP; `None` when that fails, so that a session
/// is opened from the beginning.
pub(super) async fn register(
    shared: &Shared,
    socket: Socket,
    envelope: &Envelope,
) -> Option<Connection> {
    connect::register(&settings(shared), socket, envelope).await.ok()
}
