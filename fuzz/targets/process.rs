//! Hostile values: whatever the decoder lets through, in any order and at any time, the engine takes or refuses.
//!
//! Input: a byte that chooses a plan, then calls: a byte that chooses the stream, one for the number of records, and their values.
#![no_main]

use gillnet_fuzz::{batch, exercise, plan, Bounded};
use gillnet_kernel::engine::Engine;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let plan = plan(choice);
    let mut engine = Engine::new(plan).expect("a plan");
    let calls: Vec<_> = rest
        .chunks(64)
        .take(16)
        .map(|call| {
            let stream = &plan.streams[usize::from(call[0]) % plan.streams.len()];
            (&stream.name, batch(stream, call, 1 + usize::from(call[0] >> 4)))
        })
        .collect();
    exercise(&mut engine, plan, &calls);
    let written = engine.snapshot().expect("any state can be written");
    let restored = Engine::restore(plan, &written).expect("and restored");
    assert!(restored.snapshot().expect("again") == written, "a restored engine is as the one that was written");
});
