//! How single values are written and read: times, amounts, lists that may be `null`. It knows no
//! payload.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A value that may be `null`, which stands for the default.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A raw value in which `null` is a value, and only a missing field is absence.
pub(super) fn present<'de, D>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error>
where
    D: Deserializer<'de>,
{
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// A number that is written without a fraction when it has none, as people write seconds.
pub(super) mod amount {
    use super::{Serialize, Serializer};

    /// Integers up to this are exact in a double.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in super::super) fn serialize<S: Serializer>(
        amount: &Option<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match amount {
            Some(whole) if whole.fract() == 0.0 && (0.0..EXACT_MAX).contains(whole) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "the value is whole and within the range"
                )]
                serializer.serialize_u64(*whole as u64)
            }
            other => other.serialize(serializer),
        }
    }
}

/// A time as RFC 3339 text.
pub(super) mod time {
    use serde::de::Error as _;

    use super::{Deserialize, Deserializer, Serialize, Serializer};
    use crate::clock::{Millis, rfc3339};
    use crate::protocol::parse_time;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in super::super) fn serialize<S: Serializer>(
        time: &Option<Millis>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(rfc3339).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, De: Deserializer<'de>>(
        deserializer: De,
    ) -> Result<Option<Millis>, De::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        parse_time(&text).map(Some).ok_or_else(|| De::Error::custom("not an rfc 3339 time"))
    }
}
