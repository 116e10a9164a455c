//! Tests of the reader: what it gives does not depend on how the file is cut into batches.

use proptest::prelude::*;

use super::*;

/// Place and, of a good record, its text.
type Row = (String, Option<String>);

fn read_with(file: &[u8], settings: ReaderSettings) -> Vec<(String, Range<u64>, Result<String, String>)> {
    let mut reader = RecordReader::new(file, settings).unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in &batch.records {
            if let Some(bytes) = batch.bytes(record) {
                let at = usize::try_from(record.bytes.start).unwrap()..usize::try_from(record.bytes.end).unwrap();
                assert_eq!(bytes, &file[at], "the range is that of the bytes");
            }
            let content = match &record.fault {
                None => Ok(String::from_utf8(batch.bytes(record).unwrap().to_vec()).unwrap()),
                Some(fault) => Err(fault.clone()),
            };
            rows.push((record.place.to_string(), record.bytes.clone(), content));
        }
    }
    rows
}

fn read(file: &[u8]) -> Vec<Row> {
    let rows = read_with(file, ReaderSettings::default());
    rows.into_iter().map(|(place, _, content)| (place, content.ok())).collect()
}

fn row(place: &str, content: &str) -> Row {
    (place.to_owned(), (!content.is_empty()).then(|| content.to_owned()))
}

fn fault(file: &[u8]) -> String {
    read_with(file, ReaderSettings::default()).pop().unwrap().2.unwrap_err()
}

#[test]
fn lines_keep_their_numbers_past_blank_ones() {
    let file = b"\xef\xbb\xbf\n {\"a\":1} \r\n\r\n\x0b\n{\"a\":\n{}";
    assert_eq!(read(file), [row("line 2", "{\"a\":1}"), row("line 5", ""), row("line 6", "{}")]);
}

#[test]
fn an_array_gives_its_records_by_index() {
    assert_eq!(
        read(b" [ {\"a\":1} , 2,\n{} ] \n"),
        [row("index 0", "{\"a\":1}"), row("index 1", ""), row("index 2", "{}")]
    );
    assert_eq!(read(b"[]"), []);
    assert_eq!(read(b"[{},]"), [row("index 0", "{}")]);
}

#[test]
fn a_bad_record_does_not_hide_those_behind_it() {
    let file = b"[{\"a\":NaN},{\"a\":1,\"a\":1},{\"a\":\"\\ud800\"},{\"a\":1e999},{\"a\":\"\xff\"},{}]";
    let rows = read(file);
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[5], row("index 5", "{}"));
    assert!(rows[..5].iter().all(|(_, content)| content.is_none()));
}

#[test]
fn an_array_that_cannot_be_read_on_says_where() {
    for (file, n_rows, finding) in [
        (&b"[{}"[..], 2, "not closed"),
        (b"[{},", 2, "not closed"),
        (b"[", 1, "not closed"),
        (b"[{} {}]", 2, "expected ',' or ']' after a record; nothing after it is read"),
        (b"[{},{\"a\":}]", 2, "expected a value; from byte 9 of the file on the array cannot be read"),
        (b"[{}, nul", 2, "the text ends, expected null; from byte 8"),
        (b"[{}] x", 2, "text after the array's end: \"x\""),
    ] {
        assert_eq!(read(file).len(), n_rows);
        assert!(fault(file).contains(finding), "{}", fault(file));
    }
    assert_eq!(read(b"[{}]x")[1].0, "file");
}

#[test]
fn a_record_beyond_the_limit_is_refused_by_its_place_and_not_kept() {
    let settings = ReaderSettings { batch_bytes: 16, max_record_bytes: 40 };
    let long = format!("{{\"a\":\"{}\\\"]}}\"}}", "x".repeat(200));
    for file in [format!("{{}}\n{long}\n{{}}\n"), format!("[{{}},{long},{{}}]")] {
        let rows = read_with(file.as_bytes(), settings);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1].2, Err(format!("record of {} bytes; expected at most 40", long.len())));
        let start = u64::try_from(file.find(&long).unwrap()).unwrap();
        assert_eq!(rows[1].1, start..start + u64::try_from(long.len()).unwrap());
        assert_eq!(rows[2].2, Ok("{}".to_owned()));
    }
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let settings = ReaderSettings { batch_bytes: 64, max_record_bytes: 100 };
    let record = format!("{{\"a\":\"{}\"}}\n", "x".repeat(80));
    let blanks = " ".repeat(5000);
    let file = format!("{}{blanks}{}{blanks}\n{}", record.repeat(20), record, "y".repeat(5000));
    let mut reader = RecordReader::new(file.as_bytes(), settings).unwrap();
    let mut n_records = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        assert!(batch.buffer.len() <= 256, "{}", batch.buffer.len());
        n_records += batch.records.len();
    }
    assert_eq!(n_records, 22);
}

#[test]
fn a_failing_source_is_an_error_that_says_where() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let mut reader = RecordReader::new(b"{}\n{".chain(Failing), ReaderSettings::default()).unwrap();
    let message = reader.next_batch().unwrap_err().to_string();
    assert!(message.starts_with("the source, byte 4: the disk is gone"), "{message}");
    assert!(reader.next_batch().unwrap().is_none());
}

#[test]
fn settings_beyond_their_range_are_named() {
    let settings = ReaderSettings { batch_bytes: 0, ..ReaderSettings::default() };
    let message = RecordReader::new(&b""[..], settings).unwrap_err().to_string();
    assert!(message.starts_with("batch_bytes is 0; expected 1 to 536870912"), "{message}");
}

/// Pieces of which files are made: good ones, bad ones, and what lies between.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"{}"[..],
        b"{\"a\":1}",
        b"{\"a\":[1,{\"b\":\"\\n\"}]}",
        b"\n",
        b"\r\n",
        b" ",
        b",",
        b"[",
        b"]",
        b"\"",
        b"\\",
        b"-1.5e3",
        b"1.",
        b"-Infinity",
        b"nul",
        b"null",
        b"{\"k\":\"\\ud83d\\ude00\"}",
        b"{\"k\":\"\xc3\xa9\"}",
        b"\xff",
        b"\x0b",
        b"{\"a\":1,\"a\":2}",
        b"x",
        b"{\"a\":\"a rather long text, longer than a batch\"}",
    ]);
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn batches_do_not_matter(body in pieces(), is_array: bool, batch_bytes in 1_usize..40) {
        let file = if is_array { [b"[", &body[..], b"]"].concat() } else { body };
        let settings = |batch_bytes| ReaderSettings { batch_bytes, ..ReaderSettings::default() };
        prop_assert_eq!(read_with(&file, settings(batch_bytes)), read_with(&file, settings(4096)));
    }

    #[test]
    fn a_joined_array_gives_what_lines_give(records in prop::collection::vec("[a-z\\\\\"{}\\[\\],:0-9]{0,12}", 0..8)) {
        let records: Vec<String> = records
            .iter()
            .map(|text| serde_json::to_string(&serde_json::json!({ "text": text })).unwrap())
            .collect();
        let contents = |file: String| read(file.as_bytes()).into_iter().map(|(_, content)| content).collect::<Vec<_>>();
        prop_assert_eq!(contents(records.join("\n")), contents(format!("[{}]", records.join(", "))));
    }
}
