//! From a file of conditioned conversations to token rows on disk, in one pass and in bounded memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch as Rows};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{DataType, Field, Schema};
use rayon::prelude::*;

use crate::conversation::{Conversation, Message};
use crate::encode::Tokens;
use crate::error::{Error, Reason, Rejection};
use crate::pack::{Packing, pack_flat};
use crate::records::Shape;
use crate::records::{ReaderSettings, Record, RecordBatch, RecordReader};
use crate::row::Tokenizer;
use crate::row::{Batch, CutRow, RejectedRow, schema};
use crate::row::{Cut, TokenRow};

/// How rows are prepared.
#[derive(Debug, Clone)]
pub struct PrepareSettings {
    /// Tokens per bin, at least as many as the longest row may have.
    pub capacity: i64,
    /// How many threads tokenize.
    pub n_threads: usize,
    /// Where a record keeps its messages.
    pub shape: Shape,
    /// How much is read at a time.
    pub reader: ReaderSettings,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Records of the file, refused ones included.
    pub n_records: usize,
    /// Token rows.
    pub n_rows: usize,
    /// Records that are in `rejected.jsonl`.
    pub n_rejected: usize,
    /// Rows that lack the end of their conversation.
    pub n_cut: usize,
    /// Tokens of all rows.
    pub n_tokens: usize,
    /// Tokens that are trained.
    pub n_trained: usize,
    /// Trained tokens that also cover text outside of their target.
    pub n_straddling: usize,
    /// Bins.
    pub n_bins: usize,
}

/// Reads JSON lines or one JSON array of conversations and writes, into a folder:
///
/// - `rows.arrow`: the token rows, an Arrow IPC file of the columns of [`schema`]; `token_key` is the record's place;
/// - `bins.arrow`: best-fit decreasing over all rows, a list of row numbers (from 0, over all batches) per bin;
/// - `rejected.jsonl`: every record that is no row: place, reason, detail;
/// - `cut.jsonl`: every row that lacks the end of its conversation: place, `n_kept` of `n_messages`, `n_tokens` of all.
///
/// A message without a weight has 1 if it is the assistant's, else 0. The files get their names when all of them
/// are whole; memory is bounded by a batch and 4 bytes per row.
///
/// # Errors
/// [`Error::OpenRecords`], [`Error::Read`], [`Error::WriteRows`], [`Error::Threads`], [`Error::Encode`],
/// [`Error::PackCapacity`] and [`Error::PackLength`]. What was written until then keeps its temporary name.
pub fn prepare(
    input: &Path,
    folder: &Path,
    tokenizer: &Tokenizer,
    settings: &PrepareSettings,
) -> Result<Prepared, Error> {
    if !(1..=MAX_THREADS).contains(&settings.n_threads) {
        return Err(Error::Threads(settings.n_threads));
    }
    let (capacity, max_tokens) = (settings.capacity, tokenizer.max_tokens());
    if !usize::try_from(capacity).is_ok_and(|capacity| capacity >= max_tokens) {
        return Err(Error::Capacity { capacity, max_tokens });
    }
    let named = |error: Error| match error {
        Error::Read { at, problem, .. } => Error::Read { path: input.display().to_string(), at, problem },
        other => other,
    };
    let source = File::open(input)
        .map_err(|error| Error::OpenRecords { path: input.display().to_string(), problem: error.to_string() })?;
    std::fs::create_dir_all(folder).map_err(|error| unwritable(folder, &error))?;
    let mut reader = RecordReader::new(source, settings.reader)?;
    let mut output = Output::create(folder)?;
    let mut workers = Workers::new(settings.n_threads)?;
    while let Some(batch) = reader.next_batch().map_err(named)? {
        let outcomes = workers.run(&batch, tokenizer, &settings.shape);
        let places: Vec<String> = batch.records.iter().map(|record| record.place.to_string()).collect();
        output.write(&Batch::collect(&places, outcomes)?, places.len())?;
    }
    output.finish(settings.capacity)
}

/// More would only wait for each other.
const MAX_THREADS: usize = 1024;

