//! Avro and Protobuf records from the network, and schemas from a registry: each record is a row or refused, and no schema is too much.
//!
//! Input: a byte that chooses a decoder, then records, each behind two bytes of its length. With the last two decoders the first record is
//! a schema from a registry.
#![no_main]

use std::sync::LazyLock;

use gillnet_formats::{DecoderOptions, Format, Framing, RecordDecoder, Schemas};
use libfuzzer_sys::fuzz_target;

const COLUMNS: &str = r#"[{"name":"id","type":"string"},{"name":"ts","type":"timestamp","unit":"ms"},{"name":"card","type":"string","nullable":true},
    {"name":"amount","type":"decimal(2)","minimum":0},{"name":"x","type":"float64","nullable":true},{"name":"b","type":"bool","nullable":true}]"#;

const AVRO: &str = r#"{"type":"record","name":"P","fields":[{"name":"id","type":"string"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"card","type":["null","string"]},
    {"name":"rest","type":{"type":"map","values":["null","long",{"type":"array","items":{"type":"record","name":"N",
        "fields":[{"name":"n","type":["null","N"]}]}}]}},
    {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":3}},
    {"name":"x","type":["double","float","null"]},{"name":"b","type":"boolean"}]}"#;

fn decoder(format: Format, framing: Framing, definitions: Vec<Vec<u8>>) -> RecordDecoder {
    let options =
        DecoderOptions { keys: vec!["card".into()], id: Some("id".into()), max_record_bytes: 4_000, max_depth: 8 };
    let schemas = Schemas { format, framing, definitions, message: None };
    RecordDecoder::new(COLUMNS.as_bytes(), options, &schemas).expect("a decoder")
}

static AVRO_RECORDS: LazyLock<RecordDecoder> =
    LazyLock::new(|| decoder(Format::Avro, Framing::Plain, vec![AVRO.into()]));
static SINGLE_OBJECTS: LazyLock<RecordDecoder> =
    LazyLock::new(|| decoder(Format::Avro, Framing::SingleObject, vec![AVRO.into()]));

fn records(mut data: &[u8]) -> Vec<&[u8]> {
    let mut found = vec![];
    while let Some((length, rest)) = data.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (record, rest) = rest.split_at(length);
        found.push(record);
        data = rest;
    }
    found
}

fn check(decoder: &RecordDecoder, records: &[&[u8]]) {
    let decoded = decoder.decode(records).expect("only a batch that is too large is an error");
    assert_eq!(decoded.rows.len(), decoded.batch.num_rows());
    let mut all: Vec<u32> = decoded.rows.iter().copied().chain(decoded.rejected.iter().map(|r| r.index)).collect();
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..records.len() as u32), "each record once");
    assert!(decoded.rejected.iter().all(|r| r.detail.len() < 4_000), "details are bounded");
    // A record does not depend on its neighbours.
    for (row, &record) in decoded.rows.iter().enumerate() {
        let alone = decoder.decode(&[records[record as usize]]).expect("one record");
        assert_eq!(format!("{:?}", alone.batch), format!("{:?}", decoded.batch.slice(row, 1)));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    let records = records(rest);
    match choice % 4 {
        0 => check(&AVRO_RECORDS, &records),
        1 => check(&SINGLE_OBJECTS, &records),
        choice => {
            let Some((schema, records)) = records.split_first() else { return };
            let format = if choice == 2 { Format::Avro } else { Format::Protobuf };
            let decoder = decoder(format, Framing::Confluent, vec![]);
            decoder.add_schema(1, schema, &[]);
            let framed: Vec<Vec<u8>> = records.iter().map(|record| [b"\0\0\0\0\x01", *record].concat()).collect();
            check(&decoder, &framed.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
});
