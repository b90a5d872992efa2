//! Keys that are cold: their state bytes are kept by the host, and come back before an event or a row needs them.
//!
//! The kernel does no input or output. It hands over names and bytes, a batch of keys in one call, and asks for them again by
//! name. A name is the entity's number (u16, big-endian) and the key's text, so that the keys of an entity lie together.

use crate::bytes::broken;
use crate::error::Result;

/// Byte strings, one behind the other.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Packed {
    /// Append a string that is made of parts.
    pub fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// String number `i`.
    pub fn get(&self, i: usize) -> &[u8] {
        let begin = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[begin..self.ends[i]]
    }

    /// All strings.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// Keys to be kept: names, states, and each name once more behind the time from which nothing can read it.
#[derive(Debug, Default)]
pub struct Leaving {
    pub names: Packed,
    pub states: Packed,
    /// [`expiry_name`] of each.
    pub expiries: Packed,
}

/// Where the host keeps cold keys.
pub trait ColdKeys: Send + Sync {
    /// The state of each name as [`Self::keep`] got it last; an empty string for a name that is not kept.
    ///
    /// # Errors
    /// The host cannot read.
    fn fetch(&self, names: &Packed) -> Result<Packed>;

    /// Keep states, in place of older ones of the same names.
    ///
    /// # Errors
    /// The host cannot write.
    fn keep(&self, keys: &Leaving) -> Result<()>;

    /// Expiry names from `begin` up to, not including, `end`, in their order; `most` at the most.
    ///
    /// # Errors
    /// The host cannot read.
    fn expiries(&self, begin: &[u8], end: &[u8], most: usize) -> Result<Packed>;

    /// The first names from `begin` on, in their order, with their states; `most` at the most.
    ///
    /// # Errors
    /// The host cannot read.
    fn names_from(&self, begin: &[u8], most: usize) -> Result<(Packed, Packed)>;

    /// Forget names and expiry names.
    ///
    /// # Errors
    /// The host cannot write.
    fn forget(&self, names: &Packed, expiries: &Packed) -> Result<()>;
}

/// Bytes of a name before its key.
pub const PREFIX: usize = 2;
/// Bytes of an expiry name before its key.
pub const EXPIRY_PREFIX: usize = PREFIX + 8;

/// The name of a key begins with this.
pub fn prefix(entity: u16) -> [u8; PREFIX] {
    entity.to_be_bytes()
}

/// The entity and the key of a name.
///
/// # Errors
/// Bytes that are no name.
pub fn named(name: &[u8]) -> Result<(u16, &str)> {
    let (prefix, key) = name.split_first_chunk().ok_or_else(|| broken("a name that is too short"))?;
    Ok((u16::from_be_bytes(*prefix), std::str::from_utf8(key).map_err(|_| broken("a key that is no UTF-8"))?))
}

/// What stands before a key in its expiry name: these sort by entity, then by time.
pub fn expiry_prefix(prefix: [u8; PREFIX], expires: i64) -> [u8; EXPIRY_PREFIX] {
    let mut out = [0; EXPIRY_PREFIX];
    out[..PREFIX].copy_from_slice(&prefix);
    out[PREFIX..].copy_from_slice(&((expires as u64) ^ (1 << 63)).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_names_sort_by_entity_and_time() {
        let times = [i64::MIN, -5, -1, 0, 1, 1 << 40, i64::MAX];
        let names: Vec<_> = (0..3).flat_map(|e| times.map(|time| expiry_prefix(prefix(e), time))).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_name_says_whose_it_is() {
        assert_eq!(named(&[&prefix(258)[..], "köln".as_bytes()].concat()).expect("a name"), (258, "köln"));
        assert!(named(&[1]).is_err() && named(&[0, 1, 0xFF]).is_err());
    }

    #[test]
    fn strings_come_out_as_they_went_in() {
        let mut packed = Packed::default();
        packed.push(&[b"ab", b"", b"c"]);
        packed.push(&[]);
        packed.push(&[b"d"]);
        assert_eq!(packed.iter().collect::<Vec<_>>(), [b"abc".as_slice(), b"", b"d"]);
    }
}
