//! MinHash signatures with LSH bands.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, RecordBatch, UInt32Array, UInt64Array};
use arrow_buffer::NullBuffer;
use arrow_schema::Field;
use rayon::prelude::*;

use super::words::{KEYS, at_least_one, for_each_ngram, hash_words, high, low, mix, split_mix};
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
