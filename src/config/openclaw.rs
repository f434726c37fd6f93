//! `openclaw`: how the bridge reaches its server, and how it treats messages. Connects nowhere.

use std::path::PathBuf;
use std::time::Duration;

use super::authorization::Authorization;
use super::features::Features;
use super::field::choice;
use super::secret::Secret;
use super::state::StateRules;
use super::store::StoreRules;
use super::tls::ClientTls;
use crate::retry::Policy;

choice! {
    /// How envelopes travel.
    Transport, expected "one of auto, websocket, http", {
        /// WebSocket, and HTTP while only that works.
        Auto = "auto",
        /// WebSocket only.
        WebSocket = "websocket",
        /// HTTP only.
        Http = "http",
    }
}

/// The bridge's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenClaw {
    /// Whether the bridge connects at all.
    pub enabled: bool,
    /// The server, `http://` or `https://` and a host, as it was given: it may end in a slash.
    pub endpoint: Option<String>,
    /// The bridge's id; none: chosen at its first start and kept in the data directory.
    pub agent_id: Option<String>,
    /// The namespace the bridge lives in.
    pub namespace: String,
    /// How often the bridge says that it is alive.
    pub heartbeat_interval: Duration,
    /// How long one attempt waits for its answer.
    pub message_timeout: Duration,
    /// How envelopes travel.
    pub transport: Transport,
    /// How many tasks run at the same time.
    pub max_concurrent_tasks: u32,
    /// How long a stopping bridge waits for running tasks before it gives them back.
    pub drain_timeout: Duration,
    /// How long received ids are remembered.
    pub dedup_window: Duration,
    /// How long finished messages are kept. Messages that still need somebody are kept longer.
    pub retention: Duration,
    /// The folder of the journal, the view and the endpoint file.
    pub data_dir: PathBuf,
    /// The bearer token shown to the server.
    pub auth_token: Option<Secret>,
    /// Certificates.
    pub tls: ClientTls,
    /// Whether the content of messages is sealed.
    pub encrypt_messages: bool,
    /// The keys for it: 32 bytes in base64 or hex, or `file:PATH`; with commas between several.
    pub encryption_key: Option<Secret>,
    /// The parts of the protocol in use.
    pub features: Features,
    /// Who may send to the bridge.
    pub authorization: Authorization,
    /// When a failed attempt is repeated.
    pub retry: Policy,
    /// Strategies of the shared state.
    pub state: StateRules,
    /// The files of the store.
    pub store: StoreRules,
}

impl Default for OpenClaw {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: None,
            agent_id: None,
            namespace: "default".to_owned(),
            heartbeat_interval: Duration::from_secs(30),
            message_timeout: Duration::from_mins(2),
            transport: Transport::Auto,
            max_concurrent_tasks: 1,
            drain_timeout: Duration::from_secs(30),
            dedup_window: Duration::from_hours(8 * 24),
            retention: Duration::from_hours(30 * 24),
            data_dir: PathBuf::from(".loki/openclaw"),
            auth_token: None,
            tls: ClientTls::default(),
            encrypt_messages: false,
            encryption_key: None,
            features: Features::default(),
            authorization: Authorization::default(),
            retry: Policy::default(),
            state: StateRules::default(),
            store: StoreRules::default(),
        }
    }
}
