//! A join's state as bytes, but for what only the caller can read of its events: the payloads, which it writes beside.

use std::cmp::Reverse;

use super::{Arrival, IntervalJoin, JoinCounts, Timer};
use crate::bytes::{broken, ByteReader, ByteWriter};
use crate::error::Result;
use crate::join::bounds::Side;
use crate::join::events::Payload;

impl IntervalJoin {
    /// The payloads of a side, in the order in which [`Self::read_state`] takes them.
    pub fn payloads(&self, side: Side) -> impl Iterator<Item = &Payload> {
        let waiting = self.inbox.iter().filter(move |arrival| arrival.side == side).map(|arrival| &arrival.payload);
        self.store.side_events(side).map(|event| &event.payload).chain(waiting)
    }

    /// Write kept events, arrivals that were not looked at yet, timers and counts.
    pub fn write_state(&self, out: &mut ByteWriter) {
        self.store.write_state(out);
        out.count(self.inbox.len());
        for arrival in &self.inbox {
            out.flag(arrival.side == Side::Right);
            out.i64(arrival.order.0);
            out.u128(arrival.order.1);
            out.flag(arrival.key.is_some());
            out.text(arrival.key.as_deref().unwrap_or_default());
        }
        for timers in &self.timers {
            let mut timers: Vec<&Timer> = timers.iter().map(|Reverse(timer)| timer).collect();
            timers.sort_unstable();
            out.count(timers.len());
            for timer in timers {
                out.i64(timer.due);
                out.i64(timer.order.0);
                out.u128(timer.order.1);
                out.u32(timer.slot);
            }
        }
        self.swept_to.iter().for_each(|&time| out.i64(time));
        out.u64(self.unswept as u64);
        write_counts(&self.counts, out);
    }

    /// Read what [`Self::write_state`] wrote, into a join without events.
    ///
    /// # Errors
    /// Bytes that are no join's, or another number of payloads than events.
    pub fn read_state(&mut self, from: &mut ByteReader<'_>, payloads: [Vec<Payload>; 2]) -> Result<()> {
        let mut rest = payloads.map(Vec::into_iter);
        let mut next = |side: Side| rest[side as usize].next().ok_or_else(|| broken("fewer payloads than events"));
        self.store.read_state(from, &mut next)?;
        self.inbox = from.list(|from| read_arrival(from, &mut next))?.into();
        for timers in &mut self.timers {
            *timers = from.list(read_timer)?.into();
        }
        for time in &mut self.swept_to {
            *time = from.i64()?;
        }
        self.unswept = from.u64()? as usize;
        self.counts = read_counts(from)?;
        match rest.iter().all(|rest| rest.len() == 0) {
            true => Ok(()),
            false => Err(broken("more payloads than events")),
        }
    }
}

fn read_arrival(from: &mut ByteReader<'_>, payload: &mut impl FnMut(Side) -> Result<Payload>) -> Result<Arrival> {
    let side = if from.flag()? { Side::Right } else { Side::Left };
    let order = (from.i64()?, from.u128()?);
    let (keyed, key) = (from.flag()?, from.text()?);
    Ok(Arrival { side, order, key: keyed.then(|| key.into()), payload: payload(side)? })
}

fn read_timer(from: &mut ByteReader<'_>) -> Result<Reverse<Timer>> {
    Ok(Reverse(Timer { due: from.i64()?, order: (from.i64()?, from.u128()?), slot: from.u32()? }))
}

fn write_counts(counts: &JoinCounts, out: &mut ByteWriter) {
    let JoinCounts { pairs, unmatched, withdrawn, dropped_pairs, dropped_events, incomplete } = *counts;
    [pairs, unmatched, withdrawn, dropped_pairs, dropped_events, incomplete].iter().for_each(|&count| out.u64(count));
}

fn read_counts(from: &mut ByteReader<'_>) -> Result<JoinCounts> {
    Ok(JoinCounts {
        pairs: from.u64()?,
        unmatched: from.u64()?,
        withdrawn: from.u64()?,
        dropped_pairs: from.u64()?,
        dropped_events: from.u64()?,
        incomplete: from.u64()?,
    })
}
