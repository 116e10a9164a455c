//! Splits a file into records, strictly: what is not proper JSON is refused by place and reason, never guessed.
//!
//! A file holds either JSON lines or one JSON array, told by its first character that is no blank. It is read in batches, so
//! that memory does not grow with the file: a batch is a few megabytes, or as large as one record, up to a limit.
//!
//! Every record of the file comes back, with its place, its own bytes, and why it is refused if it is. Where an array cannot
//! be read any further, the last record says so. What a good record is, [`crate::MAX_DEPTH`] and `json` say.

use std::fmt;
use std::io::Read;
use std::ops::Range;

use rayon::prelude::*;

use crate::error::Error;
use crate::json::{EXCERPT_BYTES, Scanner, as_utf8, excerpt, find_fault, judge_kind};

/// How much is read and kept at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderSettings {
    /// Bytes per batch; a longer record makes its batch longer.
    pub batch_bytes: usize,
    /// Bytes of the longest record that is read. A longer one is refused by its place, without being kept.
    pub max_record_bytes: usize,
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self { batch_bytes: 8 << 20, max_record_bytes: 100_000_000 }
    }
}

/// The most bytes that either setting may have: Arrow's columns of text hold less than 2^31 per batch.
const MAX_BYTES: usize = 1 << 29;

impl ReaderSettings {
    fn check(self) -> Result<Self, Error> {
        for (name, value) in [("batch_bytes", self.batch_bytes), ("max_record_bytes", self.max_record_bytes)] {
            if !(1..=MAX_BYTES).contains(&value) {
                return Err(Error::ReaderSetting { name, value });
            }
        }
        Ok(self)
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A line, from 1.
    Line(u64),
    /// A place in the array, from 0.
    Index(u64),
    /// Not a record, but the file around its records.
    File,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(formatter, "line {number}"),
            Self::Index(number) => write!(formatter, "index {number}"),
            Self::File => formatter.write_str("file"),
        }
    }
}

/// One record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its line or index.
    pub place: Place,
    /// Its bytes in the file, without the blanks around it.
    pub bytes: Range<u64>,
    /// Why it is refused, if it is.
    pub fault: Option<String>,
    /// Its bytes in the batch, if they were kept.
    kept: Option<Range<usize>>,
}

/// Records that were read together.
#[derive(Debug)]
pub struct RecordBatch<'a> {
    /// In the order of the file.
    pub records: Vec<Record>,
    buffer: &'a [u8],
}

impl RecordBatch<'_> {
    /// A record's own bytes, also of a refused one; `None` where there are none, or too many.
    #[must_use]
    pub fn bytes(&self, record: &Record) -> Option<&[u8]> {
        record.kept.clone().map(|kept| &self.buffer[kept])
    }
}

/// Reads records batch by batch.
///
/// ```
/// use trajtok::{ReaderSettings, RecordReader};
///
/// let file = b"{\"a\": 1}\n\n{\"a\": NaN}\n";
/// let mut reader = RecordReader::new(&file[..], ReaderSettings::default())?;
/// let batch = reader.next_batch()?.unwrap();
/// let places: Vec<String> = batch.records.iter().map(|record| record.place.to_string()).collect();
/// assert_eq!(places, ["line 1", "line 3"]);
/// assert_eq!(batch.bytes(&batch.records[0]), Some(&b"{\"a\": 1}"[..]));
/// assert!(batch.records[1].fault.as_ref().unwrap().starts_with("NaN"));
/// # Ok::<(), trajtok::Error>(())
/// ```
#[derive(Debug)]
pub struct RecordReader<R> {
    input: Input<R>,
    settings: ReaderSettings,
    state: State,
    /// The number of the line at `input.at`, or of the next record of the array.
    number: u64,
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Lines,
    /// In an array, where a record or the end may stand: a comma before the end loses nothing and is let pass.
    Value,
    /// In an array, behind a record.
    Comma,
    /// Behind an array.
    Tail,
    Done,
}

/// What a step came to.
enum Step {
    Found(Record),
    /// Only more bytes tell.
    NeedsMore,
    /// Nothing was found, or the state is another one.
    Nothing,
}

