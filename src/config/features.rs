//! `openclaw.features`: which parts of the protocol the bridge takes part in.

/// The parts that can be switched off one by one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Features {
    /// Tasks that no local agent serves are offered to other agents.
    pub task_sharing: bool,
    /// The bridge writes its session's state and follows that of the namespace.
    pub state_sync: bool,
    /// The bridge answers capability queries.
    pub capabilities_discovery: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { task_sharing: true, state_sync: true, capabilities_discovery: true }
    }
}
