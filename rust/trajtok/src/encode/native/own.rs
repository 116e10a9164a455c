//! The engine written here: words from a scanner, each one token, or lately merged, or merged now.
//!
//! A word is found whole in a table of the vocabulary, or in a bounded cache of lately merged words, or is merged.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::encode::native::merge::{AsciiPairs, Merges, SHORT};
use crate::encode::native::output::Output;
use crate::encode::native::scan::{Scanner, SmolLm, Spaces};
use crate::encode::native::text::{PADDING, Text};
use crate::encode::native::tokenizer_json::{Family, NONE, TokenizerJson};
use crate::encode::native::words::{LONG_WORD, LongKey, SHORT_WORD, ShortKey, Slot, Vocabulary};
use crate::encode::native::worker::{Worker, with_worker};

/// What a word is made of before anything is merged.
enum Symbols {
    /// Bytes: every one that has a token.
    Bytes(Box<[u32; 256]>),
    /// Characters, and the bytes of those that have no token.
    Chars { ascii: Box<[u32; 128]>, wide: HashMap<char, u32>, bytes: Box<[u32; 256]> },
}

impl Symbols {
    fn of_ascii(&self, byte: usize) -> u32 {
        match self {
            Self::Bytes(ids) => ids[byte],
            Self::Chars { ascii, bytes, .. } if ascii[byte] == NONE => bytes[byte],
            Self::Chars { ascii, .. } => ascii[byte],
        }
    }
}

/// Byte-pair encoding of `SmolLM`'s and `SentencePiece`'s words.
pub struct OwnEngine {
    family: Family,
    /// Text begins with a space that is not there.
    is_prefixed: bool,
    symbols: Symbols,
    ascii: AsciiPairs,
    merges: Merges,
    vocabulary: Vocabulary,
    /// Long words that are one token without being merged.
    unmerged: HashMap<Box<[u8]>, u32>,
    serial: u64,
}

impl OwnEngine {
    /// The tables for a file.
    ///
    /// # Errors
    /// Why it cannot be encoded here.
    pub fn new(file: &TokenizerJson) -> Result<Self, String> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let merges =
            Merges::new(&file.merges).ok_or("its ids or merges are too many for the native encoder's table")?;
        let symbols = symbols_of(file);
        let mut engine = Self {
            is_prefixed: file.is_prefixed,
            ascii: AsciiPairs::new(&std::array::from_fn(|byte| symbols.of_ascii(byte)), &merges),
            symbols,
            family: file.family,
            merges,
            vocabulary: Vocabulary::with_capacity(file.words.len()),
            unmerged: HashMap::new(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        };
        let mut padded = Vec::new();
        for (word, id) in &file.words {
            engine.add_word(word, *id, file.ignore_merges, &mut padded);
        }
        Ok(engine)
    }

    /// Encodes a text into `output`.
    pub fn encode(&self, text: &str, output: &mut impl Output) {
        with_worker(self.serial, |worker| self.encode_with(text, worker, output));
    }

    /// A word of the vocabulary, found whole later if merging gives its token (or is left out).
    fn add_word(&mut self, word: &[u8], id: u32, ignore_merges: bool, padded: &mut Vec<u8>) {
        if word.len() > SHORT_WORD && ignore_merges {
            self.unmerged.insert(word.into(), id);
        }
        if word.is_empty() || word.len() > SHORT_WORD {
            return;
        }
        let mut symbols = Vec::new();
        self.split_symbols(word, &mut symbols);
        self.merges.merge(&mut symbols);
        if ignore_merges || symbols == [id] {
            padded.clear();
            padded.extend_from_slice(word);
            padded.resize(word.len() + PADDING, 0);
            self.vocabulary.insert(ShortKey::new(Text::new(padded), 0, word.len()), id);
        }
    }

    fn split_symbols(&self, word: &[u8], symbols: &mut Vec<u32>) {
        symbols.clear();
        match &self.symbols {
            Symbols::Bytes(ids) => symbols.extend(word.iter().map(|byte| ids[usize::from(*byte)])),
            Symbols::Chars { ascii, wide, bytes } => {
                for chunk in String::from_utf8_lossy(word).chars() {
                    let known =
                        if chunk.is_ascii() { ascii[chunk as usize] } else { *wide.get(&chunk).unwrap_or(&NONE) };
                    if known == NONE {
                        let mut buffer = [0; 4];
                        let encoded = chunk.encode_utf8(&mut buffer).as_bytes();
                        symbols.extend(encoded.iter().map(|byte| bytes[usize::from(*byte)]));
                    } else {
                        symbols.push(known);
                    }
                }
            }
        }
    }

    fn encode_with<O: Output>(&self, text: &str, worker: &mut Worker, output: &mut O) {
        let n_prefix = usize::from(self.is_prefixed);
        let mut padded = std::mem::take(&mut worker.padded);
        padded.clear();
        padded.reserve(text.len() + n_prefix + PADDING);
        if self.is_prefixed {
            padded.push(b' ');
        }
        padded.extend_from_slice(text.as_bytes());
        padded.resize(padded.len() + PADDING, 0);
        let view = Text::new(&padded);
        match self.family {
            Family::SentencePiece => self.words(&Spaces, view, worker, output),
            _ => self.words(&SmolLm, view, worker, output),
        }
        worker.padded = padded;
    }

