//! The native encoder: byte-pair encoding for the pre-tokenizers of widespread models, exact and fast.
//!
//! A word is found whole in a table of the vocabulary, or in a bounded cache of lately merged words, or is merged. What
//! the fast path does not cover (text that NFC changes, a byte without a token) goes to Hugging Face's own encoder, and so
//! does everything else if the probes of [`crate::probes`] find a single difference when the tokenizer is loaded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

use crate::encode::{Encoder, HfEncoder, TokenId, Tokens};
use crate::error::Error;
use crate::merge::{AsciiPairs, Merges, SHORT};
use crate::output::{Ids, Output, Placed};
use crate::probes::probes;
use crate::scan::{Cl100k, DeepSeek, Gpt2, Scanner, Spaces};
use crate::text::{PADDING, Text};
use crate::tokenizer_json::{Family, TokenizerJson, Unsupported};
use crate::words::{LONG_WORD, LongKey, SHORT_WORD, ShortKey, Slot, Vocabulary};
use crate::worker::{Worker, with_worker};

/// No token.
const NONE: u32 = u32::MAX;

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

/// Byte-pair encoding without Hugging Face's code, but with its ids.
pub struct NativeEncoder {
    hf: HfEncoder,
    family: Family,
    is_nfc: bool,
    /// Text begins with a space that is not there.
    is_prefixed: bool,
    symbols: Symbols,
    ascii: AsciiPairs,
    merges: Merges,
    vocabulary: Vocabulary,
    /// Long words that are one token without being merged.
    unmerged: HashMap<Box<[u8]>, u32>,
    /// How many bytes of text each token covers.
    lengths: Vec<u32>,
    serial: u64,
}

impl NativeEncoder {
    /// Takes over from Hugging Face's encoder of the same file.
    ///
    /// # Errors
    /// The encoder unchanged, and why it has to go on.
    pub fn new(json: &[u8], hf: HfEncoder) -> Result<Self, Box<(HfEncoder, String)>> {
        let file = match TokenizerJson::parse(json) {
            Ok(file) => file,
            Err(Unsupported(why)) => return Err(Box::new((hf, why))),
        };
        let Some(merges) = Merges::new(&file.merges) else {
            return Err(Box::new((hf, "its ids or merges are too many for the native encoder's table".to_owned())));
        };
        let encoder = Self::build(&file, merges, hf);
        match encoder.find_difference() {
            None => Ok(encoder),
            Some(probe) => {
                Err(Box::new((encoder.hf, format!("the native encoder's ids differ from Hugging Face's on {probe:?}"))))
            }
        }
    }

