//! The distinct n-grams of texts.

use std::sync::Arc;

use arrow_array::types::UInt64Type;
use arrow_array::{ArrayRef, ListArray, RecordBatch};
use rayon::prelude::*;

use super::words::{at_least_one, ngram_set};
use crate::error::Error;

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
