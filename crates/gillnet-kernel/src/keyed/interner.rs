//! Strings of one entity's lanes as numbers, counted, so that a string leaves memory with its last event.

use compact_str::CompactString;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

use super::paged::Paged;

/// Maps strings to dense codes. A code is valid while at least one event holds it.
#[derive(Debug, Default)]
pub struct Interner {
    codes: HashTable<u32>,
    entries: Paged<(CompactString, u32)>,
    hasher: DefaultHashBuilder,
}

impl Interner {
    /// The code of `text`, with one more holder.
    pub fn acquire(&mut self, text: &str) -> u64 {
        let hash = self.hasher.hash_one(text);
        if let Some(&code) = self.codes.find(hash, |&code| self.entries[code].0 == text) {
            self.entries[code].1 += 1;
            return u64::from(code);
        }
        let code = self.entries.insert((CompactString::from(text), 1));
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.codes.insert_unique(hash, code, |&code| hasher.hash_one(entries[code].0.as_str()));
        u64::from(code)
    }

    /// One holder less; the string is forgotten with the last one.
    pub fn release(&mut self, code: u64) {
        let code = code as u32;
        let entry = &mut self.entries[code];
        entry.1 -= 1;
        if entry.1 > 0 {
            return;
        }
        let (text, _) = self.entries.remove(code);
        let hash = self.hasher.hash_one(text.as_str());
        if let Ok(found) = self.codes.find_entry(hash, |&other| other == code) {
            found.remove();
        }
    }

    /// Give the index's memory back once most of it is unused.
    pub fn shrink(&mut self) {
        if self.codes.capacity() > 256 && self.codes.len() * 4 < self.codes.capacity() {
            let (entries, hasher) = (&self.entries, &self.hasher);
            let text = |code: &u32| hasher.hash_one(entries[*code].0.as_str());
            self.codes.shrink_to(self.codes.len() * 2, text);
        }
    }

    /// The string of a code that an event holds.
    pub fn text(&self, code: u64) -> &str {
        &self.entries[code as u32].0
    }

    /// Number of strings held.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether no string is held.
    pub fn is_empty(&self) -> bool {
        self.codes.len() == 0
    }

    /// Bytes of heap memory in use, without long strings' own heap.
    pub fn heap_bytes(&self) -> usize {
        self.entries.heap_bytes() + self.codes.allocation_size()
    }
}
