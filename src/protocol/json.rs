//! Strict reading of JSON text: no key twice, no deep nesting, members with their exact bytes. It
//! knows no field names.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Keys of one object that are compared one by one before a set is built.
const KEYS_LINEAR_MAX: usize = 16;

/// A string that borrows from its text unless it holds escapes.
#[derive(Deserialize)]
struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);

/// One member of an object, in the order of the text.
pub(super) struct Member<'a> {
    /// The key, without escapes.
    pub key: Cow<'a, str>,
    /// The value's exact text.
    pub value: &'a RawValue,
}

impl Member<'_> {
    /// Whether the value is `null`, which is absence for an optional field.
    pub fn is_null(&self) -> bool {
        self.value.get() == "null"
    }
}

/// The members of the object that `text` is.
pub(super) fn members(text: &str) -> Result<Vec<Member<'_>>, serde_json::Error> {
    serde_json::from_str::<Members<'_>>(text).map(|members| members.0)
}

/// The member called `key`, unless it is absent or `null`.
pub(super) fn find<'m, 'a>(members: &'m [Member<'a>], key: &str) -> Option<&'m Member<'a>> {
    members.iter().find(|member| member.key == key && !member.is_null())
}

/// The string that `value` is; `None` for any other JSON.
pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Borrowed<'_>>(value.get()).ok().map(|borrowed| borrowed.0)
}

/// The elements of the array that `value` is.
pub(super) fn elements(value: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(value)
}

/// Checks that `text` is one JSON value, nested at most 127 deep (the bound of `serde_json`), in
/// which no object has a key twice.
pub(super) fn check(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<Strict>(text).map(|_| ())
}

/// Where `part`, a piece of `whole`, starts in it.
pub(super) fn offset(whole: &[u8], part: &str) -> usize {
    part.as_ptr().addr().saturating_sub(whole.as_ptr().addr())
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(KEYS_LINEAR_MAX);
        while let Some((key, value)) = map.next_entry::<Borrowed<'de>, &'de RawValue>()? {
            members.push(Member { key: key.0, value });
        }
        Ok(Members(members))
    }
}

struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Strict, A::Error> {
        while elements.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut keys = Keys::default();
        while let Some(Borrowed(key)) = map.next_key()? {
            if !keys.insert(key) {
                return Err(de::Error::custom("duplicate key"));
            }
            map.next_value::<Strict>()?;
        }
        Ok(Strict)
    }
}

/// The keys seen in one object.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<Cow<'a, str>>,
    many: BTreeSet<Cow<'a, str>>,
}

impl<'a> Keys<'a> {
    /// Adds `key`; false when it was there.
    fn insert(&mut self, key: Cow<'a, str>) -> bool {
        if self.few.contains(&key) {
            return false;
        }
        if self.few.len() < KEYS_LINEAR_MAX {
            self.few.push(key);
            return true;
        }
        self.many.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_is_found_at_any_depth_and_under_any_spelling() {
        let many: Vec<_> = (0..40).map(|key| format!("\"k{key}\":0")).collect();
        let late = format!("{{{},\"k39\":1}}", many.join(","));
        for text in
            [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"\u0061":2}}]"#, r#"{"":0,"":0}"#, late.as_str()]
        {
            let error = check(text).unwrap_err().to_string();
            assert!(error.starts_with("duplicate key at line 1"), "{error}");
        }
        for text in [r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#, "null", "-1.5e3", "[]"] {
            check(text).unwrap();
        }
        check(&format!("{{{}}}", many.join(","))).unwrap();
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        check(&nested(100)).unwrap();
        check(&nested(200)).unwrap_err();
        check(&"[".repeat(1_000_000)).unwrap_err();
    }

    #[test]
    fn members_keep_their_text_and_order() {
        let text = r#"{ "b" : 1.50 , "\u0061":{"x": [1, 2]},"n":null}"#;
        let members = members(text).unwrap();
        let seen: Vec<_> = members.iter().map(|m| (m.key.as_ref(), m.value.get())).collect();
        assert_eq!(seen, [("b", "1.50"), ("a", r#"{"x": [1, 2]}"#), ("n", "null")]);
        assert_eq!(offset(text.as_bytes(), members[0].value.get()), 8);
        assert!(find(&members, "n").is_none() && find(&members, "a").is_some());
    }
}
