//! The `sealed` member that stands for encrypted content, and the text that it is bound to. Nothing
//! is encrypted here.

use serde::{Deserialize, Serialize};

/// Encrypted content. A relay keeps it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The method, `A256GCM`.
    pub enc: String,
    /// Which key: the first 8 bytes of its SHA-256 in hex.
    pub kid: String,
    /// 12 bytes in standard base64.
    pub nonce: String,
    /// Ciphertext and tag in standard base64.
    pub ciphertext: String,
    /// The message that was sealed.
    pub origin: Origin,
}

/// The control fields of the message as its author sealed it; the ciphertext is bound to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its author.
    pub agent_id: Option<String>,
    /// Its recipient.
    pub to: Option<String>,
    /// Its id.
    pub message_id: Option<String>,
    /// Its type.
    pub message_type: Option<String>,
    /// The task that it is about.
    pub task_id: Option<String>,
    /// The type of that task.
    pub task_type: Option<String>,
}

impl Origin {
    /// The associated data of the encryption: the seven values as a JSON array without spaces,
    /// `null` for those that are absent.
    pub fn associated_data(&self) -> String {
        let values = [
            &self.namespace,
            &self.agent_id,
            &self.to,
            &self.message_id,
            &self.message_type,
            &self.task_id,
            &self.task_type,
        ];
        serde_json::json!(values).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_associated_data_is_an_array_without_spaces() {
        let some = |text: &str| Some(text.to_owned());
        let origin = Origin {
            namespace: some("default"),
            agent_id: some("loki-1"),
            message_id: some("m-1"),
            message_type: some("task_complete"),
            task_id: some("t-1"),
            ..Origin::default()
        };
        let text = origin.associated_data();
        assert_eq!(text, r#"["default","loki-1",null,"m-1","task_complete","t-1",null]"#);
        assert!(include_str!("../../../docs/protocol.md").contains(&text));
    }
}