/// One thread that works here, or several of their own.
enum Workers {
    Here(Tokens),
    Pool(rayon::ThreadPool),
}

impl Workers {
    fn new(n_threads: usize) -> Result<Self, Error> {
        match n_threads {
            1 => Ok(Self::Here(Tokens::default())),
            _ => rayon::ThreadPoolBuilder::new()
                .num_threads(n_threads)
                .build()
                .map(Self::Pool)
                .map_err(|_| Error::Threads(n_threads)),
        }
    }

    fn run(&mut self, batch: &RecordBatch<'_>, tokenizer: &Tokenizer, shape: &Shape) -> Vec<Result<TokenRow, Error>> {
        let records = &batch.records;
        match self {
            Self::Here(tokens) => {
                records.iter().map(|record| row_of(batch, record, tokenizer, shape, tokens)).collect()
            }
            Self::Pool(pool) => pool.install(|| {
                let encode = |tokens: &mut Tokens, record| row_of(batch, record, tokenizer, shape, tokens);
                records.par_iter().map_init(Tokens::default, encode).collect()
            }),
        }
    }
}

fn row_of(
    batch: &RecordBatch<'_>,
    record: &Record,
    tokenizer: &Tokenizer,
    shape: &Shape,
    tokens: &mut Tokens,
) -> Result<TokenRow, Error> {
    let refuse = |why: &str| Rejection::error(Reason::InvalidConversation, why);
    if let Some(fault) = &record.fault {
        return Err(refuse(fault));
    }
    let bytes = batch.bytes(record).ok_or_else(|| refuse("the record was not kept"))?;
    let mut read = Vec::with_capacity(MESSAGES);
    shape.read(bytes, &mut read).map_err(|why| refuse(&why))?;
    let messages = read.into_iter().map(|message| {
        let default = if message.role.as_str() == "assistant" { 1.0 } else { 0.0 };
        Message::plain(message.role, message.content, message.weight.unwrap_or(default))
    });
    let conversation = Conversation { messages: messages.collect(), tools: None, tokenizer: None };
    conversation.check()?;
    tokenizer.encode_conversation(&conversation, tokens)
}

/// As many messages as most conversations have.
const MESSAGES: usize = 16;

/// The files, under temporary names until all are whole.
struct Output {
    folder: PathBuf,
    rows: FileWriter<BufWriter<File>>,
    rejected: BufWriter<File>,
    cut: BufWriter<File>,
    lengths: Vec<i32>,
    prepared: Prepared,
}

const ROWS: &str = "rows.arrow";
const BINS: &str = "bins.arrow";
const REJECTED: &str = "rejected.jsonl";
const CUT: &str = "cut.jsonl";

