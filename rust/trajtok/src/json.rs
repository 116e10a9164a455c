//! A strict JSON scanner: judges a text and finds where its values stand, without building them.
//!
//! Stricter than the grammar where a record would be read in two ways, or not at all, by whoever comes next: a key may
//! stand once per object, NaN and Infinity are refused, so are lone surrogates and floats beyond f64, and values nest at
//! most [`MAX_DEPTH`] levels.
//!
//! A fault is *soft* where the scanner still knows where the value ends, and it goes on; else it is *hard*, and it stops.

use std::borrow::Cow;
use std::ops::Range;

use crate::json_text::plain_len;

/// How deep values may nest.
pub const MAX_DEPTH: usize = 512;
/// Digits of a whole number: as many as Python converts by default.
const MAX_DIGITS: usize = 4300;

/// A hard fault was met; [`Scanner::fault`] says which.
#[derive(Debug)]
pub(crate) struct Stop;

/// A string's place, without its quotes.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) at: Range<usize>,
    pub(crate) has_escape: bool,
}

impl Text {
    /// The string's content in the text that was scanned.
    pub(crate) fn read<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let raw = text.get(self.at.clone()).unwrap_or_default();
        if self.has_escape { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }
}

/// Reads JSON values one after the other.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    /// The next byte.
    pub(crate) at: usize,
    /// The first soft fault, or the hard one.
    pub(crate) fault: Option<String>,
    /// Whether a byte behind the end was asked for: more bytes might have given another answer.
    pub(crate) is_cut: bool,
    depth: usize,
    keys: Vec<Text>,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, fault: None, is_cut: false, depth: 0, keys: Vec::new() }
    }

    /// The next byte; 0, which no JSON text holds outside of a fault, at the end.
    pub(crate) fn peek(&mut self) -> u8 {
        self.peek_at(self.at)
    }

    fn peek_at(&mut self, at: usize) -> u8 {
        let byte = self.bytes.get(at).copied();
        self.is_cut |= byte.is_none();
        byte.unwrap_or(0)
    }

    pub(crate) fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Notes a fault and goes on.
    pub(crate) fn note(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }

    #[cold]
    fn stop(&mut self, expected: &str) -> Stop {
        let found = match self.bytes.get(self.at) {
            Some(&byte) if byte.is_ascii_graphic() => format!("found {:?}", char::from(byte)),
            Some(&byte) => format!("found the byte 0x{byte:02x}"),
            None => "the text ends".to_owned(),
        };
        self.fault = Some(format!("not JSON at byte {}: {found}, expected {expected}", self.at));
        Stop
    }

    /// Passes one value.
    pub(crate) fn skip_value(&mut self) -> Result<(), Stop> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'{' => self.object(|scanner, _| scanner.skip_value()),
            b'[' => self.array(Self::skip_value),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'N' => self.constant("NaN"),
            b'I' => self.constant("Infinity"),
            b'-' if self.peek_at(self.at + 1) == b'I' => self.constant("-Infinity"),
            _ => self.number().map(drop),
        }
    }

    /// Passes an object; `visit` is called before each value, with its key, and has to pass it.
    pub(crate) fn object(&mut self, mut visit: impl FnMut(&mut Self, &Text) -> Result<(), Stop>) -> Result<(), Stop> {
        self.enter()?;
        let first = self.keys.len();
        if self.peek() == b'}' {
            self.leave(first);
            return Ok(());
        }
        loop {
            if self.peek() != b'"' {
                return Err(self.stop("a key in double quotes"));
            }
            let key = self.string()?;
            self.skip_blanks();
            if self.peek() != b':' {
                return Err(self.stop("':' after the key"));
            }
            self.at += 1;
            self.skip_blanks();
            visit(self, &key)?;
            self.keys.push(key);
            if self.is_last(b'}', "',' or '}' after the value")? {
                self.leave(first);
                return Ok(());
            }
        }
    }

    /// Passes an array; `visit` is called before each value and has to pass it.
    pub(crate) fn array(&mut self, mut visit: impl FnMut(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        self.enter()?;
        let first = self.keys.len();
        if self.peek() == b']' {
            self.leave(first);
            return Ok(());
        }
        loop {
            visit(self)?;
            if self.is_last(b']', "',' or ']' after the value")? {
                self.leave(first);
                return Ok(());
            }
        }
    }

    /// Passes an opening bracket.
    fn enter(&mut self) -> Result<(), Stop> {
        if self.depth == MAX_DEPTH {
            return Err(self.stop("at most 512 levels of nesting"));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blanks();
        Ok(())
    }

    /// Passes a closing bracket and judges the keys from `first` on.
    fn leave(&mut self, first: usize) {
        self.at += 1;
        self.depth -= 1;
        if let Some(key) = twice(self.bytes, &self.keys[first..]) {
            self.note(format!("key {key:?} stands twice in one object that ends at byte {}; expected once", self.at));
        }
        self.keys.truncate(first);
    }

    /// Whether a closing bracket follows a value; passes the comma if not.
    fn is_last(&mut self, close: u8, expected: &str) -> Result<bool, Stop> {
        self.skip_blanks();
        match self.peek() {
            b',' => {
                self.at += 1;
                self.skip_blanks();
                Ok(false)
            }
            byte if byte == close => Ok(true),
            _ => Err(self.stop(expected)),
        }
    }

    /// Passes a string.
    pub(crate) fn string(&mut self) -> Result<Text, Stop> {
        self.at += 1;
        let (start, mut has_escape) = (self.at, false);
        loop {
            self.at += plain_len(&self.bytes[self.at..]);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(Text { at: start..self.at - 1, has_escape });
                }
                b'\\' => {
                    has_escape = true;
                    self.escape()?;
                }
                _ => return Err(self.stop("a string without control characters, and its closing quote")),
            }
        }
    }

    /// Passes an escape sequence, or both of a surrogate pair.
    fn escape(&mut self) -> Result<(), Stop> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                return Ok(());
            }
            b'u' => {}
            _ => return Err(self.stop("one of \"\\/bfnrtu after a backslash")),
        }
        let unit = self.unit()?;
        let has_next = is_high(unit) && self.peek() == b'\\' && self.peek_at(self.at + 1) == b'u';
        let is_lone = if has_next {
            let before = self.at;
            self.at += 1;
            let next = self.unit()?;
            if !is_low(next) {
                self.at = before;
            }
            !is_low(next)
        } else {
            is_high(unit) || is_low(unit)
        };
        if is_lone {
            self.note(format!("lone surrogate \\u{unit:04x} before byte {}; expected a pair", self.at));
        }
        Ok(())
    }

    /// Passes `u` and four hexadecimal digits.
    fn unit(&mut self) -> Result<u16, Stop> {
        let mut unit = 0;
        for _ in 0..4 {
            self.at += 1;
            let byte = self.peek();
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Err(self.stop("four hexadecimal digits after \\u"));
            };
            unit = unit << 4 | digit;
        }
        self.at += 1;
        Ok(u16::try_from(unit).unwrap_or_default())
    }

    fn literal(&mut self, name: &'static str) -> Result<(), Stop> {
        for &byte in name.as_bytes() {
            if self.peek() != byte {
                return Err(self.stop(name));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn constant(&mut self, name: &'static str) -> Result<(), Stop> {
        self.literal(name)?;
        self.note(format!("{name} before byte {} is not JSON; expected a number or null", self.at));
        Ok(())
    }

    /// Passes a number, as far as it goes.
    pub(crate) fn number(&mut self) -> Result<&'a str, Stop> {
        let start = self.at;
        self.at += usize::from(self.peek() == b'-');
        match self.peek() {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.skip_digits(),
            _ => {
                self.at = start;
                return Err(self.stop("a value"));
            }
        }
        let n_digits = self.at - start;
        let mut is_float = self.peek() == b'.' && self.peek_at(self.at + 1).is_ascii_digit();
        if is_float {
            self.at += 1;
            self.skip_digits();
        }
        if matches!(self.peek(), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek_at(self.at + 1), b'+' | b'-'));
            if self.peek_at(self.at + 1 + sign).is_ascii_digit() {
                is_float = true;
                self.at += 1 + sign;
                self.skip_digits();
            }
        }
        let number = str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        let is_beyond = if is_float { is_infinite(number) } else { n_digits > MAX_DIGITS };
        if is_beyond {
            self.note(format!("the number before byte {} is too large; expected a float of 64 bits", self.at));
        }
        Ok(number)
    }

    fn skip_digits(&mut self) {
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
    }
}

