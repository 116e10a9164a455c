//! Any bytes through the reader: it never panics, batches do not matter, ranges are those of the bytes, what it calls good
//! is good for serde_json too, and the typed reader is as strict.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trajtok::{MAX_DEPTH, ReaderSettings, RecordReader, Shape};

/// Place, and the record's bytes or its fault.
type Row = (String, Result<Vec<u8>, String>);

fn read(file: &[u8], batch_bytes: usize, max_record_bytes: usize) -> Vec<Row> {
    let settings = ReaderSettings { batch_bytes, max_record_bytes };
    let mut reader = RecordReader::new(file, settings).expect("the settings are in range");
    let mut rows = Vec::new();
    while let Some(batch) = reader.next_batch().expect("a slice does not fail") {
        assert!(batch.records.iter().len() > 0);
        for record in &batch.records {
            let range = record.bytes.start as usize..record.bytes.end as usize;
            let bytes = batch.bytes(record);
            assert!(bytes.is_none_or(|bytes| bytes == &file[range]));
            let content = match &record.fault {
                Some(fault) => Err(fault.clone()),
                None => Ok(bytes.expect("a good record has bytes").to_vec()),
            };
            rows.push((record.place.to_string(), content));
        }
    }
    rows
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (batch_bytes, max_record_bytes, file) = (usize::from(input.0) + 1, usize::from(input.1) + 1, input.2);
    let rows = read(file, 1 << 16, 1 << 20);
    assert_eq!(rows, read(file, batch_bytes, 1 << 20), "batches do not matter");
    read(file, batch_bytes, max_record_bytes);
    for record in rows.iter().filter_map(|(_, content)| content.as_ref().ok()) {
        let text = std::str::from_utf8(record).expect("a good record is UTF-8");
        let is_deep = text.bytes().filter(|byte| b"[{".contains(byte)).count() > 120;
        assert!(MAX_DEPTH > 120 && (is_deep || is_json(text)), "serde_json refuses {text}");
    }
    let mut messages = Vec::new();
    if Shape::default().read(file, &mut messages).is_ok() {
        assert!(rows.iter().any(|(_, content)| content.is_ok()) || file.contains(&b'\n'), "the typed reader is laxer");
        let found: serde_json::Value = serde_json::from_slice(file).expect("a typed record is JSON");
        let lists = ["messages", "conversations", "items"].map(|key| found[key].as_array());
        let list = lists.into_iter().flatten().next().expect("a typed record has a list");
        for (message, expected) in messages.iter().zip(list) {
            let content = expected["content"].as_str().or(expected["value"].as_str());
            assert_eq!(Some(&*message.content), content);
        }
        assert_eq!(messages.len(), list.len());
    } else {
        assert!(messages.is_empty());
    }
});

/// Whole numbers of any size are good records, but too large for a `Value`.
fn is_json(text: &str) -> bool {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(found) => found.is_object(),
        Err(error) => error.to_string().starts_with("number out of range"),
    }
}
