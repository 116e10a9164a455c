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

mod minhash;
mod ngrams;
mod quotes;
mod similar;
mod words;

pub use minhash::{MAX_PERMUTATIONS, MinHashSettings, minhash};
pub use ngrams::ngrams;
pub use quotes::contaminated;
pub use similar::{PairSettings, similar_pairs};

#[cfg(test)]
mod tests;
