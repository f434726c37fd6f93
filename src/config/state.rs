//! `state`: which keys of the shared state are merged and which are guarded. Applies nothing.

/// The strategy of a key, by prefix. `*` stands for one segment between slashes. A key that no
/// prefix covers takes the last write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateRules {
    /// Keys whose value is a set of objects by `id`, joined when two agents write.
    pub merge_prefixes: Vec<String>,
    /// Keys that can be written only with their current version.
    pub reject_prefixes: Vec<String>,
}

impl Default for StateRules {
    fn default() -> Self {
        Self {
            merge_prefixes: vec!["queue/".to_owned()],
            reject_prefixes: vec!["agent/*/status".to_owned()],
        }
    }
}
