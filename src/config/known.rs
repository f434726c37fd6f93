//! One row a setting: its key path, its environment variable, and the field it fills. Everything
//! that treats all settings alike (reading, checking, showing, documenting) walks these rows.

use super::error::ConfigError;
use super::field::{Field, Raw, Refused};
use super::secret::REDACTED;
use super::source::Source;

/// A known setting of the configuration `C`.
pub(super) struct Known<C> {
    /// The key path in the file.
    pub(super) key: &'static str,
    /// The environment variable, if there is one.
    pub(super) variable: Option<&'static str>,
    /// Whether the variable says the opposite of the key.
    negated: bool,
    /// Whether the file may hold it.
    pub(super) in_file: bool,
    field: fn(&mut C) -> &mut dyn Field,
}

impl<C> Known<C> {
    /// A setting of the file.
    pub(super) const fn key(key: &'static str, field: fn(&mut C) -> &mut dyn Field) -> Self {
        Self { key, variable: None, negated: false, in_file: true, field }
    }

    /// And of this environment variable.
    pub(super) const fn variable(mut self, name: &'static str) -> Self {
        self.variable = Some(name);
        self
    }

    /// And of this environment variable, which says the opposite of the key.
    pub(super) const fn opposite(mut self, name: &'static str) -> Self {
        self.variable = Some(name);
        self.negated = true;
        self
    }

    /// Not of the file.
    pub(super) const fn outside_the_file(mut self) -> Self {
        self.in_file = false;
        self
    }

    /// Reads what `source` gives into the field.
    pub(super) fn set(
        &self,
        config: &mut C,
        raw: Raw<'_>,
        source: &Source,
    ) -> Result<(), ConfigError> {
        let read = if self.negated && matches!(source, Source::Environment(_)) {
            let mut opposite = false;
            opposite.read(raw).and_then(|()| {
                let text = (!opposite).to_string();
                (self.field)(config).read(Raw::Text(&text))
            })
        } else {
            (self.field)(config).read(raw)
        };
        read.map_err(|refused| match refused {
            Refused::Inside(error) => *error,
            Refused::Expected(expected) => {
                self.bad_value(config, raw.quoted(), source.clone(), expected)
            }
        })
    }

    /// The error of a value that is not what it should be.
    pub(super) fn bad_value(
        &self,
        config: &mut C,
        value: String,
        source_of_value: Source,
        expected: &str,
    ) -> ConfigError {
        let secret = (self.field)(config).is_secret();
        ConfigError::BadValue {
            source_of_value,
            key: self.key.to_owned(),
            value: if secret { REDACTED.to_owned() } else { value },
            expected: expected.to_owned(),
        }
    }

    /// The value as it stands, `***` for a secret.
    pub(super) fn show(&self, config: &mut C) -> Option<String> {
        (self.field)(config).show()
    }
}

/// The distance up to which a name counts as a slip of the pen.
const NEAR_DISTANCE_MAX: usize = 3;

/// The name closest to `given`, unless all are far.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(given, name);
    let closest = names.map(|name| (distance(name), name)).min()?;
    (closest.0 <= NEAR_DISTANCE_MAX.min(given.chars().count() / 2)).then_some(closest.1)
}
