//! Whole records through the decoder: one reason for each fault, and no panic whatever the bytes.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use gillnet_formats::{Decoded, DecoderOptions, JsonDecoder, JsonEncoder, Reason};

const SCHEMA: &[u8] = br#"[
    {"name": "tx_id", "type": "string", "max_bytes": 32},
    {"name": "ts", "type": "timestamp", "unit": "ms"},
    {"name": "at", "type": "timestamp", "unit": "rfc3339", "nullable": true},
    {"name": "card_id", "type": "string"},
    {"name": "device_id", "type": "string", "nullable": true},
    {"name": "amount", "type": "decimal(2)", "minimum": 0},
    {"name": "items", "type": "int64", "minimum": 1, "maximum": 100},
    {"name": "ratio", "type": "float64", "nullable": true},
    {"name": "online", "type": "bool"}
]"#;

const GOOD: &str = r#"{"tx_id":"t-1","ts":1700000000000,"at":"2026-01-31T23:59:59.5Z","card_id":"c-\u00e9","device_id":null,
 "extra":{"a":[1,{"b":"]}"}]},"amount":12.30,"items":3,"ratio":-0.25,"online":true}"#;

fn decoder() -> JsonDecoder {
    let keys = vec!["card_id".to_owned(), "device_id".to_owned()];
    let options = DecoderOptions { keys, id: Some("tx_id".into()), max_record_bytes: 1_000, max_depth: 4 };
    JsonDecoder::new(SCHEMA, options).unwrap()
}

fn decode(records: &[&str]) -> Decoded {
    decoder().decode(&records.iter().map(|record| record.as_bytes()).collect::<Vec<_>>()).unwrap()
}

fn reason(record: &[u8]) -> Option<(Reason, String)> {
    let decoded = decoder().decode(&[GOOD.as_bytes(), record, GOOD.as_bytes()]).unwrap();
    assert_eq!(decoded.batch.num_rows() + decoded.rejected.len(), 3, "every record is a row or rejected");
    decoded.rejected.into_iter().next().map(|rejected| (rejected.reason, rejected.detail))
}

#[test]
fn a_good_record_becomes_a_row() {
    let Decoded { batch, rows, rejected } = decode(&[GOOD]);
    assert!(rejected.is_empty(), "{rejected:?}");
    assert_eq!(rows, [0]);
    assert_eq!(batch["tx_id"].as_string::<i32>().value(0), "t-1");
    assert_eq!(batch["card_id"].as_string::<i32>().value(0), "c-é");
    assert!(batch["device_id"].is_null(0));
    assert_eq!(batch["ts"].as_primitive::<TimestampMicrosecondType>().value(0), 1_700_000_000_000_000);
    assert_eq!(batch["at"].as_primitive::<TimestampMicrosecondType>().value(0), 1_769_903_999_500_000);
    assert_eq!(batch["amount"].as_primitive::<Decimal128Type>().value(0), 1_230);
    assert_eq!(batch["items"].as_primitive::<Int64Type>().value(0), 3);
}