impl<R: Read> RecordReader<R> {
    /// A reader of the bytes that `source` gives.
    ///
    /// # Errors
    /// [`Error::ReaderSetting`].
    pub fn new(source: R, settings: ReaderSettings) -> Result<Self, Error> {
        let settings = settings.check()?;
        Ok(Self { input: Input::new(source, settings.batch_bytes), settings, state: State::Start, number: 0 })
    }

    /// The next records, at least one; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Read`] if the source fails; the reader is at its end then.
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch<'_>>, Error> {
        let records = self.next_records().inspect_err(|_| self.state = State::Done)?;
        let buffer = self.input.filled();
        Ok((!records.is_empty()).then_some(RecordBatch { records, buffer }))
    }

    fn next_records(&mut self) -> Result<Vec<Record>, Error> {
        if self.state != State::Done {
            self.input.fill(self.settings.batch_bytes)?;
        }
        if self.state == State::Start {
            self.start()?;
        }
        loop {
            let records = match self.state {
                State::Done => return Ok(Vec::new()),
                State::Lines => self.lines()?,
                _ => self.array()?,
            };
            if !records.is_empty() || self.state == State::Done {
                return Ok(records);
            }
        }
    }

    /// Tells lines from an array, and passes the blanks before.
    fn start(&mut self) -> Result<(), Error> {
        while self.input.rest().len() < 3 && !self.input.is_at_end {
            self.input.grow()?;
        }
        if self.input.rest().starts_with(b"\xef\xbb\xbf") {
            self.input.at += 3;
        }
        self.number = 1;
        while let Some(byte) = self.input.next_byte()? {
            if !is_blank(byte) {
                break;
            }
            self.number += u64::from(byte == b'\n');
            self.input.at += 1;
        }
        self.state = State::Lines;
        if self.input.rest().first() == Some(&b'[') {
            self.input.at += 1;
            self.number = 0;
            self.state = State::Value;
        }
        Ok(())
    }

    /// The records of all lines that are in the buffer as a whole.
    fn lines(&mut self) -> Result<Vec<Record>, Error> {
        let rest = self.input.rest();
        let end = if self.input.is_at_end { Some(rest.len()) } else { memchr::memrchr(b'\n', rest).map(|at| at + 1) };
        let Some(end) = end else { return self.long_line() };
        let (mut lines, mut start) = (Vec::new(), self.input.at);
        let end = start + end;
        while start < end {
            let line = &self.input.buffer[start..end];
            let n_bytes = memchr::memchr(b'\n', line).unwrap_or(line.len());
            lines.push((self.number, trim(line, start, n_bytes)));
            self.number += 1;
            start += n_bytes + 1;
        }
        self.input.at = end;
        if self.input.is_at_end {
            self.state = State::Done;
        }
        lines.retain(|(_, line)| !line.is_empty());
        let window = self.window();
        Ok(lines.into_par_iter().map(|(number, line)| window.judge(Place::Line(number), line, find_fault)).collect())
    }

    /// Makes room for a line that is longer than the buffer; one that is too long is passed and refused.
    fn long_line(&mut self) -> Result<Vec<Record>, Error> {
        let n_blank = self.input.rest().iter().take_while(|&&byte| is_blank(byte)).count();
        self.input.at += n_blank;
        if self.input.rest().len() <= self.settings.max_record_bytes {
            self.input.grow()?;
            return Ok(Vec::new());
        }
        let (place, start) = (Place::Line(self.number), self.input.position());
        loop {
            let newline = memchr::memchr(b'\n', self.input.rest());
            self.input.at += newline.unwrap_or(self.input.rest().len());
            if newline.is_some() || self.input.is_at_end {
                return Ok(vec![self.too_long(place, start)]);
            }
            self.input.grow()?;
        }
    }

    /// The records of an array up to the end of the buffer.
    fn array(&mut self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        while self.state != State::Done {
            let step = match self.state {
                State::Value => self.value(),
                State::Comma => self.comma(),
                _ => self.tail(),
            };
            match step {
                Step::Found(record) => records.push(record),
                Step::Nothing => {}
                Step::NeedsMore if !records.is_empty() => return Ok(records),
                Step::NeedsMore if self.is_too_long() => records.push(self.long_value()?),
                Step::NeedsMore => self.input.grow()?,
            }
        }
        Ok(records)
    }

    /// A record of an array, or the array's end.
    fn value(&mut self) -> Step {
        match self.skip_json_blanks() {
            None => return self.end_of_bytes(),
            Some(b']') => {
                self.input.at += 1;
                self.state = State::Tail;
                return Step::Nothing;
            }
            Some(_) => {}
        }
        let (start, place) = (self.input.at, Place::Index(self.number));
        let mut scanner = Scanner::new(self.input.rest());
        let is_passed = scanner.skip_value().is_ok();
        if scanner.is_cut && !self.input.is_at_end {
            return Step::NeedsMore;
        }
        let (end, fault) = (start + scanner.at, scanner.fault);
        if !is_passed {
            let fault = fault.unwrap_or_default();
            let byte = self.input.position_of(end);
            return self.give_up(place, format!("{fault}; from byte {byte} of the file on the array cannot be read"));
        }
        self.input.at = end;
        self.number += 1;
        self.state = State::Comma;
        let judge = |record: &[u8]| fault.or_else(|| judge_value(record));
        Step::Found(self.window().judge(place, start..end, judge))
    }

    fn comma(&mut self) -> Step {
        match self.skip_json_blanks() {
            None => self.end_of_bytes(),
            Some(b',') => {
                self.input.at += 1;
                self.state = State::Value;
                Step::Nothing
            }
            Some(b']') => {
                self.state = State::Value;
                Step::Nothing
            }
            Some(_) if self.input.may_quote_more() => Step::NeedsMore,
            Some(_) => {
                let (found, byte) = (excerpt(self.input.rest()), self.input.position());
                let fault = format!("found {found:?} at byte {byte} of the file; expected ',' or ']' after a record");
                self.give_up(Place::Index(self.number), format!("{fault}; nothing after it is read"))
            }
        }
    }

    /// What stands behind the array: blanks only.
    fn tail(&mut self) -> Step {
        let n_blank = self.input.rest().iter().take_while(|&&byte| is_blank(byte)).count();
        self.input.at += n_blank;
        if self.input.rest().is_empty() {
            if !self.input.is_at_end {
                return Step::NeedsMore;
            }
            self.state = State::Done;
            return Step::Nothing;
        }
        if self.input.may_quote_more() {
            return Step::NeedsMore;
        }
        let found = excerpt(self.input.rest());
        self.give_up(Place::File, format!("text after the array's end: {found:?}; expected one array and nothing else"))
    }

    fn end_of_bytes(&mut self) -> Step {
        if self.input.is_at_end {
            let fault = "the array is not closed; expected ']': the file is cut";
            return self.give_up(Place::Index(self.number), fault.to_owned());
        }
        Step::NeedsMore
    }

    /// A fault behind which nothing is read.
    fn give_up(&mut self, place: Place, fault: String) -> Step {
        self.state = State::Done;
        let at = self.input.position();
        Step::Found(Record { place, bytes: at..at, fault: Some(fault), kept: None })
    }

    fn is_too_long(&self) -> bool {
        self.state == State::Value && self.input.rest().len() > self.settings.max_record_bytes
    }

    /// Passes a record of an array that is too long, by its brackets and quotes alone.
    fn long_value(&mut self) -> Result<Record, Error> {
        let (place, start) = (Place::Index(self.number), self.input.position());
        let mut skipper = Skipper::default();
        loop {
            let end = skipper.find_end(self.input.rest());
            self.input.at += end.unwrap_or(self.input.rest().len());
            if end.is_some() || self.input.is_at_end {
                self.number += 1;
                self.state = State::Comma;
                return Ok(self.too_long(place, start));
            }
            self.input.grow()?;
        }
    }

    fn too_long(&self, place: Place, start: u64) -> Record {
        let (bytes, max) = (start..self.input.position(), self.settings.max_record_bytes);
        let fault = format!("record of {} bytes; expected at most {max}", bytes.end - bytes.start);
        Record { place, bytes, fault: Some(fault), kept: None }
    }

    fn window(&self) -> Window<'_> {
        let max_bytes = self.settings.max_record_bytes;
        Window { buffer: self.input.filled(), offset: self.input.offset, max_bytes }
    }

    fn skip_json_blanks(&mut self) -> Option<u8> {
        let rest = self.input.rest();
        let n_blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.input.at += n_blank;
        self.input.rest().first().copied()
    }
}

