//! Sums over the keys of one operator, in one pass: sizes, the largest keys, how unequal they are, and what lies before which time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What lies before some event time: keys of which nothing would be left, events, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    pub keys: usize,
    pub events: usize,
    pub bytes: usize,
}

/// One of the largest keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LargeKey {
    pub bytes: usize,
    pub events: usize,
    pub key: String,
    pub oldest: Option<i64>,
    pub newest: Option<i64>,
}

/// One key, as it is counted.
pub struct Counted<'a> {
    pub key: &'a str,
    pub events: usize,
    pub bytes: usize,
    pub span: Option<(i64, i64)>,
    /// Event time up to which the key itself is held, beyond its events.
    pub held_to: i64,
}

/// The sums so far.
#[derive(Debug, Default)]
pub struct Tally {
    pub keys: usize,
    pub events: usize,
    pub bytes: usize,
    pub oldest: Option<i64>,
    pub newest: Option<i64>,
    pub before: Vec<Cut>,
    edges: Vec<i64>,
    top: usize,
    largest: BinaryHeap<Reverse<LargeKey>>,
    /// Events of each key.
    sizes: Vec<u32>,
}

impl Tally {
    /// Count what lies before each of `edges`, and remember the `top` largest keys.
    pub fn new(edges: Vec<i64>, top: usize) -> Self {
        Self { before: vec![Cut::default(); edges.len()], edges, top, ..Self::default() }
    }

    /// Count a key; `before` tells how many of its events lie before a time.
    pub fn add(&mut self, counted: &Counted<'_>, before: impl Fn(i64) -> usize) {
        let Counted { key, events, bytes, span, held_to } = *counted;
        self.keys += 1;
        self.events += events;
        self.bytes += bytes;
        self.sizes.push(events.try_into().unwrap_or(u32::MAX));
        self.stretch(span);
        for (edge, cut) in self.edges.iter().zip(&mut self.before) {
            let gone = span.is_none_or(|(_, newest)| newest < *edge) && held_to < *edge;
            let passed = if gone { events } else { before(*edge) };
            cut.keys += usize::from(gone);
            cut.events += passed;
            cut.bytes += match events {
                0 => bytes * usize::from(gone),
                _ => (bytes as u128 * passed as u128 / events as u128) as usize,
            };
        }
        let smallest = self.largest.peek().filter(|_| self.largest.len() >= self.top);
        if self.top > 0 && smallest.is_none_or(|Reverse(smallest)| (smallest.bytes, smallest.events) < (bytes, events))
        {
            let (oldest, newest) = span.unzip();
            self.largest.push(Reverse(LargeKey { bytes, events, key: key.to_owned(), oldest, newest }));
            if self.largest.len() > self.top {
                self.largest.pop();
            }
        }
    }

    /// Count `events` things of one time that belong to no key, `bytes` in all.
    pub fn add_at(&mut self, time: i64, events: usize, bytes: usize) {
        self.events += events;
        self.bytes += bytes;
        self.stretch(Some((time, time)));
        for (edge, cut) in self.edges.iter().zip(&mut self.before).filter(|(edge, _)| time < **edge) {
            debug_assert!(time < *edge);
            cut.events += events;
            cut.bytes += bytes;
        }
    }

    fn stretch(&mut self, span: Option<(i64, i64)>) {
        let Some((first, last)) = span else { return };
        self.oldest = Some(self.oldest.map_or(first, |oldest| oldest.min(first)));
        self.newest = self.newest.max(Some(last));
    }

    /// The largest keys, largest first.
    pub fn largest(&mut self) -> Vec<LargeKey> {
        let heap = std::mem::take(&mut self.largest);
        heap.into_sorted_vec().into_iter().map(|Reverse(key)| key).collect()
    }

    /// How unequal keys are in events: the Gini coefficient, 0 where all have as many, near 1 where one has all.
    pub fn gini(&mut self) -> f64 {
        let (keys, total) = (self.sizes.len() as f64, self.events as f64);
        if self.sizes.is_empty() || self.events == 0 {
            return 0.0;
        }
        self.sizes.sort_unstable();
        let weighted: f64 = self.sizes.iter().zip(1u64..).map(|(&size, rank)| f64::from(size) * rank as f64).sum();
        (2.0 * weighted / (keys * total) - (keys + 1.0) / keys).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sizes: &[usize]) -> Tally {
        let mut tally = Tally::new(vec![10, 20], 2);
        for (number, &events) in sizes.iter().enumerate() {
            let key = format!("k{number}");
            let counted = Counted { key: &key, events, bytes: events * 8, span: Some((5, 15)), held_to: i64::MIN };
            tally.add(&counted, |edge| if edge > 5 { events / 2 } else { 0 });
        }
        tally
    }

    #[test]
    fn sums_cuts_and_the_largest_keys() {
        let mut tally = tally(&[4, 2, 8]);
        assert_eq!((tally.keys, tally.events, tally.bytes), (3, 14, 112));
        assert_eq!(tally.before, [Cut { keys: 0, events: 7, bytes: 56 }, Cut { keys: 3, events: 14, bytes: 112 }]);
        let largest = tally.largest();
        let names: Vec<(&str, usize)> = largest.iter().map(|key| (key.key.as_str(), key.events)).collect();
        assert_eq!(names, [("k2", 8), ("k0", 4)]);
        tally.add_at(3, 5, 50);
        assert_eq!((tally.oldest, tally.newest, tally.before[0].events), (Some(3), Some(15), 12));
    }

    #[test]
    fn equal_keys_have_no_gini_and_one_that_has_all_nearly_one() {
        assert!(tally(&[3; 100]).gini() < 1e-9);
        let mut sizes = [0; 100];
        sizes[7] = 1_000;
        assert!((tally(&sizes).gini() - 0.99).abs() < 1e-9);
        assert!(tally(&[]).gini() == 0.0);
    }
}
