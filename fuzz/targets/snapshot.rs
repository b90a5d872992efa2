//! A whole engine's snapshot, from a checkpoint: restored, or refused; and what was restored can go on.
//!
//! Input: a byte that chooses a plan, then the bytes, of version 1: there is nothing around its parts that a fuzzer could not mend.
//! What was restored is written as the version of today, and read.
//! Checksums and lengths of the frame and of the keys in it are mended first.
#![no_main]

use gillnet_fuzz::{batch, exercise, mend_snapshot, plan, Bounded};
use gillnet_kernel::engine::Engine;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let plan = plan(choice);
    let mut bytes = rest.to_vec();
    mend_snapshot(&mut bytes);
    let Ok(mut engine) = Engine::restore(plan, &bytes) else { return };
    let written = engine.snapshot().expect("what was restored can be written");
    Engine::restore(plan, &written).expect("and restored again");
    let events: Vec<_> = plan.streams.iter().map(|stream| (&stream.name, batch(stream, rest, 3))).collect();
    exercise(&mut engine, plan, &events);
});