/// What records are judged in: the buffer, and where it begins in the file.
#[derive(Clone, Copy)]
struct Window<'a> {
    buffer: &'a [u8],
    offset: u64,
    max_bytes: usize,
}

impl Window<'_> {
    fn judge(self, place: Place, at: Range<usize>, judge: impl FnOnce(&[u8]) -> Option<String>) -> Record {
        let bytes = self.offset + at.start as u64..self.offset + at.end as u64;
        if at.len() > self.max_bytes {
            let fault = format!("record of {} bytes; expected at most {}", at.len(), self.max_bytes);
            return Record { place, bytes, fault: Some(fault), kept: None };
        }
        Record { place, bytes, fault: judge(&self.buffer[at.clone()]), kept: Some(at) }
    }
}

/// What is wrong with an array's record beyond what the scanner found.
fn judge_value(record: &[u8]) -> Option<String> {
    let mut scanner = Scanner::new(record);
    judge_kind(&mut scanner, record);
    as_utf8(record).err().or(scanner.fault)
}

/// What Python's `bytes.strip` takes away.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// A line without the blanks around it, given where it begins in the buffer.
fn trim(line: &[u8], start: usize, n_bytes: usize) -> Range<usize> {
    let line = &line[..n_bytes];
    let n_before = line.iter().take_while(|&&byte| is_blank(byte)).count();
    let n_after = line[n_before..].iter().rev().take_while(|&&byte| is_blank(byte)).count();
    start + n_before..start + n_bytes - n_after
}

