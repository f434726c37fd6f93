//! The agent types of Loki Mode and the task types that they serve. Who is connected and free is
//! not known here.

/// The 41 agent types.
pub const AGENT_TYPES: [&str; 41] = [
    "eng-frontend",
    "eng-backend",
    "eng-database",
    "eng-mobile",
    "eng-api",
    "eng-qa",
    "eng-perf",
    "eng-infra",
    "ops-devops",
    "ops-sre",
    "ops-security",
    "ops-monitor",
    "ops-incident",
    "ops-release",
    "ops-cost",
    "ops-compliance",
    "biz-marketing",
    "biz-sales",
    "biz-finance",
    "biz-legal",
    "biz-support",
    "biz-hr",
    "biz-investor",
    "biz-partnerships",
    "data-ml",
    "data-eng",
    "data-analytics",
    "prod-pm",
    "prod-design",
    "prod-techwriter",
    "growth-hacker",
    "growth-community",
    "growth-success",
    "growth-lifecycle",
    "review-code",
    "review-business",
    "review-security",
    "orch-coordinator",
    "orch-judge",
    "orch-planner",
    "orch-sub-planner",
];

/// Task types and the agent types that serve them, the best first. A trailing `*` stands for any
/// ending.
const SERVED_BY: [(&str, &[&str]); 19] = [
    ("code_review", &["review-code"]),
    ("security_audit", &["review-security", "ops-security"]),
    ("testing", &["eng-qa"]),
    ("deployment", &["ops-devops", "ops-release"]),
    ("frontend_development", &["eng-frontend"]),
    ("backend_development", &["eng-backend"]),
    ("api_development", &["eng-api"]),
    ("mobile_development", &["eng-mobile"]),
    ("database", &["eng-database"]),
    ("performance", &["eng-perf"]),
    ("infrastructure", &["eng-infra", "ops-devops"]),
    ("data_analysis", &["data-analytics"]),
    ("machine_learning", &["data-ml"]),
    ("documentation", &["prod-techwriter"]),
    ("design", &["prod-design"]),
    ("planning", &["orch-planner", "prod-pm"]),
    ("full_stack_development", &["eng-*"]),
    ("general", &["eng-*"]),
    ("business_operations", &["biz-*"]),
];

/// The capabilities that Loki Mode registers unless it is told others.
pub const CAPABILITIES: [&str; 5] =
    ["full_stack_development", "code_review", "testing", "deployment", "business_operations"];

/// The task type of a task that names none.
pub const DEFAULT_TASK_TYPE: &str = "general";

/// The task types that have agent types of their own.
pub fn task_types() -> impl Iterator<Item = &'static str> {
    SERVED_BY.into_iter().map(|row| row.0)
}

/// Whether `name` is one of the 41 agent types.
pub fn is_agent_type(name: &str) -> bool {
    AGENT_TYPES.contains(&name)
}

/// Those of `declared` that serve `task_type`, the best first. A task type that is the name of a
/// declared agent type is served by it alone; a task type that nobody knows by nobody.
pub fn agent_types_for<'a, S: AsRef<str>>(task_type: &str, declared: &'a [S]) -> Vec<&'a str> {
    let declared = || declared.iter().map(AsRef::as_ref);
    if let Some(same) = declared().find(|agent_type| *agent_type == task_type) {
        return vec![same];
    }
    let Some((_, patterns)) = SERVED_BY.iter().find(|row| row.0 == task_type) else {
        return Vec::new();
    };
    let mut serving = Vec::new();
    for pattern in *patterns {
        for agent_type in declared().filter(|agent_type| matches(pattern, agent_type)) {
            if !serving.contains(&agent_type) {
                serving.push(agent_type);
            }
        }
    }
    serving
}

/// Whether one of `declared` serves `task_type`.
pub fn serves<S: AsRef<str>>(task_type: &str, declared: &[S]) -> bool {
    !agent_types_for(task_type, declared).is_empty()
}

fn matches(pattern: &str, agent_type: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => agent_type.starts_with(prefix),
        None => agent_type == pattern,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn agent_types_are_distinct_and_every_row_names_some() {
        assert_eq!(AGENT_TYPES.into_iter().collect::<BTreeSet<_>>().len(), 41);
        for (task_type, patterns) in SERVED_BY {
            for pattern in patterns {
                let known = AGENT_TYPES.iter().any(|agent_type| matches(pattern, agent_type));
                assert!(known, "{task_type} is served by {pattern}");
            }
        }
        assert!(CAPABILITIES.iter().all(|name| task_types().any(|known| known == *name)));
        assert!(is_agent_type("orch-judge") && !is_agent_type("judge"));
        assert!(task_types().any(|known| known == DEFAULT_TASK_TYPE));
    }

    #[test]
    fn a_task_type_is_served_by_its_agent_types() {
        let served = |task_type: &str| agent_types_for(task_type, &AGENT_TYPES);
        assert_eq!(served("code_review"), ["review-code"]);
        assert_eq!(served("security_audit"), ["review-security", "ops-security"]);
        assert_eq!(served("planning"), ["orch-planner", "prod-pm"]);
        assert_eq!(served("full_stack_development").len(), 8);
        assert_eq!(served("general"), served("full_stack_development"));
        assert_eq!(served("business_operations").len(), 8);
        assert_eq!(served("ops-sre"), ["ops-sre"]);
        assert!(served("gardening").is_empty());
    }

    #[test]
    fn only_declared_agent_types_serve() {
        let declared = ["biz-zoo".to_owned(), "eng-qa".to_owned(), "gardening".to_owned()];
        assert_eq!(agent_types_for("business_operations", &declared), ["biz-zoo"]);
        assert_eq!(agent_types_for("gardening", &declared), ["gardening"]);
        assert_eq!(agent_types_for("general", &declared), ["eng-qa"]);
        assert!(!serves("code_review", &declared) && serves("testing", &declared));
        assert!(agent_types_for("testing", &[] as &[&str]).is_empty());
    }
}