fn is_infinite(number: &str) -> bool {
    let is_suspicious = number.len() > 300 || number.contains(['e', 'E']);
    is_suspicious && number.parse::<f64>().is_ok_and(f64::is_infinite)
}

fn is_high(unit: u16) -> bool {
    (0xd800..0xdc00).contains(&unit)
}

fn is_low(unit: u16) -> bool {
    (0xdc00..0xe000).contains(&unit)
}

/// A key that stands twice.
fn twice(bytes: &[u8], keys: &[Text]) -> Option<String> {
    if keys.len() > 16 || keys.iter().any(|key| key.has_escape) {
        return twice_of_many(bytes, keys);
    }
    let raw = |key: &Text| &bytes[key.at.clone()];
    let is_twice = |&at: &usize| keys[..at].iter().any(|key| raw(key) == raw(&keys[at]));
    (1..keys.len()).find(is_twice).map(|at| String::from_utf8_lossy(raw(&keys[at])).into_owned())
}

fn twice_of_many(bytes: &[u8], keys: &[Text]) -> Option<String> {
    let text = |key: &Text| match String::from_utf8_lossy(&bytes[key.at.clone()]) {
        raw if key.has_escape => Cow::Owned(unescape(&raw)),
        raw => raw,
    };
    let mut sorted: Vec<Cow<'_, str>> = keys.iter().map(text).collect();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone().into_owned())
}

