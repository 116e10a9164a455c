//! Signatures for corpus filters whose decision is SQL: word n-grams, MinHash with LSH bands, and reference texts found in
//! others.
//!
//! **Words.** A text is lowercased and split at every character that is not alphanumeric (`char::to_lowercase`,
//! `char::is_alphanumeric`). A word is hashed to 64 bits; an n-gram is hashed from its words' hashes and their number.
//! The hashes are a promise: the same text gives the same numbers in every later version, on every machine and with any
//! number of threads. Only characters that a later Unicode version makes letters may change theirs.
//!
//! **Odds.** Two different n-grams have equal hashes with odds of 2^-64, so that among k distinct ones some pair is equal
//! with odds of about k²/2^65: 3 in 10^8 for a million, 3 in 100 for a billion. A MinHash signature uses 32 of those bits: of
//! two texts with a and b n-grams, expect a·b/2^32 to be taken for shared though they are not. The hashes withstand
//! chance, not an adversary: the seeds are public.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, FixedSizeListArray, Int64Array, ListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Schema};
use rayon::prelude::*;

use crate::error::Error;

/// What a MinHash signature is made with; part of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinHashSettings {
    /// Words per n-gram. A text with fewer words has one n-gram, of all its words.
    pub n_words: usize,
    /// Numbers per signature: random orders of all n-grams, of each of which the first is kept.
    pub permutations: usize,
    /// Band hashes per signature.
    pub bands: usize,
    /// Numbers per band; `bands * rows` may not exceed `permutations`.
    pub rows: usize,
    /// Chooses the orders.
    pub seed: u64,
}

impl Default for MinHashSettings {
    fn default() -> Self {
        Self { n_words: 5, permutations: 128, bands: 16, rows: 8, seed: 0 }
    }
}

impl MinHashSettings {
    fn check(&self) -> Result<(), Error> {
        at_least_one("n_words", self.n_words)?;
        at_least_one("permutations", self.permutations)?;
        at_least_one("bands", self.bands)?;
        at_least_one("rows", self.rows)?;
        let &Self { permutations, bands, rows, .. } = self;
        if permutations > MAX_PERMUTATIONS || bands.checked_mul(rows).is_none_or(|n| n > permutations) {
            return Err(Error::SignatureBands { permutations, bands, rows });
        }
        Ok(())
    }
}

/// The most numbers a signature may have.
pub const MAX_PERMUTATIONS: usize = 1 << 16;

/// MinHash signatures and LSH band hashes, one row per text.
///
/// Columns: `signature`, `fixed_size_list<uint32>[permutations]`, where the share of equal places of two rows estimates
/// the Jaccard similarity of their sets of n-grams, with a standard deviation of at most sqrt(J·(1 - J)/permutations); and `bands`,
/// `fixed_size_list<uint64>[bands]`. A band hash covers the band's place too, so that rows are joined on equal hashes
/// without naming the band: two texts of similarity J share one with odds of 1 - (1 - J^rows)^bands. Both are null where
/// the text is null or has no word.
///
/// # Errors
/// [`Error::SignatureSetting`], [`Error::SignatureBands`], [`Error::BatchTooLarge`].
pub fn minhash(texts: &[Option<&str>], settings: MinHashSettings) -> Result<RecordBatch, Error> {
    settings.check()?;
    let MinHashSettings { permutations, bands, .. } = settings;
    let sketcher = Sketcher::new(settings);
    let mut signatures = vec![u32::MAX; texts.len() * permutations];
    let mut hashes = vec![0_u64; texts.len() * bands];
    let rows = signatures.par_chunks_mut(permutations).zip(hashes.par_chunks_mut(bands));
    let is_valid: Vec<bool> = rows
        .zip(texts)
        .map_init(Scratch::default, |scratch, ((signature, bands), text)| {
            text.is_some_and(|text| sketcher.sign(text, scratch, signature, bands))
        })
        .collect();
    let signatures = fixed_size_list(Arc::new(UInt32Array::from(signatures)), permutations, &is_valid)?;
    let bands = fixed_size_list(Arc::new(UInt64Array::from(hashes)), bands, &is_valid)?;
    Ok(RecordBatch::try_from_iter_with_nullable([("signature", signatures, true), ("bands", bands, true)])?)
}

