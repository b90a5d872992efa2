//! Records from the network: each is a row or refused with a reason, and nothing else.
//!
//! Input: a byte that chooses a schema, then records, one a line. Each schema has every type, with and without limits.
#![no_main]

use std::sync::LazyLock;

use gillnet_formats::{DecoderOptions, JsonDecoder, JsonEncoder};
use libfuzzer_sys::fuzz_target;

/// As `gillnet.core.schema.schema_to_json` writes them.
const SCHEMAS: [&str; 3] = [
    r#"[{"name":"id","type":"string"},{"name":"ts","type":"timestamp","unit":"rfc3339"},{"name":"card","type":"string"},
        {"name":"amount","type":"decimal(2)","minimum":0},{"name":"x","type":"float64","nullable":true},
        {"name":"b","type":"bool","nullable":true}]"#,
    r#"[{"name":"id","type":"int64"},{"name":"ts","type":"timestamp","unit":"ms"},{"name":"card","type":"string","max_bytes":8},
        {"name":"amount","type":"decimal(18)"},{"name":"x","type":"float64","allow_nan":true}]"#,
    r#"[{"name":"id","type":"string","nullable":true},{"name":"ts","type":"timestamp","unit":"s"},
        {"name":"t","type":"timestamp","unit":"us","nullable":true},{"name":"n","type":"int64","minimum":-3,"maximum":9},
        {"name":"card","type":"int64","nullable":true},{"name":"ü\"\\","type":"decimal(0)","nullable":true}]"#,
];

/// Each schema's decoder, once held to small limits and once to the defaults; and an encoder of its columns.
static CODECS: LazyLock<Vec<(JsonDecoder, JsonEncoder)>> = LazyLock::new(|| {
    let small = |options: &DecoderOptions| DecoderOptions { max_depth: 3, max_record_bytes: 200, ..options.clone() };
    let options = DecoderOptions { keys: vec!["card".into()], id: Some("id".into()), ..DecoderOptions::default() };
    let decoder = |schema: &str, options| JsonDecoder::new(schema.as_bytes(), options).expect("a schema");
    let pair = |schema: &str, options: DecoderOptions| {
        let decoder = decoder(schema, options);
        let names: Vec<String> =
            decoder.schema().fields().iter().map(|f| format!("{{\"name\":{:?}}}", f.name())).collect();
        let spec = format!("{{\"fields\":[{}]}}", names.join(","));
        (decoder, JsonEncoder::new(spec.as_bytes()).expect("a specification"))
    };
    SCHEMAS.iter().flat_map(|schema| [pair(schema, options.clone()), pair(schema, small(&options))]).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((&choice, lines)) = data.split_first() else { return };
    let (decoder, encoder) = &CODECS[usize::from(choice) % CODECS.len()];
    let records: Vec<&[u8]> = lines.split(|&byte| byte == b'\n').collect();
    let decoded = decoder.decode(&records).expect("only a batch that is too large is an error");
    // I3: every record is exactly one of the two, in order.
    assert_eq!(decoded.rows.len(), decoded.batch.num_rows());
    let mut all: Vec<u32> = decoded.rows.iter().copied().chain(decoded.rejected.iter().map(|r| r.index)).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..records.len() as u32), "each record once");
    // A record does not depend on its neighbours, or on what the decoder has learned of those before.
    for (row, &record) in decoded.rows.iter().enumerate() {
        let alone = decoder.decode(&[records[record as usize]]).expect("one record");
        assert_eq!(alone.batch, decoded.batch.slice(row, 1));
    }
    encoder.encode(&decoded.batch).expect("what was decoded can be written");
});
