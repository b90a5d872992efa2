//! Emitted rows, and what has disturbed them, under another plan.

use super::{Affected, Cause, Named, Revisions};
use crate::error::Result;

impl Revisions {
    /// Take over what can still change of `old`. `readers` gives each old entity's and pattern's new number, `streams` each old
    /// stream's; what is about one that is gone is forgotten.
    ///
    /// A row has the features of this plan from now on: those that it did not go out with are null until they are read again.
    ///
    /// # Errors
    /// None but arrow's own.
    pub fn take_over(&mut self, old: &Self, readers: &[Option<usize>], streams: &[Option<usize>]) -> Result<()> {
        self.newest_root = old.newest_root;
        (self.earliest_pending, self.expired_to) = (old.earliest_pending, old.expired_to);
        self.unrevised = old.unrevised;
        let named = |named: &Named| streams[named.stream].map(|stream| Named { stream, id: named.id.clone() });
        for ((reader, key), causes) in &old.disturbed {
            let Some(reader) = readers[*reader] else { continue };
            let causes: Vec<Cause> = causes
                .iter()
                .filter_map(|cause| {
                    let Cause { order, same_time, until, .. } = *cause;
                    Some(Cause { order, same_time, until, named: named(&cause.named)? })
                })
                .collect();
            if !causes.is_empty() {
                self.causes += causes.len();
                self.disturbed.insert((reader, key.clone()), causes);
            }
        }
        self.work_keys.clone_from(&old.work_keys);
        // A stream that is gone caused nothing that is still looked at; its name is not asked for.
        self.work_causes = old
            .work_causes
            .iter()
            .map(|cause| Named { stream: streams[cause.stream].unwrap_or(0), id: cause.id.clone() })
            .collect();
        let moved = |affected: &Affected| {
            streams[old.work_causes[affected.cause as usize].stream]?;
            Some(Affected { entity: readers[affected.entity]?, ..*affected })
        };
        self.work = old.work.iter().filter_map(moved).collect();
        self.rows.take_over(&old.rows, &self.fields)
    }
}