fn fixed_size_list(values: ArrayRef, size: usize, is_valid: &[bool]) -> Result<ArrayRef, Error> {
    let too_large = |_| Error::BatchTooLarge { n: size, what: "numbers per row" };
    let size = i32::try_from(size).map_err(too_large)?;
    let field = Arc::new(Field::new("item", values.data_type().clone(), false));
    Ok(Arc::new(FixedSizeListArray::try_new(field, size, values, Some(NullBuffer::from(is_valid.to_vec())))?))
}

/// The distinct n-gram hashes of each text, ascending.
///
/// One column, `ngrams`: `list<uint64>`, null where the text is null. A text with fewer than `n_words` words has the one
/// n-gram of all its words; one without words has none.
///
/// # Errors
/// [`Error::SignatureSetting`]; [`Error::BatchTooLarge`] above 2147483647 n-grams.
pub fn ngrams(texts: &[Option<&str>], n_words: usize) -> Result<RecordBatch, Error> {
    at_least_one("n_words", n_words)?;
    let sets: Vec<Option<Vec<u64>>> =
        texts.par_iter().map_init(Vec::new, |words, text| text.map(|text| ngram_set(text, n_words, words))).collect();
    let n = sets.iter().flatten().map(Vec::len).sum();
    i32::try_from(n).map_err(|_| Error::BatchTooLarge { n, what: "n-grams" })?;
    let lists = sets.iter().map(|set| set.as_ref().map(|set| set.iter().copied().map(Some)));
    let column = ListArray::from_iter_primitive::<UInt64Type, _, _>(lists);
    Ok(RecordBatch::try_from_iter_with_nullable([("ngrams", Arc::new(column) as ArrayRef, true)])?)
}