    fn build(file: &TokenizerJson, merges: Merges, hf: HfEncoder) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let n_ids = file.words.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
        let symbols = symbols_of(file);
        let mut encoder = Self {
            hf,
            is_nfc: file.is_nfc,
            is_prefixed: file.is_prefixed,
            ascii: AsciiPairs::new(&std::array::from_fn(|byte| symbols.of_ascii(byte)), &merges),
            symbols,
            family: file.family,
            merges,
            vocabulary: Vocabulary::with_capacity(file.words.len()),
            unmerged: HashMap::new(),
            lengths: vec![1; n_ids],
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        };
        let mut padded = Vec::new();
        for (word, id) in &file.words {
            encoder.add_word(word, *id, file.ignore_merges, &mut padded);
        }
        // A byte's token is written `<0x41>`, and covers one byte.
        for &id in file.bytes.iter().filter(|&&id| id != NONE) {
            encoder.lengths[id as usize] = 1;
        }
        encoder
    }

    /// A word of the vocabulary, found whole later if merging gives its token (or is left out).
    fn add_word(&mut self, word: &[u8], id: u32, ignore_merges: bool, padded: &mut Vec<u8>) {
        self.lengths[id as usize] = u32::try_from(word.len()).unwrap_or(u32::MAX);
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

    /// The first probe, if any, on which the two encoders differ.
    fn find_difference(&self) -> Option<String> {
        let mut ours = Tokens::default();
        let mut theirs = Tokens::default();
        for probe in probes() {
            for start in [0, 7] {
                ours.clear();
                theirs.clear();
                let results =
                    (self.encode_text(&probe, start, &mut ours), self.hf.encode_text(&probe, start, &mut theirs));
                let is_same = match results {
                    (Ok(()), Ok(())) => ours.ids() == theirs.ids(),
                    (Err(_), Err(_)) => true,
                    _ => false,
                };
                if !is_same {
                    return Some(probe);
                }
            }
        }
        None
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

    /// Whether the fast path covers the text.
    fn is_covered(&self, text: &str) -> bool {
        if text.len() > LONGEST_TEXT {
            return false;
        }
        if text.is_ascii() && !self.family.lacks_bytes() {
            return true;
        }
        if self.is_nfc && text.bytes().any(|byte| byte >= 0xCC) && is_nfc_quick(text.chars()) != IsNormalized::Yes {
            return false;
        }
        match &self.symbols {
            Symbols::Bytes(ids) if self.family.lacks_bytes() => text.bytes().all(|byte| ids[usize::from(byte)] != NONE),
            Symbols::Bytes(_) => true,
            // A text's own lower block is a space to `SentencePiece`: the scanner knows one kind of space only.
            Symbols::Chars { .. } => !text.contains('\u{2581}'),
        }
    }

    fn encode_covered<O: Output>(&self, text: &str, worker: &mut Worker, output: &mut O) {
        if text.is_empty() {
            return;
        }
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
            Family::Llama3 => self.words(&Cl100k::<3>, view, worker, output),
            Family::Qwen2 => self.words(&Cl100k::<1>, view, worker, output),
            Family::Gpt2 { .. } => self.words(&Gpt2::<false>, view, worker, output),
            Family::SmolLm { .. } => self.words(&Gpt2::<true>, view, worker, output),
            Family::DeepSeek => self.words(&DeepSeek, view, worker, output),
            Family::SentencePiece => self.words(&Spaces, view, worker, output),
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
            return self.push_all(ids, bytes.start, output);
        }
        self.merge_word(text, &bytes, &mut worker.symbols);
        worker.caches.short.insert(word.key, word.hash, &worker.symbols);
        self.push_all(&worker.symbols, bytes.start, output);
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
            return self.push_all(&worker.symbols, word.start, output);
        }
        let key = LongKey::new(text, word.start, word.len());
        let hash = key.hash();
        if let Some(ids) = worker.caches.long.get(key, hash) {
            return self.push_all(ids, word.start, output);
        }
        self.merge_word(text, &word, &mut worker.symbols);
        worker.caches.long.insert(key, hash, &worker.symbols);
        self.push_all(&worker.symbols, word.start, output);
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

    #[inline]
    fn push_all<O: Output>(&self, ids: &[u32], mut at: usize, output: &mut O) {
        for &id in ids {
            if id == NONE {
                break;
            }
            let end = at + if O::HAS_OFFSETS { self.lengths[id as usize] as usize } else { 0 };
            output.push(id, at..end);
            at = end;
        }
    }
}

/// Longer texts go to Hugging Face's encoder: places are 32 bits here.
const LONGEST_TEXT: usize = 1 << 31;
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

impl Encoder for NativeEncoder {
    fn name(&self) -> &'static str {
        self.family.name()
    }

    fn origin(&self) -> &str {
        self.hf.origin()
    }

    fn encode_text(&self, text: &str, start: usize, tokens: &mut Tokens) -> Result<(), Error> {
        if !self.is_covered(text) {
            return self.hf.encode_text(text, start, tokens);
        }
        let n_prefix = usize::from(self.is_prefixed);
        let first_end = text.chars().next().map_or(0, char::len_utf8);
        let mut output = Placed { tokens, start, n_prefix, first_end };
        with_worker(self.serial, |worker| self.encode_covered(text, worker, &mut output));
        Ok(())
    }

    fn encode_ids(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        if !self.is_covered(text) {
            return self.hf.encode_ids(text, ids);
        }
        with_worker(self.serial, |worker| self.encode_covered(text, worker, &mut Ids(ids)));
        Ok(())
    }

    fn control_id(&self, token: &str) -> Option<TokenId> {
        self.hf.control_id(token)
    }

    fn added_token(&self, id: TokenId) -> Option<&str> {
        self.hf.added_token(id)
    }

    fn is_added(&self, id: TokenId) -> bool {
        self.hf.is_added(id)
    }

    fn unsupported_flag(&self, token: &str) -> Option<&'static str> {
        self.hf.unsupported_flag(token)
    }
}
