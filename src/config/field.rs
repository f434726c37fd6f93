//! How a value of each type is read from text or from a file, and shown again. Knows no setting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::secret::{REDACTED, Secret};
use super::yaml::{Node, Value};

/// What was given for a setting.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// By a flag or an environment variable.
    Text(&'a str),
    /// By the file at this path.
    Node(&'a Path, &'a Node),
}

impl Raw<'_> {
    /// The value as an error shows it.
    pub(super) fn quoted(&self) -> String {
        match self {
            Self::Text(text) => format!("`{text}`"),
            Self::Node(_, node) => node.quoted(),
        }
    }

    /// The text without spaces around it, for an enumeration.
    pub(super) fn word(&self) -> Option<&str> {
        self.text().map(str::trim)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Node(_, Node { value: Value::Text(text), .. }) => Some(text),
            Self::Node(..) => None,
        }
    }

    pub(super) fn integer<T: TryFrom<i64>>(&self) -> Option<T> {
        let integer = match self {
            Self::Text(text) => text.trim().parse().ok()?,
            Self::Node(_, Node { value: Value::Integer(integer), .. }) => *integer,
            Self::Node(..) => return None,
        };
        T::try_from(integer).ok()
    }
}

/// Why a value was refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// The whole value is not this.
    Expected(&'static str),
    /// Something inside the value is wrong, and the error already says where.
    Inside(Box<ConfigError>),
}

/// A type that a setting can have.
pub(super) trait Field {
    /// Replaces the value by what was given.
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused>;

    /// The value in the notation of the file; `None` when there is none.
    fn show(&self) -> Option<String>;

    /// Whether the value must never be shown.
    fn is_secret(&self) -> bool {
        false
    }
}

/// Assigns what was read, or says what was expected.
pub(super) fn assign<T>(
    target: &mut T,
    read: Option<T>,
    expected: &'static str,
) -> Result<(), Refused> {
    *target = read.ok_or(Refused::Expected(expected))?;
    Ok(())
}

impl Field for bool {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = match raw {
            Raw::Text(text) => text.trim().to_ascii_lowercase().parse().ok(),
            Raw::Node(_, Node { value: Value::Boolean(value), .. }) => Some(*value),
            Raw::Node(..) => None,
        };
        assign(self, read, "true or false")
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for u32 {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        assign(self, raw.integer(), "a whole number, 0 or more")
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for u16 {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        assign(self, raw.integer(), "a port from 0 to 65535")
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for f64 {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = match raw {
            Raw::Text(text) => text.trim().parse().ok(),
            Raw::Node(_, Node { value: Value::Float(value), .. }) => Some(*value),
            Raw::Node(..) => raw.integer::<i32>().map(Self::from),
        };
        assign(self, read.filter(|value: &Self| value.is_finite()), "a number")
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for String {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        assign(self, raw.text().map(Self::from), "text (a number needs quotes)")
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Field for PathBuf {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        assign(self, raw.text().map(Self::from), "a path")
    }

    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl Field for SocketAddr {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = raw.text().and_then(|text| text.trim().parse().ok());
        assign(self, read, "an ip address and a port, as in 0.0.0.0:8080")
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Field for Secret {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        assign(self, raw.text().map(Self::new), "text (a number needs quotes)")
    }

    fn show(&self) -> Option<String> {
        Some(REDACTED.to_owned())
    }

    fn is_secret(&self) -> bool {
        true
    }
}

impl Field for Duration {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = match raw {
            Raw::Node(_, Node { value: Value::Float(_), .. }) => None,
            Raw::Node(_, Node { value: Value::Integer(_), .. }) => {
                raw.integer().map(Duration::from_secs)
            }
            _ => raw.text().and_then(parse_duration),
        };
        assign(self, read, "whole seconds, or a whole number with ms, s, m, h or d")
    }

    fn show(&self) -> Option<String> {
        Some(show_duration(*self))
    }
}

/// The units of a duration and their milliseconds. `ms` is tried first, because it ends in `s`.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (count, unit) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
        .unwrap_or((text, 1_000));
    let count: u64 = count.trim_end().parse().ok()?;
    count.checked_mul(unit).map(Duration::from_millis)
}

/// A duration in the largest unit that holds it without a rest.
fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |unit: u64| millis >= unit && millis.is_multiple_of(unit);
    let unit = UNITS[1..].iter().find(|(_, unit)| fits(*unit)).unwrap_or(&UNITS[0]);
    if millis == 0 { "0s".to_owned() } else { format!("{}{}", millis / unit.1, unit.0) }
}

impl Field for Vec<String> {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = match raw {
            Raw::Text(text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(String::from).collect())
            }
            Raw::Node(_, Node { value: Value::List(items), .. }) => {
                items.iter().map(text_of).collect()
            }
            Raw::Node(..) => None,
        };
        assign(self, read, "a list of texts")
    }

    fn show(&self) -> Option<String> {
        Some(format!("[{}]", self.join(", ")))
    }
}

fn text_of(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

impl Field for BTreeMap<String, Secret> {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let read = match raw {
            Raw::Node(_, Node { value: Value::Map(entries), .. }) => entries
                .iter()
                .map(|entry| match text_of(&entry.node) {
                    Some(text) if !entry.repeated => Some((entry.key.clone(), Secret::new(text))),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        assign(self, read, "names with one text each (a number needs quotes)")
    }

    fn show(&self) -> Option<String> {
        let names: Vec<&str> = self.keys().map(String::as_str).collect();
        Some(format!("[{}]", names.join(", ")))
    }

    fn is_secret(&self) -> bool {
        true
    }
}

impl<T: Field + Default> Field for Option<T> {
    fn read(&mut self, raw: Raw<'_>) -> Result<(), Refused> {
        let mut value = T::default();
        value.read(raw)?;
        *self = Some(value);
        Ok(())
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Field::show)
    }

    fn is_secret(&self) -> bool {
        T::default().is_secret()
    }
}

/// Declares an enumeration that is written as one of a few lower-case words.
macro_rules! choice {
    (
        $(#[$about:meta])* $name:ident, expected $expected:literal,
        { $($(#[$each:meta])* $variant:ident = $word:literal),+ $(,)? }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name {
            $($(#[$each])* $variant),+
        }

        impl $name {
            /// The word that stands for it in the file and in the environment.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl $crate::config::field::Field for $name {
            fn read(
                &mut self,
                raw: $crate::config::field::Raw<'_>,
            ) -> Result<(), $crate::config::field::Refused> {
                *self = match raw.word() {
                    $(Some($word) => Self::$variant,)+
                    _ => return Err($crate::config::field::Refused::Expected($expected)),
                };
                Ok(())
            }

            fn show(&self) -> Option<String> {
                Some(self.as_str().to_owned())
            }
        }
    };
}
pub(super) use choice;