/// Which reference texts stand in which texts, in whole n-grams.
///
/// One row per pair that shares any, by text and then by reference. Columns, all int64: `text` and `reference`, places in
/// the two lists; `n_shared`, how many distinct n-grams of the reference stand in the text; `n_ngrams`, how many it has.
/// A reference of fewer than `n_words` words is one n-gram of all its words and is found wherever these stand in a row, if
/// it has at least `min_words`; below that it is never found. Nulls are never found. The texts' own n-grams are not kept.
///
/// # Errors
/// [`Error::SignatureSetting`]; [`Error::BatchTooLarge`] for 2^32 references or more.
pub fn contaminated(
    texts: &[Option<&str>],
    references: &[Option<&str>],
    n_words: usize,
    min_words: usize,
) -> Result<RecordBatch, Error> {
    at_least_one("n_words", n_words)?;
    at_least_one("min_words", min_words)?;
    let finder = Finder::new(references, n_words, min_words)?;
    let found: Vec<Vec<(u32, i64)>> = texts
        .par_iter()
        .map_init(Vec::new, |words, text| text.map_or_else(Vec::new, |text| finder.find(text, words)))
        .collect();
    let rows = || (0_i64..).zip(&found).flat_map(|(text, hits)| hits.iter().map(move |hit| (text, hit.0, hit.1)));
    let column = |values: Int64Array| Arc::new(values) as ArrayRef;
    let columns = vec![
        column(rows().map(|(text, ..)| text).collect()),
        column(rows().map(|(_, reference, _)| i64::from(reference)).collect()),
        column(rows().map(|(.., n_shared)| n_shared).collect()),
        column(rows().map(|(_, reference, _)| finder.n_ngrams[reference as usize]).collect()),
    ];
    let names = ["text", "reference", "n_shared", "n_ngrams"];
    let schema = Schema::new(names.map(|name| Field::new(name, DataType::Int64, false)).to_vec());
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

fn at_least_one(name: &'static str, value: usize) -> Result<(), Error> {
    if value == 0 { Err(Error::SignatureSetting { name, value }) } else { Ok(()) }
}

/// Makes signatures by fast similarity sketching (Dahlgaard, Knudsen and Thorup 2017, arXiv 1704.04370, figure 1).
///
/// In round i every n-gram is thrown to a random place; a place keeps the n-gram of the first round that reached it and, of
/// those, the one with the least number. From round `permutations` on, each round serves one place that may still be empty.
/// Whatever fills a place is a uniform draw from the set, the same for equal sets: MinHash's property, for two or three
/// hashes per n-gram where `permutations` are the usual price.
struct Sketcher {
    settings: MinHashSettings,
    /// A key per round.
    keys: Vec<u64>,
}

/// Per thread: the words and n-grams of a text, and per place the round and number that hold it.
#[derive(Default)]
struct Scratch {
    words: Vec<u64>,
    ngrams: Vec<u64>,
    places: Vec<u64>,
}

impl Sketcher {
    fn new(settings: MinHashSettings) -> Self {
        let mut state = settings.seed;
        let keys = (0..2 * settings.permutations).map(|_| split_mix(&mut state) | 1).collect();
        Self { settings, keys }
    }

    /// Writes one row; whether the text has a word.
    fn sign(&self, text: &str, scratch: &mut Scratch, signature: &mut [u32], bands: &mut [u64]) -> bool {
        let Scratch { words, ngrams, places } = scratch;
        hash_words(text, words);
        ngrams.clear();
        for_each_ngram(words, self.settings.n_words, |ngram| ngrams.push(ngram));
        if ngrams.is_empty() {
            return false;
        }
        self.fill(ngrams, places);
        signature.iter_mut().zip(places).for_each(|(number, &mut place)| *number = low(place));
        for (place, (band, rows)) in (0..).zip(bands.iter_mut().zip(signature.chunks_exact(self.settings.rows))) {
            *band = rows.iter().fold(mix(place ^ KEYS[0], KEYS[3]), |hash, &row| mix(hash ^ u64::from(row), KEYS[3]));
        }
        true
    }

    fn fill(&self, ngrams: &[u64], places: &mut Vec<u64>) {
        let n_places = self.settings.permutations;
        places.clear();
        places.resize(n_places, u64::MAX);
        for (round, &key) in self.keys.iter().enumerate() {
            let throw = |place: &mut u64, number| *place = (*place).min((round as u64) << 32 | u64::from(number));
            if let Some(place) = round.checked_sub(n_places) {
                for &ngram in ngrams {
                    throw(&mut places[place], low(mix(ngram, key)));
                }
            } else {
                for &ngram in ngrams {
                    let hash = mix(ngram, key);
                    throw(&mut places[scale(high(hash), n_places)], low(hash));
                }
            }
            if !places.contains(&u64::MAX) {
                return;
            }
        }
    }
}

/// A random 32-bit number as one below `n`.
fn scale(random: u32, n: usize) -> usize {
    (random as usize * n) >> 32
}

/// The references' n-grams, by hash.
struct Finder {
    /// The numbers of words that n-grams have: `n_words`, and those of shorter references.
    sizes: Vec<usize>,
    /// A bit per residue of a hash that is among the keys of `references`: most lookups end here.
    filter: Vec<u64>,
    references: HashMap<u64, Vec<u32>>,
    n_ngrams: Vec<i64>,
}

impl Finder {
    fn new(texts: &[Option<&str>], n_words: usize, min_words: usize) -> Result<Self, Error> {
        let (mut sizes, mut n_ngrams) = (Vec::new(), Vec::with_capacity(texts.len()));
        let (mut words, mut references) = (Vec::new(), HashMap::<u64, Vec<u32>>::new());
        for (at, text) in texts.iter().enumerate() {
            let at = u32::try_from(at).map_err(|_| Error::BatchTooLarge { n: texts.len(), what: "references" })?;
            let set = text.map_or_else(Vec::new, |text| ngram_set(text, n_words, &mut words));
            let is_found = text.is_some() && words.len() >= min_words.min(n_words);
            n_ngrams.push(if is_found { i64::try_from(set.len()).unwrap_or(i64::MAX) } else { 0 });
            if is_found {
                sizes.push(words.len().min(n_words));
                for ngram in set {
                    references.entry(ngram).or_default().push(at);
                }
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        let mut filter = vec![0; (references.len() / 2).next_power_of_two().max(16)];
        for &ngram in references.keys() {
            set_bit(&mut filter, ngram);
        }
        Ok(Self { sizes, filter, references, n_ngrams })
    }

    /// The references in a text and how many of their n-grams stand in it.
    fn find(&self, text: &str, words: &mut Vec<u64>) -> Vec<(u32, i64)> {
        hash_words(text, words);
        let mut hits = Vec::new();
        for &size in self.sizes.iter().filter(|&&size| size <= words.len()) {
            for_each_ngram(words, size, |ngram| {
                if has_bit(&self.filter, ngram) && self.references.contains_key(&ngram) {
                    hits.push(ngram);
                }
            });
        }
        hits.sort_unstable();
        hits.dedup();
        self.count(&hits)
    }

    fn count(&self, hits: &[u64]) -> Vec<(u32, i64)> {
        let mut found: Vec<u32> = hits.iter().filter_map(|hit| self.references.get(hit)).flatten().copied().collect();
        found.sort_unstable();
        found.chunk_by(|a, b| a == b).map(|run| (run[0], i64::try_from(run.len()).unwrap_or(i64::MAX))).collect()
    }
}

fn set_bit(filter: &mut [u64], hash: u64) {
    let (word, bit) = bit_of(filter.len(), hash);
    filter[word] |= bit;
}

fn has_bit(filter: &[u64], hash: u64) -> bool {
    let (word, bit) = bit_of(filter.len(), hash);
    filter[word] & bit != 0
}

/// The place of a hash in a filter of `n` words, a power of two.
#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
fn bit_of(n: usize, hash: u64) -> (usize, u64) {
    ((hash as usize >> 6) & (n - 1), 1 << (hash & 63))
}

/// The distinct n-grams of a text, ascending; leaves its words in `words`.
fn ngram_set(text: &str, n_words: usize, words: &mut Vec<u64>) -> Vec<u64> {
    hash_words(text, words);
    let mut ngrams = Vec::with_capacity(words.len());
    for_each_ngram(words, n_words, |ngram| ngrams.push(ngram));
    ngrams.sort_unstable();
    ngrams.dedup();
    ngrams
}

/// Every n-gram's hash in order: a polynomial in the words' hashes that rolls, mixed with the number of words.
fn for_each_ngram(words: &[u64], n_words: usize, mut take: impl FnMut(u64)) {
    let size = n_words.min(words.len());
    if size == 0 {
        return;
    }
    let key = KEYS[2] ^ size as u64;
    let out = (0..size).fold(1_u64, |power, _| power.wrapping_mul(BASE));
    let mut sum = words[..size].iter().fold(0_u64, |sum, &word| sum.wrapping_mul(BASE).wrapping_add(word));
    take(mix(sum, key));
    for (&old, &new) in words.iter().zip(&words[size..]) {
        sum = sum.wrapping_mul(BASE).wrapping_add(new).wrapping_sub(old.wrapping_mul(out));
        take(mix(sum, key));
    }
}

/// The words' hashes, in order. Without a branch per word: where words end cannot be foreseen, and a wrong guess costs more
/// than to write at every byte.
fn hash_words(text: &str, words: &mut Vec<u64>) {
    let bytes = text.as_bytes();
    words.resize(bytes.len() / 2 + 2, 0);
    let (mut word, mut n_words, mut at) = (0, 0, 0);
    while let Some(&byte) = bytes.get(at) {
        let lower = ASCII[byte as usize];
        if lower == WIDE {
            word = hash_char(&text[at..], word, &mut n_words, words);
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        let is_split = lower == SPLIT;
        words[n_words] = word;
        n_words += usize::from(is_split && word != 0);
        word = push(word, lower) & u64::from(is_split).wrapping_sub(1);
        at += 1;
    }
    end_word(word, &mut n_words, words);
    words.truncate(n_words);
    for word in words {
        *word = scatter(*word);
    }
}

/// The word so far, with one byte more: a polynomial in its bytes, none of which is 0.
#[inline]
fn push(word: u64, byte: u8) -> u64 {
    word.wrapping_mul(BASE).wrapping_add(byte.into())
}

fn end_word(word: u64, n_words: &mut usize, words: &mut [u64]) {
    if word != 0 {
        words[*n_words] = word;
        *n_words += 1;
    }
}

/// Takes in the character that a text begins with; the word that follows from it.
fn hash_char(text: &str, word: u64, n_words: &mut usize, words: &mut [u64]) -> u64 {
    let Some(char) = text.chars().next().filter(|char| char.is_alphanumeric()) else {
        end_word(word, n_words, words);
        return 0;
    };
    let mut buffer = [0; 4];
    char.to_lowercase().fold(word, |word, lower| lower.encode_utf8(&mut buffer).bytes().fold(word, push))
}

/// Odd, chosen once; as are the keys: the first digits of the golden ratio and of pi.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
const KEYS: [u64; 5] =
    [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];

const SPLIT: u8 = 0;
const WIDE: u8 = 0xff;
/// Per byte: the lowercase letter or the digit, `SPLIT`, or `WIDE` for a byte of a longer character.
const ASCII: [u8; 256] = {
    let mut table = [SPLIT; 256];
    let mut byte = 0_u8;
    loop {
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = byte.to_ascii_lowercase();
        } else if byte >= 0x80 {
            table[byte as usize] = WIDE;
        }
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

/// The two halves of the 128-bit product of a number and a key, folded.
#[allow(clippy::cast_possible_truncation, reason = "both halves are used")]
#[inline]
fn mix(number: u64, key: u64) -> u64 {
    let product = u128::from(number ^ KEYS[1]) * u128::from(key);
    (product as u64) ^ (product >> 64) as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low(hash: u64) -> u32 {
    hash as u32
}

#[allow(clippy::cast_possible_truncation, reason = "32 bits are left")]
fn high(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// `SplitMix64` (Steele, Lea and Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(BASE);
    scatter(*state)
}

/// Another number for each number, without a trace of neighbourhood.
fn scatter(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Int64Type, UInt32Type};
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<u64> {
        let mut words = Vec::new();
        hash_words(text, &mut words);
        words
    }

    fn set(text: &str, n_words: usize) -> Vec<u64> {
        ngram_set(text, n_words, &mut Vec::new())
    }

    /// Rows of (text, reference, `n_shared`, `n_ngrams`).
    fn hits(texts: &[&str], references: &[&str], n_words: usize, min_words: usize) -> Vec<[i64; 4]> {
        let [texts, references] = [texts, references].map(|list| list.iter().copied().map(Some).collect::<Vec<_>>());
        let batch = contaminated(&texts, &references, n_words, min_words).unwrap();
        let at = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
        (0..batch.num_rows()).map(|row| [0, 1, 2, 3].map(|column| at(column, row))).collect()
    }

    fn signature(text: &str, settings: MinHashSettings) -> Vec<u32> {
        let batch = minhash(&[Some(text)], settings).unwrap();
        batch.column(0).as_fixed_size_list().values().as_primitive::<UInt32Type>().values().to_vec()
    }

    #[test]
    fn case_and_what_is_not_alphanumeric_do_not_matter() {
        assert_eq!(words("The  quick-brown fox!"), words("the\nQUICK brown, \u{201c}fox\u{201d}"));
        assert_eq!(words("ÀÉ Straße 東京"), words("àé|straße—東京"));
        assert_eq!(words("abcdefgh ijklmnopqrstu").len(), 2);
        assert!(words(" \t—…!").is_empty());
    }

    #[test]
    fn words_are_not_confused_with_their_parts() {
        assert_ne!(words("abcdefgh i"), words("abcdefghi"));
        assert_ne!(words("ab cd"), words("cd ab"));
        assert_ne!(set("a b c", 3), set("a b c", 2));
        assert_ne!(set("a b", 2), set("b a", 2));
    }

    #[test]
    fn a_short_text_is_one_ngram_of_all_its_words() {
        assert_eq!(set("one two", 5).len(), 1);
        assert_eq!(set("one two", 5), set("One, two.", 9));
        assert!(set("", 5).is_empty());
    }

    #[test]
    fn ngrams_are_distinct_and_ascending() {
        let all = set("a b a b a b", 2);
        assert_eq!(all.len(), 2);
        assert!(all.is_sorted());
    }

    #[test]
    fn hashes_are_those_of_every_other_version() {
        assert_eq!(words("Hello, wörld of 123456789"), GOLDEN_WORDS);
        assert_eq!(set("Hello, wörld of 123456789", 3), GOLDEN_NGRAMS);
        let settings = MinHashSettings { n_words: 2, permutations: 4, bands: 2, rows: 2, seed: 7 };
        assert_eq!(signature("Hello, wörld of 123456789", settings), GOLDEN_SIGNATURE);
        let batch = minhash(&[Some("Hello, wörld of 123456789")], settings).unwrap();
        let bands = batch.column(1).as_fixed_size_list().values().as_primitive::<UInt64Type>();
        assert_eq!(bands.values(), &GOLDEN_BANDS);
    }

    const GOLDEN_WORDS: [u64; 4] =
        [8_576_929_112_783_056_957, 7_131_379_305_146_338_846, 1_880_147_021_420_926_137, 3_525_931_236_340_857_148];
    const GOLDEN_NGRAMS: [u64; 2] = [1_208_105_204_564_381_404, 7_837_588_268_626_902_698];
    const GOLDEN_SIGNATURE: [u32; 4] = [1_499_803_421, 157_964_702, 1_548_624_107, 974_429_019];
    const GOLDEN_BANDS: [u64; 2] = [1_768_507_698_357_279_705, 4_858_215_778_799_673_369];

    #[test]
    fn a_reference_is_found_with_the_number_of_its_ngrams() {
        let reference = "who was the first king of the small island";
        let text = format!("Question: {} (answer: nobody)", reference.to_uppercase());
        assert_eq!(hits(&[&text, "something else"], &["else", reference], 4, 4), [[0, 1, 6, 6]]);
        assert_eq!(hits(&["he was the first king of all"], &[reference], 4, 4), [[0, 0, 2, 6]]);
    }

    #[test]
    fn a_short_reference_is_found_as_a_whole_from_min_words_on() {
        assert_eq!(hits(&["is the sky blue today"], &["Sky blue?", "the sky is blue"], 13, 2), [[0, 0, 1, 1]]);
        assert!(hits(&["is the sky blue today"], &["Sky blue?"], 13, 3).is_empty());
        assert!(hits(&["sky"], &["Sky blue?"], 13, 2).is_empty());
    }

    #[test]
    fn an_ngram_of_two_references_counts_for_both() {
        assert_eq!(hits(&["a b c d"], &["a b c", "b c x", "x"], 2, 2), [[0, 0, 2, 2], [0, 1, 1, 2]]);
    }

    #[test]
    fn a_repeated_ngram_counts_once() {
        assert_eq!(hits(&["a b a b a b"], &["a b"], 2, 2), [[0, 0, 1, 1]]);
    }

    #[test]
    fn a_text_without_words_has_no_signature() {
        let batch = minhash(&[None, Some(" - "), Some("word")], MinHashSettings::default()).unwrap();
        for column in batch.columns() {
            assert_eq!((0..3).map(|row| column.is_valid(row)).collect::<Vec<_>>(), [false, false, true]);
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let wide = MinHashSettings { bands: 17, ..MinHashSettings::default() };
        let message = minhash(&[], wide).unwrap_err().to_string();
        assert!(message.starts_with("17 bands of 8 rows need 136 of 128 permutations"), "{message}");
        let message = ngrams(&[], 0).unwrap_err().to_string();
        assert!(message.starts_with("n_words is 0; expected at least 1"), "{message}");
    }

    #[test]
    fn equal_places_estimate_the_similarity() {
        for n in [2, 15, 100, 1000] {
            let (mean, deviation) = errors(n);
            assert!(mean.abs() < 0.006, "{n}: {mean}"); // three standard errors: 3 * 0.0417 / 20
            // sqrt(1/3 * 2/3 / 128) = 0.0417; less for small sets, which no n-gram fills alone
            assert!((0.027..0.046).contains(&deviation), "{n}: {deviation}");
        }
    }

    /// Mean and standard deviation of the estimate's error for texts of 2n words that share n, where a third is shared.
    fn errors(n: usize) -> (f64, f64) {
        let settings = MinHashSettings { n_words: 1, ..MinHashSettings::default() };
        let text = |from: usize| (from..from + 2 * n).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
        let (mut sum, mut squares) = (0.0, 0.0);
        for start in (0..400).map(|trial| trial * 10 * n) {
            let (a, b) = (signature(&text(start), settings), signature(&text(start + n), settings));
            let equal = u32::try_from(a.iter().zip(&b).filter(|(a, b)| a == b).count()).unwrap();
            let error = f64::from(equal) / 128.0 - 1.0 / 3.0;
            (sum, squares) = (sum + error, squares + error * error);
        }
        (sum / 400.0, (squares / 400.0).sqrt())
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let texts: Vec<String> = (0..500_usize).map(|n| format!("text {} of {n} and {}", n % 7, n * n)).collect();
        let texts: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| {
                let signatures = minhash(&texts, MinHashSettings::default()).unwrap();
                (signatures, ngrams(&texts, 3).unwrap(), contaminated(&texts, &texts[..50], 3, 1).unwrap())
            })
        };
        assert_eq!(run(1), run(3));
    }

    proptest! {
        #[test]
        fn rolling_gives_each_ngram_its_own_hash(text in "[a-d ]{0,60}", n_words in 1_usize..6) {
            let words = words(&text);
            let mut rolled = Vec::new();
            for_each_ngram(&words, n_words, |ngram| rolled.push(ngram));
            let mut alone = Vec::new();
            let size = n_words.min(words.len()).max(1);
            words.windows(size).for_each(|window| for_each_ngram(window, n_words, |ngram| alone.push(ngram)));
            prop_assert_eq!(rolled, alone);
        }

        #[test]
        fn contamination_is_the_overlap_of_the_sets(text in "[a-c ]{0,40}", reference in "[a-c ]{0,20}") {
            let (in_text, in_reference) = (set(&text, 3), set(&reference, 3));
            let shared = in_reference.iter().filter(|ngram| in_text.contains(ngram)).count();
            let expected = if words(&reference).len() < 3 || shared == 0 {
                vec![]
            } else {
                vec![[0, 0, i64::try_from(shared).unwrap(), i64::try_from(in_reference.len()).unwrap()]]
            };
            prop_assert_eq!(hits(&[&text], &[&reference], 3, 3), expected);
        }
    }
}
