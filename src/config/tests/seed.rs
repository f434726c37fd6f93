//! The YAML that the integration guide prints, word for word.

use super::*;

const FULL: &str = "\
# .loki/config.yaml
openclaw:
  enabled: true
  endpoint: http://openclaw-server:8080
  agent_id: loki-primary
  namespace: production
  heartbeat_interval: 30
  message_timeout: 120
  features:
    task_sharing: true
    state_sync: true
    capabilities_discovery: true
";

const DISTRIBUTED: &str = "\
# Distribute tasks across multiple Loki instances
openclaw:
  enabled: true
  endpoint: http://openclaw-lb:8080
  features:
    task_sharing: true

# Loki instance 1 (frontend)
agents:
  - eng-frontend
  - eng-mobile

# Loki instance 2 (backend)
agents:
  - eng-backend
  - eng-database

# Loki instance 3 (ops)
agents:
  - ops-devops
  - ops-sre
";

const AUTHORIZATION: &str = "\
openclaw:
  authorization:
    enabled: true
    allowed_agents:
      - autogpt-production
      - metagpt-staging
    allowed_namespaces:
      - production
      - staging
";

#[test]
fn the_full_file_is_accepted() {
    let loaded = Fixture::new(FULL).bridge(&[]).unwrap();
    let openclaw = loaded.config.openclaw;
    assert!(openclaw.enabled);
    assert_eq!(openclaw.endpoint.as_deref(), Some("http://openclaw-server:8080"));
    assert_eq!(openclaw.agent_id.as_deref(), Some("loki-primary"));
    assert_eq!(openclaw.namespace, "production");
    assert!(loaded.warnings.is_empty());
}

#[test]
fn the_lists_of_several_instances_are_joined_with_a_warning() {
    let fixture = Fixture::new(DISTRIBUTED);
    let loaded = fixture.bridge(&[]).unwrap();
    let types: Vec<&str> =
        loaded.config.agents.iter().map(|agent| agent.agent_type.as_str()).collect();
    let all =
        ["eng-frontend", "eng-mobile", "eng-backend", "eng-database", "ops-devops", "ops-sre"];
    assert_eq!(types, all);
    let warnings: Vec<String> = loaded.warnings.iter().map(|text| fixture.plain(text)).collect();
    assert_eq!(warnings, ["config.yaml:9: `agents` is given more than once: all are joined"]);
}

#[test]
fn the_authorization_block_is_accepted() {
    let loaded = Fixture::new(AUTHORIZATION).bridge(&[]).unwrap();
    let authorization = loaded.config.openclaw.authorization;
    assert!(authorization.enabled);
    assert_eq!(authorization.allowed_agents, ["autogpt-production", "metagpt-staging"]);
    assert_eq!(authorization.allowed_namespaces, ["production", "staging"]);
}

#[test]
fn the_example_with_claude_is_accepted() {
    let text =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/claude/.loki/config.yaml"));
    let loaded = Fixture::new(text).bridge(&[]).unwrap();
    assert_eq!(loaded.config.provider, crate::config::Provider::Claude);
    assert_eq!(loaded.config.agents.len(), 3);
    assert!(loaded.warnings.is_empty());
}
