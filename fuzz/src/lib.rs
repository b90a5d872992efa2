//! What the fuzz targets share: an allocator that refuses what the input cannot fill, plans, hostile batches, mended checksums.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use gillnet_kernel::bytes::checksum;
use gillnet_kernel::engine::plan::{Plan, StreamPlan};
use gillnet_kernel::engine::Engine;

/// More than this at once is no answer to an input of some kB.
const MOST_BYTES: usize = 64 << 20;

/// The system's allocator; it ends the process where an allocation is out of proportion to any input.
pub struct Bounded;

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

fn check(size: usize) {
    if size > MOST_BYTES {
        eprintln!("an allocation of {size} bytes, and the input cannot fill it");
        std::process::abort();
    }
}

/// The plans of `tests/cases`, in the order of their files' names, which `fuzz/seeds.py` wrote into `GILLNET_FUZZ_PLANS`.
static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let folder = std::env::var("GILLNET_FUZZ_PLANS").expect("GILLNET_FUZZ_PLANS names the folder; run `make fuzz`");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder of plans").map(|e| e.expect("a file").path()).collect();
    files.sort();
    let read = |file| Plan::from_json(&std::fs::read_to_string(file).expect("a plan")).expect("a plan of this version");
    let plans: Vec<Plan> = files.into_iter().map(read).collect();
    assert!(!plans.is_empty(), "no plans");
    plans
});

/// The plan that a byte of the input chooses.
pub fn plan(choice: u8) -> &'static Plan {
    &PLANS[usize::from(choice) % PLANS.len()]
}

/// Make the header of a key's state fit its body: magic, version and checksum. The fingerprint stays the seed's.
pub fn mend_key(bytes: &mut [u8]) {
    if bytes.len() < 32 {
        return;
    }
    bytes[..4].copy_from_slice(b"GK\x02\0");
    let sum = checksum(&[&bytes[..24], &bytes[32..]]);
    bytes[24..32].copy_from_slice(&sum.to_le_bytes());
}

/// Make the frame of a snapshot fit its body, and the header of each key in it.
pub fn mend_snapshot(bytes: &mut [u8]) {
    if bytes.len() < 32 {
        return;
    }
    for at in 40..bytes.len().saturating_sub(32) {
        if bytes[at..].starts_with(b"GK\x02\0") {
            let length = u64::from_le_bytes(bytes[at - 8..at].try_into().expect("eight bytes")) as usize;
            if let Some(key) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..length)) {
                mend_key(key);
            }
        }
    }
    let length = (bytes.len() - 32) as u64;
    bytes[..8].copy_from_slice(b"GILLSNAP");
    bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&[&bytes[..24], &bytes[32..]]);
    bytes[24..32].copy_from_slice(&sum.to_le_bytes());
}

/// Gives values from the input, and goes round when it is at its end: each value differs from the last by a counter.
struct Values<'a> {
    data: &'a [u8],
    at: usize,
}

/// Where arithmetic is likely to go wrong, beside what the input says.
const EDGES: [i64; 16] = [
    0,
    1,
    -1,
    i64::MIN,
    i64::MAX,
    i64::MIN + 1,
    i64::MAX - 1,
    1_767_607_200_000_000,
    1_767_607_200_000_001,
    1_767_607_260_000_000,
    1_767_693_600_000_000,
    946_684_800_000_000,
    1 << 53,
    -(1 << 53),
    1 << 62,
    -(1 << 62),
];

