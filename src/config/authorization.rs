//! `authorization`: who may send to this program, the same on both sides. Decides nothing itself.

/// The senders that are let in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Authorization {
    /// Whether the two lists are enforced. Off: everybody is let in.
    pub enabled: bool,
    /// The agent ids that may send. Enforced and empty: nobody.
    pub allowed_agents: Vec<String>,
    /// The namespaces that may be used. Enforced and empty: none.
    pub allowed_namespaces: Vec<String>,
}