    /// Words in small batches: each word's place in the vocabulary is asked for before the first one is needed.
    #[inline]
    fn words<O: Output>(&self, scanner: &impl Scanner, text: Text<'_>, worker: &mut Worker, output: &mut O) {
        let mut batch = [Word::EMPTY; BATCH];
        let mut at = 0;
        while at < text.end() {
            let mut n_words = 0;
            for word in &mut batch {
                if at >= text.end() {
                    break;
                }
                let end = scanner.word_end(text, at);
                *word = Word::new(text, at, end);
                at = end;
                n_words += 1;
            }
            self.look_up(&mut batch[..n_words], worker);
            for word in &batch[..n_words] {
                self.word(text, word, worker, output);
            }
        }
    }

    /// Fetches the words' places in the vocabulary, and of those that are not there their places in the cache. These loops
    /// do nothing else, so that the processor waits for many places at once.
    #[inline]
    fn look_up(&self, words: &mut [Word], worker: &Worker) {
        for word in &mut *words {
            word.slot = self.vocabulary.peek(word.hash);
        }
        let (mut others, mut n_others) = ([0_u8; BATCH], 0);
        for (index, word) in (0..).zip(&*words) {
            others[n_others % BATCH] = index;
            n_others += usize::from(word.slot.key.differs(word.key));
        }
        for &other in &others[..n_others.min(BATCH)] {
            let word = &mut words[usize::from(other)];
            word.cached = worker.caches.short.peek(word.hash).low();
        }
    }

    #[inline]
    fn word<O: Output>(&self, text: Text<'_>, word: &Word, worker: &mut Worker, output: &mut O) {
        let bytes = word.start as usize..word.end as usize;
        if bytes.len() > SHORT_WORD {
            return self.long_word(text, bytes, worker, output);
        }
        if word.slot.key == word.key {
            return output.push(word.slot.id, bytes);
        }
        if word.slot.key != ShortKey::EMPTY
            && let Some(id) = self.vocabulary.get(word.key, word.hash)
        {
            return output.push(id, bytes);
        }
        if let Some(ids) = worker.caches.short.get(word.key, word.hash) {
            return output.push_all(ids, bytes.start);
        }
        self.merge_word(text, &bytes, &mut worker.symbols);
        worker.caches.short.insert(word.key, word.hash, &worker.symbols);
        output.push_all(&worker.symbols, bytes.start);
    }

    #[inline(never)]
    fn long_word<O: Output>(&self, text: Text<'_>, word: Range<usize>, worker: &mut Worker, output: &mut O) {
        if !self.unmerged.is_empty()
            && let Some(&id) = self.unmerged.get(text.slice(word.start, word.end))
        {
            return output.push(id, word);
        }
        if word.len() > LONG_WORD {
            self.merge_word(text, &word, &mut worker.symbols);
            return output.push_all(&worker.symbols, word.start);
        }
        let key = LongKey::new(text, word.start, word.len());
        let hash = key.hash();
        if let Some(ids) = worker.caches.long.get(key, hash) {
            return output.push_all(ids, word.start);
        }
        self.merge_word(text, &word, &mut worker.symbols);
        worker.caches.long.insert(key, hash, &worker.symbols);
        output.push_all(&worker.symbols, word.start);
    }

    #[inline(never)]
    fn merge_word(&self, text: Text<'_>, word: &Range<usize>, symbols: &mut Vec<u32>) {
        let word = text.slice(word.start, word.end);
        if word.len() <= SHORT && word.is_ascii() {
            return self.merges.merge_ascii(word, &self.ascii, symbols);
        }
        self.split_symbols(word, symbols);
        self.merges.merge(symbols);
    }
}

/// How many words are asked for at a time.
const BATCH: usize = 32;

/// A word, and what vocabulary and cache hold where it would be.
#[derive(Clone, Copy)]
struct Word {
    key: ShortKey,
    hash: u64,
    start: u32,
    end: u32,
    slot: Slot,
    cached: u64,
}

impl Word {
    const EMPTY: Self = Self { key: ShortKey::EMPTY, hash: 0, start: 0, end: 0, slot: Slot::EMPTY, cached: 0 };

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "longer texts are refused")]
    fn new(text: Text<'_>, start: usize, end: usize) -> Self {
        let (from, to) = (start as u32, end as u32);
        if end - start > SHORT_WORD {
            return Self { start: from, end: to, ..Self::EMPTY };
        }
        let key = ShortKey::new(text, start, end - start);
        Self { key, hash: key.hash(), start: from, end: to, ..Self::EMPTY }
    }
}

fn symbols_of(file: &TokenizerJson) -> Symbols {
    if file.family != Family::SentencePiece {
        return Symbols::Bytes(Box::new(file.bytes));
    }
    let (mut ascii, mut wide) = (Box::new([NONE; 128]), HashMap::new());
    for (word, id) in &file.words {
        let mut chars = std::str::from_utf8(word).unwrap_or_default().chars();
        if let (Some(char), None) = (chars.next(), chars.next()) {
            if char.is_ascii() {
                ascii[char as usize] = *id;
            } else {
                wide.insert(char, *id);
            }
        }
    }
    Symbols::Chars { ascii, wide, bytes: Box::new(file.bytes) }
}
