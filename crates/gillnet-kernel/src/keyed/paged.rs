//! Places that never move, in pages that give their memory back: for keys, and for the strings of events.

use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;

/// Places of one page.
const PLACES: usize = 1 << 10;

/// Values at numbered places. A removed value's place is used again; a page without values holds no memory.
#[derive(Debug)]
pub struct Paged<T> {
    pages: Vec<Page<T>>,
    /// Pages with room, each once.
    open: Vec<u32>,
}

#[derive(Debug)]
struct Page<T> {
    places: Vec<T>,
    free: Vec<u16>,
    open: bool,
}

impl<T: Default> Paged<T> {
    /// No places.
    pub fn new() -> Self {
        Self { pages: Vec::new(), open: Vec::new() }
    }

    /// Write which places are in use and which will be next, and each place's value.
    pub fn write_state(&self, out: &mut ByteWriter, mut value: impl FnMut(&T, &mut ByteWriter)) {
        out.count(self.pages.len());
        for page in &self.pages {
            out.u32(page.places.len() as u32);
            out.flag(page.open);
            out.count(page.free.len());
            page.free.iter().for_each(|&free| out.u16(free));
            page.places.iter().for_each(|place| value(place, out));
        }
        out.count(self.open.len());
        self.open.iter().for_each(|&page| out.u32(page));
    }

    /// Read what [`Self::write_state`] wrote.
    ///
    /// # Errors
    /// Places that cannot be, or what `value` refuses.
    pub fn read_state(
        from: &mut ByteReader<'_>,
        mut value: impl FnMut(&mut ByteReader<'_>) -> Result<T>,
    ) -> Result<Self> {
        let pages = from.list(|from| {
            let (places, open) = (from.u32()? as usize, from.flag()?);
            let free = from.list(ByteReader::u16)?;
            if places > PLACES || free.iter().any(|&free| usize::from(free) >= places) {
                return Err(broken("places that cannot be"));
            }
            let places = (0..places).map(|_| value(from)).collect::<Result<Vec<T>>>()?;
            Ok(Page { places, free, open })
        })?;
        let open = from.list(ByteReader::u32)?;
        if open.iter().any(|&page| page as usize >= pages.len()) {
            return Err(broken("places that cannot be"));
        }
        Ok(Self { pages, open })
    }

    /// The same places with other values.
    pub fn map<U>(&self, mut value: impl FnMut(&T) -> U) -> Paged<U> {
        let pages = self.pages.iter().map(|page| Page {
            places: page.places.iter().map(&mut value).collect(),
            free: page.free.clone(),
            open: page.open,
        });
        Paged { pages: pages.collect(), open: self.open.clone() }
    }

    /// Put a value in, and return its place.
    pub fn insert(&mut self, value: T) -> u32 {
        while let Some(&number) = self.open.last() {
            let page = &mut self.pages[number as usize];
            let base = number * PLACES as u32;
            if let Some(free) = page.free.pop() {
                page.places[free as usize] = value;
                return base + u32::from(free);
            }
            if page.places.len() < PLACES {
                page.places.push(value);
                return base + page.places.len() as u32 - 1;
            }
            page.open = false;
            self.open.pop();
        }
        self.pages.push(Page { places: vec![value], free: Vec::new(), open: true });
        self.open.push(self.pages.len() as u32 - 1);
        (self.pages.len() as u32 - 1) * PLACES as u32
    }

    /// Take the value at a place out; a default stays there.
    pub fn remove(&mut self, place: u32) -> T {
        let number = place as usize / PLACES;
        let page = &mut self.pages[number];
        let value = std::mem::take(&mut page.places[place as usize % PLACES]);
        page.free.push((place as usize % PLACES) as u16);
        if page.free.len() == page.places.len() {
            (page.places, page.free) = (Vec::new(), Vec::new());
        }
        if !page.open {
            page.open = true;
            self.open.push(number as u32);
        }
        value
    }

    /// The value at a place, a default where it was removed; none beyond what was ever put in.
    #[inline]
    pub fn get(&self, place: u32) -> Option<&T> {
        self.pages.get(place as usize / PLACES)?.places.get(place as usize % PLACES)
    }

    /// The first place at `place` or after it that is in use or was, and none after the last.
    pub fn at_or_after(&self, place: usize) -> Option<u32> {
        let (number, within) = (place / PLACES, place % PLACES);
        if self.pages.get(number)?.places.len() > within {
            return Some(place as u32);
        }
        let rest = self.pages[number + 1..].iter().position(|page| !page.places.is_empty())?;
        Some(((number + 1 + rest) * PLACES) as u32)
    }

    /// Places that hold memory.
    pub fn places(&self) -> usize {
        self.pages.iter().map(|page| page.places.len()).sum()
    }

    /// All values, and the defaults between them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| &page.places)
    }

    /// Bytes of heap memory in use, without what values hold themselves.
    pub fn heap_bytes(&self) -> usize {
        let inside = |page: &Page<T>| page.places.capacity() * std::mem::size_of::<T>() + page.free.capacity() * 2;
        self.pages.iter().map(inside).sum::<usize>()
            + self.pages.capacity() * std::mem::size_of::<Page<T>>()
            + self.open.capacity() * 4
    }
}

impl<T> std::ops::Index<u32> for Paged<T> {
    type Output = T;

    #[inline]
    fn index(&self, place: u32) -> &T {
        &self.pages[place as usize / PLACES].places[place as usize % PLACES]
    }
}

impl<T> std::ops::IndexMut<u32> for Paged<T> {
    #[inline]
    fn index_mut(&mut self, place: u32) -> &mut T {
        &mut self.pages[place as usize / PLACES].places[place as usize % PLACES]
    }
}

impl<T: Default> Default for Paged<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_and_are_used_again_and_memory_comes_back() {
        let mut paged = Paged::new();
        let places: Vec<u32> = (0..20_000u64).map(|value| paged.insert(value)).collect();
        let (full, pages) = (paged.heap_bytes(), paged.pages.len());
        assert!(places.iter().zip(0..).all(|(&place, value)| paged[place] == value));
        for &place in &places[1..] {
            paged.remove(place);
        }
        assert_eq!(paged[places[0]], 0);
        assert!(paged.heap_bytes() * 4 < full, "{} of {full}", paged.heap_bytes());
        assert_eq!(paged.at_or_after(PLACES), None, "the other pages hold nothing");
        let again: Vec<u32> = (0..19_999u64).map(|value| paged.insert(value)).collect();
        assert_eq!(paged.pages.len(), pages, "no page more than before");
        assert!(again.iter().zip(0..).all(|(&place, value)| paged[place] == value) && paged[places[0]] == 0);
    }
}
