//! The small environment that a command inherits. It reads nothing itself: a command must not see
//! the tokens and keys of the bridge.

use std::ffi::{OsStr, OsString};

/// What a program needs to find others, its user's files, and the language to speak.
const ALLOWED: [&str; 10] =
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "TZ", "SHELL", "TERM", "XDG_RUNTIME_DIR"];

/// Locale categories come in numbers.
const ALLOWED_PREFIX: &str = "LC_";

/// The variable that marks every process of a run; its value is the run's folder. It also lets a
/// later bridge find the processes of a supervisor that was killed.
pub(super) const RUN_VARIABLE: &str = "LOKI_RUN";

/// Those of `variables` that a command may see: the allow-list, and the names in `pass`.
pub(super) fn inherited<'a>(
    variables: impl Iterator<Item = (OsString, OsString)> + 'a,
    pass: &'a [String],
) -> impl Iterator<Item = (OsString, OsString)> + 'a {
    variables.filter(move |(name, _)| {
        allowed(name) || pass.iter().any(|passed| name == OsStr::new(passed))
    })
}

fn allowed(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| ALLOWED.contains(&name) || name.starts_with(ALLOWED_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_and_passed_variables_are_inherited() {
        let names = ["PATH", "LC_TIME", "LOKI_OPENCLAW_AUTH_TOKEN", "MY_KEY", "HOMER"];
        let variables = names.map(|name| (OsString::from(name), OsString::from("x")));
        let seen: Vec<_> = inherited(variables.into_iter(), &["MY_KEY".to_owned()])
            .map(|(name, _)| name)
            .collect();
        assert_eq!(seen, ["PATH", "LC_TIME", "MY_KEY"]);
    }
}
