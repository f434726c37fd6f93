//! Applies the tables of [`super::rules`] to payload text and names the first field at fault by
//! its path. It reads only the fields that a table names; everything else is left unread.

use serde_json::value::RawValue;

use super::rules::{Kind, Need, Rule, SEALED, SUBMISSION, rules_of};
use crate::protocol::identifier::{TIME_WANTED, is_identifier, parse_time};
use crate::protocol::json::{self, Member};
use crate::protocol::{MessageType, Refusal};

/// Bytes of a label: a state key, a task type, a skill.
const LABEL_BYTES_MAX: usize = 512;

/// Checks the payload of a known type.
pub(super) fn check_payload(message_type: &MessageType, payload: &str) -> Result<(), Refusal> {
    let members = object("payload", payload)?;
    let is_sealed = match json::find(&members, "sealed") {
        Some(sealed) if message_type.is_sealable() => {
            let inner = object("payload.sealed", sealed.value.get())?;
            check_object("payload.sealed", &inner, SEALED, false)?;
            true
        }
        _ => false,
    };
    check_object("payload", &members, rules_of(message_type), is_sealed)?;
    match message_type {
        MessageType::StateSync => check_entries(&members, is_sealed),
        MessageType::CapabilityQuery => check_query(&members),
        _ => Ok(()),
    }
}

/// Checks the body of a task submission.
pub(super) fn check_submission(body: &str) -> Result<(), Refusal> {
    check_object("", &object("body", body)?, SUBMISSION, false)
}

fn object<'a>(path: &str, text: &'a str) -> Result<Vec<Member<'a>>, Refusal> {
    json::members(text).map_err(|_| Refusal::invalid(path, "an object"))
}

fn check_object(
    path: &str,
    members: &[Member<'_>],
    rules: &[Rule],
    is_sealed: bool,
) -> Result<(), Refusal> {
    for rule in rules {
        let path =
            || if path.is_empty() { rule.name.to_owned() } else { format!("{path}.{}", rule.name) };
        let Some(member) = json::find(members, rule.name) else {
            let needed = match rule.need {
                Need::Optional => false,
                Need::Required => true,
                Need::Content => !is_sealed,
            };
            if needed {
                return Err(Refusal::missing(path()));
            }
            continue;
        };
        check_value(&path, member.value, &rule.kind)?;
    }
    Ok(())
}

fn check_value(path: &dyn Fn() -> String, value: &RawValue, kind: &Kind) -> Result<(), Refusal> {
    let fits = match kind {
        Kind::Any => true,
        Kind::Identifier => is_text(value, is_identifier),
        Kind::Text => is_text(value, |_| true),
        Kind::Label => is_text(value, is_label),
        Kind::Time => is_text(value, |text| parse_time(text).is_some()),
        Kind::OneOf(names) => is_text(value, |text| names.contains(&text)),
        Kind::Flag => matches!(value.get(), "true" | "false"),
        Kind::Count(max) => {
            serde_json::from_str::<u64>(value.get()).is_ok_and(|count| count <= *max)
        }
        Kind::Amount => is_number(value, |number| number >= 0.0),
        Kind::Interval => is_number(value, |number| number > 0.0),
        Kind::Ratio => is_number(value, |number| (0.0..=1.0).contains(&number)),
        Kind::Texts => return check_list(path, value, &Kind::Text),
        Kind::Identifiers => return check_list(path, value, &Kind::Identifier),
        Kind::Anything => return check_list(path, value, &Kind::Any),
        Kind::Object(rules) => {
            let path = path();
            return check_object(&path, &object(&path, value.get())?, rules, false);
        }
        Kind::Objects(rules) => return check_list(path, value, &Kind::Object(rules)),
    };
    if fits { Ok(()) } else { Err(Refusal::invalid(path(), &wanted(kind))) }
}

fn check_list(path: &dyn Fn() -> String, value: &RawValue, kind: &Kind) -> Result<(), Refusal> {
    let Ok(elements) = json::elements(value.get()) else {
        return Err(Refusal::invalid(path(), "a list"));
    };
    for (index, element) in elements.into_iter().enumerate() {
        check_value(&|| format!("{}[{index}]", path()), element, kind)?;
    }
    Ok(())
}

fn is_text(value: &RawValue, accepts: impl Fn(&str) -> bool) -> bool {
    json::text(value).is_some_and(|text| accepts(&text))
}

fn is_label(text: &str) -> bool {
    !text.is_empty() && text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control)
}

fn is_number(value: &RawValue, accepts: impl Fn(f64) -> bool) -> bool {
    serde_json::from_str::<f64>(value.get()).is_ok_and(accepts)
}

/// What a value of this kind must be, completing "the field must be ...".
fn wanted(kind: &Kind) -> String {
    match kind {
        Kind::Identifier => "1 to 128 of the characters A-Z a-z 0-9 . _ : -".to_owned(),
        Kind::Text => "a string".to_owned(),
        Kind::Label => {
            format!("a string of 1 to {LABEL_BYTES_MAX} bytes without control characters")
        }
        Kind::Flag => "true or false".to_owned(),
        Kind::Count(max) => format!("a whole number from 0 to {max}"),
        Kind::Amount => "a number from 0".to_owned(),
        Kind::Interval => "a number above 0".to_owned(),
        Kind::Ratio => "a number from 0 to 1".to_owned(),
        Kind::Time => TIME_WANTED.to_owned(),
        Kind::OneOf(names) => format!("one of {}", names.join(", ")),
        Kind::Texts | Kind::Identifiers | Kind::Anything | Kind::Objects(_) => "a list".to_owned(),
        Kind::Any => "any json".to_owned(),
        Kind::Object(_) => "an object".to_owned(),
    }
}

/// An entry sets a value (which may be `null`) or deletes its key.
fn check_entries(members: &[Member<'_>], is_sealed: bool) -> Result<(), Refusal> {
    let Some(entries) = json::find(members, "entries") else { return Ok(()) };
    let entries = json::elements(entries.value.get()).unwrap_or_default();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("payload.entries[{index}]");
        let members = object(&path, entry.get())?;
        let has_value = members.iter().any(|member| member.key == "value");
        let deleted =
            json::find(&members, "deleted").is_some_and(|member| member.value.get() == "true");
        if !has_value && !deleted && !is_sealed {
            return Err(Refusal::missing(format!("{path}.value")));
        }
        if json::find(&members, "value").is_some() && deleted {
            return Err(Refusal::invalid(format!("{path}.value"), "absent when deleted is true"));
        }
    }
    Ok(())
}

/// A query has the value that its type names.
fn check_query(members: &[Member<'_>]) -> Result<(), Refusal> {
    let query_type = json::find(members, "query_type").and_then(|member| json::text(member.value));
    let Some(name) = query_type.as_deref().and_then(|name| name.strip_prefix("supports_")) else {
        return Ok(());
    };
    match json::find(members, name) {
        Some(_) => Ok(()),
        None => Err(Refusal::missing(format!("payload.{name}"))),
    }
}
