//! An engine whose cold keys leave to the host while its state is larger than it may be: see [`crate::keyed::cold`].
//!
//! Keys of windows and lookups leave. What cannot stays, and takes its part of the budget: ids, rows that can still be revised or
//! that wait, sessions and the keys that they are of (timers know these by their places), patterns and joins.

use std::sync::Arc;

use super::Engine;
use crate::bytes::broken;
use crate::error::{KernelError, Result};
use crate::keyed::cold::{named, ColdKeys};

/// Keys that leave, and those that are handed over, with one call at the least, if so many are to.
const LEAST_AT_ONCE: usize = 256;
/// Keys that are asked for with one call where all are.
const AT_ONCE: usize = 4_096;
/// For each record of a batch, so many may leave, so that memory comes down under load too.
const PER_RECORD: usize = 4;
/// A record lets at most one key leave for each entity, so those that expire are soon fewer.
const EXPIRED_PER_RECORD: usize = 2;
/// How often what cannot leave is measured, in calls: it walks over some of it.
const MEASURED_EVERY: u32 = 64;
/// Of the budget at least a part of this belongs to keys, however large the rest is.
const LEAST_SHARE: usize = 8;

/// What an engine knows of keys that leave.
pub struct Spill {
    budget: usize,
    /// Bytes of what cannot leave, as last measured.
    others: usize,
    calls: u32,
}

/// How keys come and go.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpillStats {
    /// About how many bytes the keys in memory hold that can leave.
    pub resident_bytes: usize,
    pub fetched: u64,
    pub kept: u64,
}

impl Engine {
    /// Let cold keys leave to `port` while the state is larger than `budget` bytes; `holds`: the port has keys already, those
    /// that a snapshot left out included.
    ///
    /// # Errors
    /// More entities than names can tell apart.
    pub fn spill_to(&mut self, port: &Arc<dyn ColdKeys>, budget: usize, holds: bool) -> Result<()> {
        let home = self.sessions.as_ref().map(|sessions| sessions.entity);
        for (number, entity) in self.entities.iter_mut().enumerate().filter(|(number, _)| Some(*number) != home) {
            let number = u16::try_from(number).map_err(|_| KernelError::Plan("more than 65,535 entities".into()))?;
            entity.store.spill_to(Arc::clone(port), number, holds);
        }
        self.spill = Some(Spill { budget, others: 0, calls: 0 });
        self.incomplete = false;
        Ok(())
    }

    /// Have every key in memory that `port` holds and a snapshot left out, so that the state is whole without it. Takes as much
    /// memory as the state.
    ///
    /// # Errors
    /// The host cannot read, or gives what is no key of this plan.
    pub fn load_keys(&mut self, port: &dyn ColdKeys) -> Result<()> {
        let mut begin = Vec::new();
        loop {
            let (names, states) = port.names_from(&begin, AT_ONCE)?;
            if names.len() != states.len() {
                return Err(broken("names came with another number of states"));
            }
            for (name, state) in names.iter().zip(states.iter()) {
                let (entity, key) = named(name)?;
                let entity = self.entities.get_mut(usize::from(entity)).ok_or_else(|| broken("a key of no entity"))?;
                entity.store.put_back(key, state)?;
            }
            let Some(last) = names.len().checked_sub(1).filter(|_| names.len() == AT_ONCE) else { break };
            // The name behind the last.
            begin = [names.get(last), &[0]].concat();
        }
        self.incomplete = false;
        Ok(())
    }

    /// Whether every key can be found: a snapshot of an engine that spilled is not all of its state.
    ///
    /// # Errors
    /// [`KernelError::State`] if not.
    pub(super) fn check_complete(&self) -> Result<()> {
        match self.incomplete {
            false => Ok(()),
            true => Err(KernelError::State(
                "the snapshot leaves keys to the place where they were kept; go on with that place".into(),
            )),
        }
    }

    /// From now on hand over what is not in a snapshot that was just taken but in memory, a few keys with every batch, so that
    /// the next one need not hold it.
    pub fn begin_write_behind(&mut self) {
        self.entities.iter_mut().for_each(|entity| entity.store.begin_write_behind());
    }

    /// Let keys leave after `records` more were worked on: those that are cold, and for good those that have expired.
    pub(super) fn spill(&mut self, records: usize) -> Result<()> {
        if self.spill.is_none() {
            return Ok(());
        }
        let others = self.measured();
        let Some(spill) = &mut self.spill else { return Ok(()) };
        spill.others = others;
        let most = LEAST_AT_ONCE.max(records.saturating_mul(PER_RECORD));
        let allowed = spill.budget.saturating_sub(others).max(spill.budget / LEAST_SHARE);
        let bytes: Vec<usize> =
            self.entities.iter().map(|e| e.store.cold().map_or(0, |_| e.store.about_bytes())).collect();
        let resident: usize = bytes.iter().sum();
        let over = resident.saturating_sub(allowed);
        for (entity, bytes) in self.entities.iter_mut().zip(bytes) {
            if over > 0 && bytes > 0 {
                let share = (over as u128 * bytes as u128 / resident as u128) as usize + 1;
                entity.store.evict(share, most)?;
            }
            entity.store.write_behind(LEAST_AT_ONCE.max(records))?;
            entity.store.expire_cold(LEAST_AT_ONCE.max(records.saturating_mul(EXPIRED_PER_RECORD)))?;
        }
        Ok(())
    }

    /// Bytes of what cannot leave, measured from time to time.
    fn measured(&mut self) -> usize {
        let Some(spill) = &mut self.spill else { return 0 };
        spill.calls = spill.calls.wrapping_add(1);
        if spill.calls % MEASURED_EVERY != 1 {
            return spill.others;
        }
        let ids: usize = self.streams.iter().map(|stream| stream.seen.heap_bytes()).sum();
        let keys: usize =
            self.entities.iter().filter(|e| e.store.cold().is_none()).map(|e| e.store.about_bytes()).sum();
        let rows = self.revisions.as_ref().map_or(0, |revisions| revisions.stats().bytes);
        ids + keys + rows + self.patterns.stats().bytes + self.joins.stats().bytes
    }

    /// How keys come and go.
    pub fn spill_stats(&self) -> SpillStats {
        let mut stats = SpillStats::default();
        for store in self.entities.iter().map(|entity| &entity.store) {
            if let Some(cold) = store.cold() {
                stats.resident_bytes += store.about_bytes();
                stats.fetched += cold.fetched;
                stats.kept += cold.kept;
            }
        }
        stats
    }
}
