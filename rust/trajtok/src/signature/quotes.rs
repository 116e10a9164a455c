//! Reference texts that stand in other texts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use rayon::prelude::*;

use super::words::{at_least_one, for_each_ngram, hash_words, ngram_set};
use crate::error::Error;

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