/// Finds where a value ends without judging it.
#[derive(Default)]
struct Skipper {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Skipper {
    /// The bytes up to the value's end, or `None` if it goes on.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = self.in_string,
                b'"' => {
                    self.in_string = !self.in_string;
                    if !self.in_string && self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b',' | b'}' | b']' if self.depth == 0 => return Some(at),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// The source, and a window of its bytes.
#[derive(Debug)]
struct Input<R> {
    source: R,
    buffer: Vec<u8>,
    n_filled: usize,
    /// The next byte in the buffer.
    at: usize,
    /// Where the buffer begins in the file.
    offset: u64,
    is_at_end: bool,
}

impl<R: Read> Input<R> {
    fn new(source: R, batch_bytes: usize) -> Self {
        Self { source, buffer: vec![0; batch_bytes], n_filled: 0, at: 0, offset: 0, is_at_end: false }
    }

    fn filled(&self) -> &[u8] {
        &self.buffer[..self.n_filled]
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..self.n_filled]
    }

    /// Whether a message that quotes what follows would be longer with more bytes.
    fn may_quote_more(&self) -> bool {
        self.rest().len() < EXCERPT_BYTES && !self.is_at_end
    }

    /// Where the next byte stands in the file.
    fn position(&self) -> u64 {
        self.position_of(self.at)
    }

    fn position_of(&self, at: usize) -> u64 {
        self.offset + at as u64
    }

    /// The next byte, which stays the next.
    fn next_byte(&mut self) -> Result<Option<u8>, Error> {
        while self.rest().is_empty() && !self.is_at_end {
            self.grow()?;
        }
        Ok(self.rest().first().copied())
    }

    /// Reads on, with twice the room if what is still to be passed fills the buffer.
    fn grow(&mut self) -> Result<(), Error> {
        let n_bytes = if self.rest().len() == self.buffer.len() { self.buffer.len() * 2 } else { self.buffer.len() };
        self.fill(n_bytes)
    }

    /// Drops what was passed and reads until the buffer holds `n_bytes`, or all that is left to be passed if it is more.
    fn fill(&mut self, n_bytes: usize) -> Result<(), Error> {
        self.buffer.copy_within(self.at..self.n_filled, 0);
        self.offset += self.at as u64;
        self.n_filled -= self.at;
        self.at = 0;
        let n_bytes = n_bytes.max(self.n_filled);
        if self.buffer.len() != n_bytes {
            self.buffer.resize(n_bytes, 0);
            self.buffer.shrink_to_fit();
        }
        while self.n_filled < self.buffer.len() && !self.is_at_end {
            match self.source.read(&mut self.buffer[self.n_filled..]) {
                Ok(0) => self.is_at_end = true,
                Ok(n_read) => self.n_filled += n_read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let (path, at) = ("the source".to_owned(), self.offset + self.n_filled as u64);
                    return Err(Error::Read { path, at, problem: error.to_string() });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