impl Values<'_> {
    fn byte(&mut self) -> u8 {
        self.at += 1;
        let round = self.at / self.data.len().max(1);
        self.data.get(self.at % self.data.len().max(1)).copied().unwrap_or(0).wrapping_add(round as u8)
    }

    fn integer(&mut self) -> i64 {
        let choice = self.byte();
        match choice >> 6 {
            0 => EDGES[usize::from(choice) % EDGES.len()],
            1 => i64::from(self.byte()),
            2 => EDGES[7] + i64::from(self.byte()) * 1_000_000 + i64::from(choice & 7),
            _ => i64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn float(&mut self) -> f64 {
        match self.byte() {
            choice @ 0..128 => {
                let edges =
                    [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324];
                edges[usize::from(choice) % edges.len()]
            }
            choice @ 128..192 => f64::from(choice) / 3.0,
            _ => f64::from_bits(self.integer() as u64),
        }
    }

    fn text(&mut self) -> String {
        let choice = self.byte();
        match choice % 8 {
            0..5 => char::from(b'A' + choice % 4).to_string(),
            5 => String::new(),
            6 => "a key that is longer than what fits beside it, ü".into(),
            _ => String::from_utf8_lossy(&std::array::from_fn::<u8, 4, _>(|_| self.byte())).into_owned(),
        }
    }
}

/// Records of a stream with any values that its columns can hold.
pub fn batch(stream: &StreamPlan, data: &[u8], rows: usize) -> RecordBatch {
    let schema = Arc::new(stream.arrow_schema().expect("a schema"));
    let mut values = Values { data, at: 0 };
    let columns = schema.fields().iter().map(|field| {
        let whole = !field.is_nullable() || field.name() == &stream.id || field.name() == &stream.event_time;
        let some = |values: &mut Values<'_>| whole || values.byte() % 4 > 0;
        let array: ArrayRef = match field.data_type() {
            DataType::Utf8 => {
                Arc::new((0..rows).map(|_| some(&mut values).then(|| values.text())).collect::<StringArray>())
            }
            DataType::Int64 => {
                Arc::new((0..rows).map(|_| some(&mut values).then(|| values.integer())).collect::<Int64Array>())
            }
            DataType::Float64 => {
                Arc::new((0..rows).map(|_| some(&mut values).then(|| values.float())).collect::<Float64Array>())
            }
            DataType::Boolean => {
                Arc::new((0..rows).map(|_| some(&mut values).then(|| values.byte() % 2 == 0)).collect::<BooleanArray>())
            }
            DataType::Decimal128(precision, scale) => {
                let scaled = (0..rows).map(|_| some(&mut values).then(|| i128::from(values.integer())));
                let array: Decimal128Array = scaled.collect();
                Arc::new(array.with_precision_and_scale(*precision, *scale).expect("a decimal"))
            }
            DataType::Timestamp(..) => {
                let times = (0..rows).map(|_| some(&mut values).then(|| values.integer()));
                Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
            }
            other => unreachable!("no stream has columns of {other}"),
        };
        array
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns of the schema")
}

/// Let an engine do everything that a host asks of one.
pub fn exercise(engine: &mut Engine, plan: &Plan, calls: &[(&String, RecordBatch)]) {
    for (number, (stream, records)) in calls.iter().enumerate() {
        let arrival = EDGES[7] + 3_600_000_000 * (1 + number as i64);
        let partitions: Vec<i32> = (0..records.num_rows() as i32).map(|row| row % 3 - 1).collect();
        // Values may be refused (a sum that no number holds), and then for the whole batch; they may not be a panic.
        let _ = engine.process(stream, records, Some(&partitions), arrival);
        engine.pass_time(arrival);
        take(engine, arrival);
        if number == 7 {
            engine.set_replaying(true);
            engine.resume(arrival);
        }
    }
    for stream in &plan.streams {
        engine.finish(&stream.name).expect("a stream of the plan");
        engine.progress(&stream.name).expect("a stream of the plan");
    }
    let _ = engine.release(i64::MAX, true);
    take(engine, i64::MAX);
    engine.stats();
}

fn take(engine: &mut Engine, now: i64) {
    // Bounded: a list that never ends would be a bug of its own, which libFuzzer's time limit finds.
    while let Ok(Some(_)) = engine.closed_sessions(100) {}
    while let Ok(Some(_)) = engine.matches(100) {}
    while let Ok(Some(_)) = engine.joined(100) {}
    while let Ok(Some(_)) = engine.revisions(100) {}
    while let Ok(Some(_)) = engine.release(now, false) {}
}
