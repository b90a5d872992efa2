//! CPU per payment of JSON parsers, one core, batches of 4,096 records of about 170 bytes.
//!
//! `gillnet` builds the Arrow batch with every check of the schema. The others only parse: typed into borrowed fields with
//! the amount as raw text (what a decoder over them would start from), or into simd-json's tape. So their figures are
//! floors for a decoder built on them.

use std::hint::black_box;
use std::time::Instant;

use gillnet_formats::{DecoderOptions, JsonDecoder};
use serde::Deserialize;

const SCHEMA: &[u8] = br#"[{"name":"tx_id","type":"string"},{"name":"ts","type":"timestamp","unit":"ms"},
 {"name":"card_id","type":"string"},{"name":"user_id","type":"string"},{"name":"device_id","type":"string","nullable":true},
 {"name":"merchant_id","type":"string"},{"name":"amount","type":"decimal(2)","minimum":0},
 {"name":"currency","type":"string"},{"name":"status","type":"string"}]"#;

#[derive(Deserialize)]
#[allow(dead_code)]
struct Payment<'a, Amount> {
    tx_id: &'a str,
    ts: i64,
    card_id: &'a str,
    user_id: &'a str,
    device_id: Option<&'a str>,
    merchant_id: &'a str,
    amount: Amount,
    currency: &'a str,
    status: &'a str,
}

fn records() -> Vec<Vec<u8>> {
    let record = |i: u64| {
        let mix = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        format!(
            concat!(
                r#"{{"tx_id":"t-{:010}","ts":{},"card_id":"c-{:06}","user_id":"u-{}","device_id":"d-{}","#,
                r#""merchant_id":"m-{}","amount":{}.{:02},"currency":"EUR","status":"approved"}}"#
            ),
            i, 1_700_000_000_000 + i, mix % 50_000, mix % 40_000, mix % 10_000, mix % 1_000, mix % 200, mix % 100
        )
    };
    (0..4_096).map(|i| record(i).into_bytes()).collect()
}

/// The best of many rounds: other work on the machine only ever adds to a round.
fn measure(name: &str, records: usize, mut round: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        round();
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / records as f64);
    }
    println!("{name:<44} {best:.3} µs a record");
}

fn main() {
    let owned = records();
    let slices: Vec<&[u8]> = owned.iter().map(Vec::as_slice).collect();
    let decoder = JsonDecoder::new(SCHEMA, DecoderOptions::default()).unwrap();
    assert!(decoder.decode(&slices).unwrap().rejected.is_empty());
    let n = slices.len();
    measure("gillnet: checked, to an Arrow batch", n, || drop(black_box(decoder.decode(black_box(&slices)))));
    measure("serde_json: typed, amount as raw text", n, || {
        for record in &slices {
            black_box(serde_json::from_slice::<Payment<&serde_json::value::RawValue>>(record).unwrap());
        }
    });
    measure("sonic-rs: typed, amount as raw text", n, || {
        for record in &slices {
            black_box(sonic_rs::from_slice::<Payment<sonic_rs::LazyValue>>(record).unwrap());
        }
    });
    let mut buffers = simd_json::Buffers::default();
    let mut scratch = Vec::new();
    measure("simd-json: to a tape, amount as a float", n, || {
        for record in &slices {
            scratch.clear();
            scratch.extend_from_slice(record);
            black_box(simd_json::to_tape_with_buffers(&mut scratch, &mut buffers).unwrap());
        }
    });
    measure("simd-json: typed, amount as a float", n, || {
        for record in &slices {
            scratch.clear();
            scratch.extend_from_slice(record);
            black_box(simd_json::serde::from_slice_with_buffers::<Payment<f64>>(&mut scratch, &mut buffers).unwrap());
        }
    });
}
