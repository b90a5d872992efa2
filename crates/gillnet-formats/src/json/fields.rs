//! Which field comes next: a guess from the records before, checked against the bytes.

use hashbrown::HashMap;

use super::scan::Cursor;
use super::text;
use crate::reason::Parse;
use crate::schema::Column;

/// Names of unknown fields that are remembered; further ones are looked up each time.
const MAX_UNKNOWN: usize = 256;
/// The longest name of an unknown field that is remembered.
const MAX_NAME_BYTES: usize = 128;
/// Stands for the record's start and for a name that is not remembered.
const NONE: usize = usize::MAX;

/// The names met so far, and for each of them the name that followed it the last time.
///
/// Records of one producer have their fields in one order, so the guess is nearly always right, and a field costs one
/// comparison of its whole `"name":`. A field that is left out now and then costs one wrong guess, not a shifted record.
#[derive(Clone)]
pub(crate) struct FieldOrder {
    columns: usize,
    /// `"name":` by name id; ids below `columns` are the columns.
    patterns: Vec<Vec<u8>>,
    ids: HashMap<Vec<u8>, usize>,
    first: usize,
    following: Vec<usize>,
}

/// A field's name, as the record goes on.
#[derive(Clone, Copy)]
pub(crate) struct FieldId(usize);

impl FieldId {
    /// Before the first field.
    pub const START: Self = Self(NONE);
}

impl FieldOrder {
    /// Expect the schema's order at first.
    pub fn new(columns: &[Column]) -> Self {
        let mut order =
            Self { columns: columns.len(), patterns: vec![], ids: HashMap::new(), first: 0, following: vec![] };
        for column in columns {
            order.remember(column.name.as_bytes());
        }
        order
    }

    fn remember(&mut self, name: &[u8]) -> usize {
        let id = self.patterns.len();
        let mut pattern = Vec::with_capacity(name.len() + 3);
        text::write_string(name, &mut pattern);
        pattern.push(b':');
        self.patterns.push(pattern);
        self.ids.insert(name.to_vec(), id);
        self.following.push(id + 1);
        id
    }

    /// Step over a field's name and colon; give the name's id, and its column if it is one.
    #[inline]
    pub fn next(&mut self, previous: FieldId, cursor: &mut Cursor<'_>) -> Parse<(FieldId, Option<usize>)> {
        let guess = if previous.0 == NONE { self.first } else { self.following[previous.0] };
        let hit = self.patterns.get(guess).is_some_and(|pattern| cursor.take_all(pattern));
        let id = if hit {
            cursor.skip_space();
            guess
        } else {
            self.look_up(previous, cursor)?
        };
        Ok((FieldId(id), (id < self.columns).then_some(id)))
    }

    fn look_up(&mut self, previous: FieldId, cursor: &mut Cursor<'_>) -> Parse<usize> {
        let raw = cursor.string()?;
        cursor.colon()?;
        let mut unescaped = Vec::new();
        let name = if raw.escaped {
            // A name with half of a surrogate pair cannot be a column's.
            if text::append(raw, &mut unescaped).is_err() {
                return Ok(NONE);
            }
            unescaped.as_slice()
        } else {
            raw.body
        };
        let id = match self.ids.get(name) {
            Some(&id) => id,
            None if self.patterns.len() < self.columns + MAX_UNKNOWN && name.len() <= MAX_NAME_BYTES => {
                self.remember(name)
            }
            None => return Ok(NONE),
        };
        match previous.0 {
            NONE => self.first = id,
            previous => self.following[previous] = id,
        }
        Ok(id)
    }
}
