//! Hashes of words and of n-grams of words.

use crate::error::Error;

/// The distinct n-grams of a text, ascending; leaves its words in `words`.
pub(super) fn ngram_set(text: &str, n_words: usize, words: &mut Vec<u64>) -> Vec<u64> {
    hash_words(text, words);
    let mut ngrams = Vec::with_capacity(words.len());
    for_each_ngram(words, n_words, |ngram| ngrams.push(ngram));
    ngrams.sort_unstable();
    ngrams.dedup();
    ngrams
}

/// Every n-gram's hash in order: a polynomial in the words' hashes that rolls, mixed with the number of words.
pub(super) fn for_each_ngram(words: &[u64], n_words: usize, mut take: impl FnMut(u64)) {
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
pub(super) fn hash_words(text: &str, words: &mut Vec<u64>) {
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
pub(super) const KEYS: [u64; 5] =
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
pub(super) fn mix(number: u64, key: u64) -> u64 {
    let product = u128::from(number ^ KEYS[1]) * u128::from(key);
    (product as u64) ^ (product >> 64) as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(super) fn low(hash: u64) -> u32 {
    hash as u32
}

#[allow(clippy::cast_possible_truncation, reason = "32 bits are left")]
pub(super) fn high(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// `SplitMix64` (Steele, Lea and Flood 2014).
pub(super) fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(BASE);
    scatter(*state)
}

/// Another number for each number, without a trace of neighbourhood.
fn scatter(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

pub(super) fn at_least_one(name: &'static str, value: usize) -> Result<(), Error> {
    if value == 0 { Err(Error::SignatureSetting { name, value }) } else { Ok(()) }
}