impl Output {
    fn create(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            rows: FileWriter::try_new(create(folder, ROWS)?, &schema())?,
            rejected: create(folder, REJECTED)?,
            cut: create(folder, CUT)?,
            folder: folder.to_owned(),
            lengths: Vec::new(),
            prepared: Prepared::default(),
        })
    }

    fn write(&mut self, batch: &Batch, n_records: usize) -> Result<(), Error> {
        let counts = |name: &str| batch.records.column_by_name(name).map(AsArray::as_primitive::<Int32Type>);
        if let (Some(n_tokens), Some(n_trained)) = (counts("n_tokens"), counts("n_trained")) {
            self.lengths.extend_from_slice(n_tokens.values());
            self.prepared.n_tokens += sum(n_tokens);
            self.prepared.n_trained += sum(n_trained);
        }
        self.prepared.n_records += n_records;
        self.prepared.n_rows += batch.records.num_rows();
        self.prepared.n_rejected += batch.rejected.len();
        self.prepared.n_cut += batch.cut.len();
        self.prepared.n_straddling += batch.n_straddling;
        if batch.records.num_rows() > 0 {
            self.rows.write(&batch.records)?;
        }
        batch.cut.iter().try_for_each(|row| self.note_cut(row))?;
        batch.rejected.iter().try_for_each(|row| self.reject(row))
    }

    fn reject(&mut self, row: &RejectedRow) -> Result<(), Error> {
        let line = serde_json::json!({"place": row.key, "reason": row.reason.as_str(), "detail": row.detail});
        writeln!(self.rejected, "{line}").map_err(|error| unwritable(&self.folder.join(REJECTED), &error))
    }

    fn note_cut(&mut self, CutRow { key, cut }: &CutRow) -> Result<(), Error> {
        let Cut { n_kept, n_messages, n_tokens } = cut;
        let line = serde_json::json!({"place": key, "n_kept": n_kept, "n_messages": n_messages, "n_tokens": n_tokens});
        writeln!(self.cut, "{line}").map_err(|error| unwritable(&self.folder.join(CUT), &error))
    }

    fn finish(mut self, capacity: i64) -> Result<Prepared, Error> {
        self.rows.finish()?;
        let lengths: Vec<i64> = self.lengths.iter().copied().map(i64::from).collect();
        let bins = bins_of(pack_flat(&lengths, capacity)?)?;
        self.prepared.n_bins = bins.num_rows();
        let mut writer = FileWriter::try_new(create(&self.folder, BINS)?, bins.schema().as_ref())?;
        writer.write(&bins)?;
        writer.finish()?;
        sync(&self.folder.join(BINS), writer.into_inner()?)?;
        sync(&self.folder.join(ROWS), self.rows.into_inner()?)?;
        sync(&self.folder.join(REJECTED), self.rejected)?;
        sync(&self.folder.join(CUT), self.cut)?;
        for name in [REJECTED, CUT, ROWS, BINS] {
            let (from, to) = (partial(&self.folder, name), self.folder.join(name));
            std::fs::rename(from, &to).map_err(|error| unwritable(&to, &error))?;
        }
        Ok(self.prepared)
    }
}

fn sum(counts: &Int32Array) -> usize {
    counts.values().iter().map(|count| usize::try_from(*count).unwrap_or(0)).sum()
}

fn bins_of(packing: Packing) -> Result<Rows, Error> {
    let row = Arc::new(Field::new_list_field(DataType::Int64, false));
    let too_large = |n: usize| Error::BatchTooLarge { n, what: "rows" };
    let offsets: Result<Vec<i32>, _> = packing.offsets.iter().map(|offset| i32::try_from(*offset)).collect();
    let offsets = OffsetBuffer::new(offsets.map_err(|_| too_large(packing.rows.len()))?.into());
    let rows = ListArray::try_new(Arc::clone(&row), offsets, Arc::new(Int64Array::from(packing.rows)), None)?;
    let schema = Schema::new(vec![Field::new("rows", DataType::List(row), false)]);
    Ok(Rows::try_new(Arc::new(schema), vec![Arc::new(rows) as ArrayRef])?)
}

fn partial(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.partial"))
}

