//! Rules about values that hold wherever they were given. Pure; each rule names its setting.

use std::path::Path;
use std::time::Duration;

use reqwest::Url;

use super::secret::Secret;

/// What an id may be, as errors say it.
pub(super) const ID: &str = "1 to 128 of A-Z a-z 0-9 . _ : -";

/// What a path may be, as errors say it.
pub(super) const PATH: &str = "a path that is not empty";

/// What a token may be, as errors say it.
pub(super) const TOKEN: &str = "visible ascii characters without spaces";

/// The longest id.
const ID_BYTES_MAX: usize = 128;

/// Longer than anything that a person means: it keeps sums of times far from overflowing.
const DURATION_MAX: Duration = Duration::from_hours(100 * 365 * 24);

/// What a duration may be, as errors say it.
const POSITIVE: &str = "more than 0, at most 36500d";

/// A rule: the setting it is about, whether it holds, and what was expected.
pub(super) type Rule = (&'static str, bool, &'static str);

/// Whether a text can be an agent id, a namespace or an agent type.
pub(super) fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// A rule about a time span that must not be zero.
pub(super) fn positive(key: &'static str, duration: Duration) -> Rule {
    (key, !duration.is_zero() && duration <= DURATION_MAX, POSITIVE)
}

/// A rule about a time span that may be zero.
pub(super) fn bounded(key: &'static str, duration: Duration) -> Rule {
    (key, duration <= DURATION_MAX, "at most 36500d")
}

/// A rule about a list of ids.
pub(super) fn ids(key: &'static str, list: &[String]) -> Rule {
    (key, list.iter().all(|id| is_id(id)), "a list of ids, each 1 to 128 of A-Z a-z 0-9 . _ : -")
}

/// A rule about a list of prefixes of state keys.
pub(super) fn prefixes(key: &'static str, list: &[String]) -> Rule {
    (key, list.iter().all(|prefix| !prefix.is_empty()), "a list of prefixes, none of them empty")
}

/// Whether a text is the address of a server: http or https, a host, and nothing that belongs
/// into a request.
pub(super) fn is_endpoint(text: &str) -> bool {
    // The parser forgives missing and superfluous slashes, and spaces; whoever reads it does not.
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let is_plain = rest.starts_with(|first: char| first.is_alphanumeric() || first == '[')
        && !rest.contains(char::is_whitespace);
    let Ok(url) = Url::parse(text) else { return false };
    is_http
        && is_plain
        && url.has_host()
        && url.port() != Some(0)
        && !has_password(&url)
        && url.query().is_none()
        && url.fragment().is_none()
}

fn has_password(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Whether a path names anything.
pub(super) fn is_path(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// Whether a token can travel in a header.
pub(super) fn is_token(token: &Secret) -> bool {
    let clear = token.reveal();
    !clear.is_empty() && clear.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a list of host names is expected to be.
pub(super) const NAMES: &str = "a list of host names without ports";

/// Whether a text can be a host name.
pub(super) fn is_name(text: &str) -> bool {
    is_host(text) && !text.contains(':')
}

/// Whether a text can be the name or the address of a machine.
pub(super) fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}
