//! One codec for every record on disk: a version byte, then bincode with a size limit. It knows
//! no record type.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{BorrowDecode, Decode, Encode};

/// The version that this program writes. An old number is never given another meaning.
pub const VERSION: u8 = 1;

/// The largest record that is read back. A message is at most 1 MiB and its body is not part of
/// its record, so anything larger is damage.
pub const RECORD_BYTES_MAX: usize = 4 << 20;

/// Room that is made for a record before it is encoded: one that accepts a message has about 400
/// bytes, and to grow there from nothing takes eight moves.
const RECORD_BYTES_USUAL: usize = 512;

type Limited = Configuration<LittleEndian, Fixint, Limit<RECORD_BYTES_MAX>>;

fn configuration() -> Limited {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<RECORD_BYTES_MAX>()
}

/// A record could not be encoded or read back.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The first byte names a version that this program does not know.
    #[error("record has version {0}, this program reads version {VERSION}; use a newer program")]
    Version(u8),
    /// The record is empty.
    #[error("record is empty")]
    Empty,
    /// The bytes are not a record of this type.
    #[error("record cannot be decoded: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The value does not fit the limit of a record.
    #[error("record cannot be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

/// The bytes of `value`.
///
/// # Errors
/// When it is larger than [`RECORD_BYTES_MAX`].
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES_USUAL);
    encode_to(&mut bytes, value)?;
    Ok(bytes)
}

/// Appends the bytes of `value`; nothing after an error.
///
/// # Errors
/// When it is larger than [`RECORD_BYTES_MAX`].
pub(crate) fn encode_to<T: Encode>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let before = bytes.len();
    bytes.push(VERSION);
    let done = bincode::encode_into_std_write(value, bytes, configuration());
    if done.is_err() {
        bytes.truncate(before);
    }
    done?;
    Ok(())
}

/// Appends `value` without a version: a part of something that has one.
///
/// # Errors
/// When it is larger than [`RECORD_BYTES_MAX`].
pub(crate) fn append<T: Encode>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    bincode::encode_into_std_write(value, bytes, configuration())?;
    Ok(())
}

/// Takes off the value that [`append`] wrote.
///
/// # Errors
/// When the bytes do not begin with such a value.
pub(crate) fn take<T: Decode<()>>(bytes: &mut &[u8]) -> Result<T, CodecError> {
    let (value, length) = bincode::decode_from_slice(bytes, configuration())?;
    *bytes = bytes.get(length..).unwrap_or_default();
    Ok(value)
}

/// The value that [`encode`] wrote.
///
/// # Errors
/// When the version is unknown or the bytes are not such a value.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    Ok(bincode::decode_from_slice(rest, configuration())?.0)
}

/// The beginning of the value that [`encode`] wrote, which may borrow from the bytes.
///
/// # Errors
/// When the version is unknown or the bytes do not begin with such values.
pub(crate) fn begin<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let (&version, rest) = bytes.split_first().ok_or(CodecError::Empty)?;
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    Ok(bincode::borrow_decode_from_slice(rest, configuration())?.0)
}