fn create(folder: &Path, name: &str) -> Result<BufWriter<File>, Error> {
    let path = partial(folder, name);
    let file = File::create(&path).map_err(|error| unwritable(&path, &error))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn sync(path: &Path, writer: BufWriter<File>) -> Result<(), Error> {
    let file = writer.into_inner().map_err(|error| unwritable(path, error.error()))?;
    file.sync_all().map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Error {
    Error::WriteRows { path: path.display().to_string(), problem: error.to_string() }
}

/// The default: bins of 4,096 tokens, one thread per processor.
impl Default for PrepareSettings {
    fn default() -> Self {
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { capacity: 4096, n_threads, shape: Shape::default(), reader: ReaderSettings::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fixture::TokenizerJson;
    use crate::row::OverLength;

    fn prepare_text(name: &str, text: &str, n_threads: usize) -> (PathBuf, Result<Prepared, Error>) {
        let folder = std::env::temp_dir().join(format!("trajtok-prepare-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let input = folder.join("input.jsonl");
        fs::write(&input, text).unwrap();
        let encoder = TokenizerJson::default().encoder();
        let tokenizer = Tokenizer::new(Box::new(encoder), "chatml", 64, OverLength::Drop).unwrap();
        let reader = ReaderSettings { batch_bytes: 200, ..ReaderSettings::default() };
        let settings = PrepareSettings { capacity: 64, n_threads, reader, ..PrepareSettings::default() };
        let prepared = prepare(&input, &folder.join("out"), &tokenizer, &settings);
        (folder, prepared)
    }

    fn line(content: &str) -> String {
        format!(r#"{{"messages":[{{"role":"user","content":"a"}},{{"role":"assistant","content":"{content}"}}]}}"#)
    }

    #[test]
    fn every_record_is_a_row_or_rejected_whatever_the_number_of_threads() {
        let mut lines: Vec<String> = (0..40).map(|n| line(&"ab ".repeat(n % 7))).collect();
        lines[3] = "{".to_owned();
        lines[9] = line(&"a ".repeat(200));
        lines[20] = r#"{"messages": [{"role": "user", "content": "a", "loss": true}]}"#.to_owned();
        let text = lines.join("\n");
        let (one, first) = prepare_text("one", &text, 1);
        let (two, second) = prepare_text("two", &text, 3);
        let first = first.unwrap();
        assert_eq!(first, second.unwrap());
        assert_eq!((first.n_records, first.n_rows, first.n_rejected), (40, 37, 3));
        for name in [ROWS, BINS, REJECTED] {
            assert_eq!(fs::read(one.join("out").join(name)).unwrap(), fs::read(two.join("out").join(name)).unwrap());
        }
        let rejected = fs::read_to_string(one.join("out").join(REJECTED)).unwrap();
        let reasons: Vec<_> = rejected
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .map(|row| (row["place"].as_str().unwrap().to_owned(), row["reason"].as_str().unwrap().to_owned()))
            .collect();
        let expected = [("line 4", "invalid_conversation"), ("line 10", "over_length"), ("line 21", "invalid_weight")];
        assert_eq!(reasons, expected.map(|(place, reason)| (place.to_owned(), reason.to_owned())));
        assert_eq!(fs::read_dir(one.join("out")).unwrap().count(), 4);
        fs::remove_dir_all(one).unwrap();
        fs::remove_dir_all(two).unwrap();
    }

    #[test]
    fn a_cut_row_is_listed_with_what_it_has() {
        let folder = std::env::temp_dir().join(format!("trajtok-prepare-{}-cut", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let long = "a ".repeat(100);
        let messages = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", long.as_str())];
        let json: Vec<_> =
            messages.iter().map(|(role, text)| format!(r#"{{"role":"{role}","content":"{text}"}}"#)).collect();
        fs::write(folder.join("input.jsonl"), format!("{{\"messages\":[{}]}}\n{}", json.join(","), line("x"))).unwrap();
        let encoder = TokenizerJson::default().encoder();
        let tokenizer = Tokenizer::new(Box::new(encoder), "chatml", 64, OverLength::CutAtTurn).unwrap();
        let settings = PrepareSettings { capacity: 64, n_threads: 1, ..PrepareSettings::default() };
        let done = prepare(&folder.join("input.jsonl"), &folder.join("out"), &tokenizer, &settings).unwrap();
        assert_eq!((done.n_rows, done.n_rejected, done.n_cut), (2, 0, 1));
        let cut: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(folder.join("out").join(CUT)).unwrap()).unwrap();
        assert_eq!((&cut["place"], &cut["n_kept"], &cut["n_messages"]), (&"line 1".into(), &2.into(), &4.into()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_is_not_there_and_no_threads_are_refused() {
        let (folder, prepared) = prepare_text("none", "", 0);
        assert!(matches!(prepared, Err(Error::Threads(0))));
        fs::remove_dir_all(folder).unwrap();
        let encoder = TokenizerJson::default().encoder();
        let tokenizer = Tokenizer::new(Box::new(encoder), "chatml", 64, OverLength::Drop).unwrap();
        let small = PrepareSettings { capacity: 63, ..PrepareSettings::default() };
        let refused = prepare(Path::new("/nowhere"), Path::new("/tmp"), &tokenizer, &small);
        assert!(matches!(refused, Err(Error::Capacity { capacity: 63, max_tokens: 64 })));
        let missing = prepare(Path::new("/nowhere"), Path::new("/tmp"), &tokenizer, &PrepareSettings::default());
        assert!(matches!(missing, Err(Error::OpenRecords { .. })));
    }
}