#[test]
fn each_fault_has_its_reason_and_leaves_the_neighbours_alone() {
    let cases: [(&str, &str, Reason); 25] = [
        (r#""tx_id":"t-1","#, "", Reason::MissingField),
        (r#""tx_id":"t-1""#, r#""tx_id":"""#, Reason::NullId),
        (r#""tx_id":"t-1""#, r#""tx_id":null"#, Reason::NullId),
        (r#""tx_id":"t-1""#, r#""tx_id":"ttttttttttttttttttttttttttttttttt""#, Reason::TooLarge),
        (r#""tx_id":"t-1""#, r#""tx_id":"\ud800""#, Reason::NotUtf8),
        (r#""tx_id":"t-1""#, r#""tx_id":"t-1","tx_\u0069d":"t-1""#, Reason::DuplicateField),
        (r#""c-\u00e9""#, "null", Reason::NullKey),
        (r#""c-\u00e9""#, r#""""#, Reason::EmptyKey),
        (r#""c-\u00e9""#, "[1]", Reason::WrongType),
        ("1700000000000", "1700000000000.0", Reason::WrongType),
        ("1700000000000", "17e11", Reason::WrongType),
        ("1700000000000", "null", Reason::NullValue),
        ("1700000000000", "9223372036854775807", Reason::OutOfRange),
        ("2026-01-31T", "2026-02-31T", Reason::BadTimestamp),
        ("12.30", "12.345", Reason::InexactDecimal),
        ("12.30", "-0.01", Reason::OutOfRange),
        ("12.30", "\"12,30\"", Reason::WrongType),
        ("12.30", "012", Reason::NotJson),
        ("\"items\":3", "\"items\":101", Reason::OutOfRange),
        ("-0.25", "1e999", Reason::NotFinite),
        ("-0.25", "NaN", Reason::NotJson),
        ("-0.25", "\"NaN\"", Reason::NotFinite),
        ("true}", "1}", Reason::WrongType),
        ("true}", "true", Reason::NotJson),
        ("[1,{", "[[[1]],{", Reason::TooDeep),
    ];
    for (from, to, expected) in cases {
        assert!(GOOD.contains(from), "{from}");
        let (reason, detail) =
            reason(GOOD.replacen(from, to, 1).as_bytes()).unwrap_or_else(|| panic!("{to} was accepted"));
        assert_eq!(reason, expected, "{to}: {detail}");
    }
    assert_eq!(reason(b"").unwrap().0, Reason::EmptyRecord);
    assert_eq!(reason(b" \n").unwrap().0, Reason::EmptyRecord);
    assert_eq!(reason(b"[1]").unwrap().0, Reason::NotAnObject);
    assert_eq!(reason(b"{}").unwrap().0, Reason::MissingField);
    assert_eq!(reason(b"{\"a\":\"\xff\"}").unwrap().0, Reason::NotUtf8);
    assert_eq!(reason(&[b' '; 1_001]).unwrap().0, Reason::TooLarge);
}

#[test]
fn a_fault_of_the_grammar_goes_before_a_fault_of_a_field() {
    let (reason, _) = reason(br#"{"tx_id":null,"ts":tru}"#).unwrap();
    assert_eq!(reason, Reason::NotJson);
}

#[test]
fn details_are_bounded_and_printable() {
    let record = GOOD.replace("12.30", &format!("\"{}\\n\"", "é".repeat(400)));
    let (reason, detail) = reason(record.as_bytes()).unwrap();
    assert_eq!(reason, Reason::WrongType);
    assert!(detail.starts_with("column 'amount': expected decimal(2)"), "{detail}");
    assert!(detail.len() < 300 && !detail.contains('\n'), "{detail}");
}

#[test]
fn an_empty_nullable_key_is_a_null() {
    let decoded = decode(&[&GOOD.replace("\"device_id\":null", "\"device_id\":\"\"")]);
    assert!(decoded.rejected.is_empty());
    assert!(decoded.batch["device_id"].is_null(0));
}

/// Splitmix64: enough randomness for a test, the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % limit as u64) as usize
    }

    fn mutate(&mut self, record: &mut Vec<u8>) {
        const SPICE: &[u8] = b"\"\\{}[],:.-+eE0123456789ntfu \n\x00\x1f\x7f\x80\xc3\xff";
        for _ in 0..=self.below(4) {
            let at = self.below(record.len().max(1)).min(record.len());
            match self.below(4) {
                0 if at < record.len() => drop(record.remove(at)),
                1 => record.insert(at, SPICE[self.below(SPICE.len())]),
                2 => record.truncate(at),
                _ if at < record.len() => record[at] = SPICE[self.below(SPICE.len())],
                _ => record.push(self.below(256) as u8),
            }
        }
    }
}

#[test]
fn mutated_records_never_panic_and_agree_with_serde_json_on_the_grammar() {
    let (decoder, mut random) = (decoder(), Random(1));
    let mut accepted = 0;
    for _ in 0..100_000 {
        let mut record = GOOD.as_bytes().to_vec();
        random.mutate(&mut record);
        let Decoded { batch, rows, rejected } = decoder.decode(&[&record, GOOD.as_bytes()]).unwrap();
        assert_eq!((batch.num_rows(), rows.len() + rejected.len()), (rows.len(), 2));
        assert_eq!(rows.last(), Some(&1), "the good record after a bad one stays a row");
        let shown = String::from_utf8_lossy(&record);
        // serde_json takes no lone surrogates and no numbers beyond a double even where nobody reads them.
        let is_json = serde_json::from_slice::<&serde_json::value::RawValue>(&record).is_ok();
        match rejected.first() {
            None => {
                accepted += 1;
                assert!(is_json, "accepted, but no JSON: {shown}");
            }
            Some(bad) if bad.reason == Reason::NotJson => assert!(!is_json, "{}: {shown}", bad.detail),
            Some(bad) if matches!(bad.reason, Reason::EmptyRecord | Reason::NotUtf8 | Reason::TooLarge) => {}
            Some(bad) => assert!(is_json, "{}: {shown}", bad.reason),
        }
    }
    assert!(accepted > 5_000, "mutations must leave some records good: {accepted}");
}

fn encode(spec: &str, batch: &RecordBatch) -> Vec<String> {
    let encoded = JsonEncoder::new(spec.as_bytes()).unwrap().encode(batch).unwrap();
    encoded.iter().map(|record| String::from_utf8(record.to_vec()).unwrap()).collect()
}

#[test]
fn the_encoder_renames_orders_groups_and_adds_constants() {
    let batch = decode(&[GOOD]).batch;
    let spec = r#"{"fields": [
        {"name": "id", "column": "tx_id"}, {"name": "ts", "timestamp": "s"}, {"name": "at"},
        {"name": "features", "fields": [{"name": "amount"}, {"name": "device_id"}, {"name": "ratio"}]},
        {"name": "model", "constant": {"v": 1}}, {"name": "rule", "constant": null}, {"name": "none", "fields": []}]}"#;
    assert_eq!(
        encode(spec, &batch),
        [concat!(
            r#"{"id":"t-1","ts":1700000000,"at":"2026-01-31T23:59:59.500000Z","#,
            r#""features":{"amount":12.30,"device_id":null,"ratio":-0.25},"model":{"v":1},"rule":null,"none":{}}"#
        )]
    );
    let omitting = spec.replacen('{', r#"{"omit_nulls": true, "#, 1);
    assert!(encode(&omitting, &batch)[0].contains(r#"{"amount":12.30,"ratio":-0.25}"#));
}

#[test]
fn wrong_specifications_are_named() {
    for (spec, what) in [
        (r#"{"fields": [{"name": "a"}, {"name": "a"}]}"#, "twice"),
        (r#"{"fields": [{"name": "a", "column": "b", "constant": 1}]}"#, "one of column"),
        (r#"{"fields": [{"name": "a", "timestamp": "ns"}]}"#, "ns"),
    ] {
        let error = JsonEncoder::new(spec.as_bytes()).err().expect(spec).to_string();
        assert!(error.contains(what), "{error}");
    }
    let missing = JsonEncoder::new(br#"{"fields": [{"name": "nope"}]}"#).unwrap().encode(&decode(&[GOOD]).batch);
    assert!(missing.unwrap_err().to_string().contains("nope"));
}
