//! The bytes of one key's state, from storage or from another engine: read whole, or refused.
//!
//! Input: a byte that chooses a plan, one that chooses an entity, then the bytes. Their header is mended first, since no mutation
//! would find the checksum; so what comes through is what a forger, or another bug, could write.
#![no_main]

use gillnet_fuzz::{batch, exercise, mend_key, plan, Bounded};
use gillnet_kernel::engine::Engine;
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fuzz_target!(|data: &[u8]| {
    let [choice, entity, rest @ ..] = data else { return };
    let plan = plan(*choice);
    let mut engine = Engine::new(plan).expect("a plan");
    let entities = engine.entity_stats().len();
    if entities == 0 {
        return;
    }
    let store = engine.store_mut(usize::from(*entity) % entities).expect("an entity");
    let mut bytes = rest.to_vec();
    mend_key(&mut bytes);
    if store.decode_key("A", &bytes).is_err() {
        assert_eq!(store.encode_key("A", i64::MIN), None, "a refused key leaves nothing");
        return;
    }
    // I5: what was read is written as it was, once what no key would write has been left out.
    let written = store.encode_key("A", i64::MIN).expect("the key");
    store.decode_key("B", &written).expect("what was just written");
    assert_eq!(store.encode_key("B", i64::MIN), Some(written));
    let root = plan.streams.iter().find(|stream| stream.name == plan.root).expect("the root");
    let events = batch(root, rest, 3);
    exercise(&mut engine, plan, &[(&plan.root, events)]);
});
