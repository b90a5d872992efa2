//! Why a record was rejected: stable codes for metrics and headers, and a short text for people.

use std::fmt;

/// Why a record does not become a row. The codes are part of the public contract of `<stream>.malformed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No bytes, or white space only: a tombstone.
    EmptyRecord,
    /// The record has more bytes than `max_record_bytes`, or a text more than its column's `max_bytes`.
    TooLarge,
    /// The bytes are not UTF-8, or a text holds half of a surrogate pair (`"\ud800"`).
    NotUtf8,
    /// Not one whole JSON value as RFC 8259 has it. `NaN` and `Infinity` are no JSON.
    NotJson,
    /// A JSON value, but not an object.
    NotAnObject,
    /// Objects and arrays are nested deeper than `max_depth`.
    TooDeep,
    /// A field of the schema occurs twice.
    DuplicateField,
    /// A field of a column that is not nullable is not there.
    MissingField,
    /// `null` in a column that is not nullable.
    NullValue,
    /// `null` in a key column that is not nullable.
    NullKey,
    /// `""` in a key column that is not nullable.
    EmptyKey,
    /// `null` or `""` in the id column.
    NullId,
    /// A value of another JSON type, a fraction or an exponent where an integer is due, or text that is no decimal number.
    WrongType,
    /// Outside of the column's bounds, or of what its type can hold.
    OutOfRange,
    /// A float that is infinite or not a number.
    NotFinite,
    /// A decimal with more digits after the point than the column's scale, other than zeros.
    InexactDecimal,
    /// Text that is no RFC 3339 instant.
    BadTimestamp,
    /// The bytes before the record do not say which schema it was written with: no magic byte, no id, no list of indices.
    BadFraming,
    /// The registry has no schema of the record's id, or none of those that were given has its fingerprint.
    UnknownSchema,
    /// The schema of the record's id cannot be used: of another format, not readable, too large.
    BadSchema,
    /// Not one whole Avro record of its schema.
    NotAvro,
    /// Not a whole Protobuf message.
    NotProtobuf,
    /// A number that the message's enum has no name for.
    UnknownSymbol,
}

impl Reason {
    /// All reasons, for documentation and for metrics that start at zero.
    pub const ALL: [Self; 23] = [
        Self::EmptyRecord,
        Self::TooLarge,
        Self::NotUtf8,
        Self::NotJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::DuplicateField,
        Self::MissingField,
        Self::NullValue,
        Self::NullKey,
        Self::EmptyKey,
        Self::NullId,
        Self::WrongType,
        Self::OutOfRange,
        Self::NotFinite,
        Self::InexactDecimal,
        Self::BadTimestamp,
        Self::BadFraming,
        Self::UnknownSchema,
        Self::BadSchema,
        Self::NotAvro,
        Self::NotProtobuf,
        Self::UnknownSymbol,
    ];

    /// The stable code, as headers and metrics carry it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmptyRecord => "empty_record",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::DuplicateField => "duplicate_field",
            Self::MissingField => "missing_field",
            Self::NullValue => "null_value",
            Self::NullKey => "null_key",
            Self::EmptyKey => "empty_key",
            Self::NullId => "null_id",
            Self::WrongType => "wrong_type",
            Self::OutOfRange => "out_of_range",
            Self::NotFinite => "not_finite",
            Self::InexactDecimal => "inexact_decimal",
            Self::BadTimestamp => "bad_timestamp",
            Self::BadFraming => "bad_framing",
            Self::UnknownSchema => "unknown_schema",
            Self::BadSchema => "bad_schema",
            Self::NotAvro => "not_avro",
            Self::NotProtobuf => "not_protobuf",
            Self::UnknownSymbol => "unknown_symbol",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A record that did not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The record's index in the input.
    pub index: u32,
    /// The stable code.
    pub reason: Reason,
    /// Names the column and shows a bounded, escaped excerpt of the value; never the whole record.
    pub detail: String,
}

/// Why the parser gives up on a record, or on one of its fields.
#[derive(Debug)]
pub(crate) struct Fault {
    pub reason: Reason,
    pub detail: String,
}

/// Boxed, so that the happy path returns one pointer.
pub(crate) type Parse<T> = Result<T, Box<Fault>>;

#[cold]
pub(crate) fn fault(reason: Reason, detail: impl Into<String>) -> Box<Fault> {
    Box::new(Fault { reason, detail: detail.into() })
}

/// The longest excerpt in a detail, in bytes of the original value.
const EXCERPT_BYTES: usize = 40;

/// Show the start of a value: printable ASCII as it is, all else escaped, bounded.
#[cold]
pub(crate) fn excerpt(value: &[u8]) -> String {
    let shown = value[..value.len().min(EXCERPT_BYTES)].escape_ascii().to_string();
    if value.len() > EXCERPT_BYTES {
        format!("{shown}… ({} bytes)", value.len())
    } else {
        shown
    }
}
