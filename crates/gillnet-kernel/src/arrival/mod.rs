//! What happens to a record before any key sees it: its id key, its place against the watermark, its duplicates.

pub mod dedupe;
pub mod id_key;
pub mod watermark;