/// The content of a string that was scanned without a hard fault; a lone surrogate becomes U+FFFD.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let (char, n_bytes) = read_escape(&rest[at..]);
        text.push(char);
        rest = rest.get(at + n_bytes..).unwrap_or_default();
    }
    text.push_str(rest);
    text
}

/// The character that an escape sequence stands for, and the sequence's length.
fn read_escape(escape: &str) -> (char, usize) {
    match escape.as_bytes().get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => read_units(escape),
        Some(&byte) => (char::from(byte), 2),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

fn read_units(escape: &str) -> (char, usize) {
    let unit =
        |escape: &str| escape.get(2..6).and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or(0xd800);
    let first = unit(escape);
    let next = escape.get(6..).filter(|next| is_high(first) && next.starts_with("\\u")).map(unit);
    match next.filter(|&next| is_low(next)) {
        Some(second) => (char::decode_utf16([first, second]).flatten().next().unwrap_or_default(), 12),
        None => (char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
    }
}

/// Why a record's own bytes, without blanks around them, are no record: one JSON object.
pub(crate) fn find_fault(record: &[u8]) -> Option<String> {
    if let Err(fault) = as_utf8(record) {
        return Some(fault);
    }
    let mut scanner = Scanner::new(record);
    if scanner.skip_value().is_ok() {
        judge_end(&mut scanner, record);
    }
    scanner.fault
}

/// Notes what is wrong with a record after its value was passed.
pub(crate) fn judge_end(scanner: &mut Scanner<'_>, record: &[u8]) {
    if scanner.at < record.len() {
        let rest = excerpt(&record[scanner.at..]);
        scanner.note(format!("text after the record at byte {}: {rest:?}; expected one object", scanner.at));
    }
    judge_kind(scanner, record);
}

/// Notes it if the value is no object.
pub(crate) fn judge_kind(scanner: &mut Scanner<'_>, record: &[u8]) {
    let kind = match record.first() {
        Some(b'{') => return,
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    scanner.note(format!("found {kind}, expected an object"));
}

pub(crate) fn as_utf8(record: &[u8]) -> Result<&str, String> {
    str::from_utf8(record).map_err(|error| format!("not UTF-8 at byte {} of the record", error.valid_up_to()))
}

/// Bytes that [`excerpt`] looks at: 40 characters.
pub(crate) const EXCERPT_BYTES: usize = 160;

/// The beginning of what was found.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES)]).chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_records_have_no_fault() {
        for record in [
            "{}",
            r#"{"a": [1, -0, 0.5, 1e5, 1E+5, -1.5e-300, true, false, null, {}, [], ""]}"#,
            r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀"}"#,
            "{ \"a\"\t:\r\n1 , \"b\" : { } }",
            r#"{"a":{"b":1},"b":{"a":1}}"#,
        ] {
            assert_eq!(find_fault(record.as_bytes()), None, "{record}");
        }
    }

    #[test]
    fn every_fault_is_found() {
        for (record, finding) in [
            ("{", "the text ends, expected a key"),
            (r#"{"a"}"#, "expected ':'"),
            (r#"{"a":1,}"#, "expected a key"),
            (r#"{"a":[1,]}"#, "expected a value"),
            (r#"{"a":01}"#, "expected ',' or '}'"),
            (r#"{"a":1.}"#, "expected ',' or '}'"),
            (r#"{"a":-}"#, "expected a value"),
            (r#"{"a":nul}"#, "expected null"),
            ("{\"a\":\"\n\"}", "the byte 0x0a, expected a string without control"),
            (r#"{"a":"\x"}"#, "after a backslash"),
            (r#"{"a":"\u12g4"}"#, "four hexadecimal"),
            (r#"{"a":1} {}"#, "text after the record at byte 7: \" {}\""),
            (r#"{"a":1,"a":2}"#, "key \"a\" stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "key \"a\" stands twice"),
            (r#"{"a":NaN}"#, "NaN"),
            (r#"{"a":-Infinity}"#, "-Infinity"),
            (r#"{"a":1e999}"#, "too large"),
            (r#"{"a":"\ud800"}"#, "lone surrogate \\ud800"),
            (r#"{"a":"\udc00"}"#, "lone surrogate"),
            (r#"{"a":"\ud800\ud800\udc00"}"#, "lone surrogate"),
            ("[]", "found an array, expected an object"),
            ("1", "found a number"),
        ] {
            let fault = find_fault(record.as_bytes()).unwrap_or_default();
            assert!(fault.contains(finding), "{record}: {fault:?}");
        }
        assert!(find_fault(b"{\"a\":\"\xff\"}").unwrap().starts_with("not UTF-8 at byte 6"));
    }

    #[test]
    fn values_nest_to_the_limit_and_no_further() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert_eq!(find_fault(nested(MAX_DEPTH).as_bytes()), None);
        assert!(find_fault(nested(MAX_DEPTH + 1).as_bytes()).unwrap().contains("512 levels"));
        assert!(find_fault("[".repeat(1_000_000).as_bytes()).is_some());
    }

    #[test]
    fn a_key_that_stands_twice_is_found_among_many() {
        let keys = |last: usize| (0..50).chain([last]).map(|n| format!("\"k{n}\":0")).collect::<Vec<_>>().join(",");
        assert_eq!(find_fault(format!("{{{}}}", keys(50)).as_bytes()), None);
        assert!(find_fault(format!("{{{}}}", keys(7)).as_bytes()).unwrap().contains("\"k7\" stands twice"));
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(unescape(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z\ud800!"#), "a\"\\/\u{8}\u{c}\n\r\té😀z\u{fffd}!");
    }
}
