//! Words as keys: the vocabulary's words in one table, and a bounded cache of the words that were merged lately.

use crate::encode::native::text::Text;

/// Words of at most this many bytes are found in the vocabulary's table and in the cache of short words.
pub const SHORT_WORD: usize = 15;
/// Words of at most this many bytes are found in the cache of long words.
pub const LONG_WORD: usize = 31;

const MASKS: [u64; 9] = [
    0,
    0xFF,
    0xFFFF,
    0xFF_FFFF,
    0xFFFF_FFFF,
    0xFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF,
    0xFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
];

/// A word of up to [`SHORT_WORD`] bytes and its length, never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortKey {
    low: u64,
    high: u64,
}

impl ShortKey {
    /// No word.
    pub const EMPTY: Self = Self { low: 0, high: 0 };

    /// The word at `at`, of `length` bytes from 1 to [`SHORT_WORD`].
    #[inline]
    pub fn new(text: Text<'_>, at: usize, length: usize) -> Self {
        let (low, high) = (length.min(8), length.saturating_sub(8));
        Self { low: text.load(at) & MASKS[low], high: text.load(at + 8) & MASKS[high] | (length as u64) << 56 }
    }

    /// The first eight bytes.
    #[inline]
    pub fn low(self) -> u64 {
        self.low
    }

    /// Whether it is another word, without a branch.
    #[inline]
    pub fn differs(self, other: Self) -> bool {
        (self.low ^ other.low) | (self.high ^ other.high) != 0
    }

    #[inline]
    pub fn hash(self) -> u64 {
        fold(self.low ^ 0x9E37_79B9_7F4A_7C15, self.high ^ 0xD1B5_4A32_D192_ED03)
    }
}

/// A word of up to [`LONG_WORD`] bytes and its length, never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LongKey([u64; 4]);

impl LongKey {
    const EMPTY: Self = Self([0; 4]);

    /// The word at `at`, of `length` bytes from 1 to [`LONG_WORD`].
    #[inline]
    pub fn new(text: Text<'_>, at: usize, length: usize) -> Self {
        let part = |index: usize| text.load(at + 8 * index) & MASKS[length.saturating_sub(8 * index).min(8)];
        Self([part(0), part(1), part(2), part(3) | (length as u64) << 56])
    }

    #[inline]
    pub fn hash(self) -> u64 {
        let [a, b, c, d] = self.0;
        fold(fold(a ^ 0x9E37_79B9_7F4A_7C15, b ^ 0xD1B5_4A32_D192_ED03), fold(c ^ 0xA076_1D64_78BD_642F, d))
    }
}

/// Both halves of the product, so that every bit of the key moves every bit of the hash.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the halves are what is asked")]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}

/// A word of the vocabulary and its token.
#[derive(Clone, Copy)]
pub struct Slot {
    /// The word.
    pub key: ShortKey,
    /// Its token.
    pub id: u32,
}

impl Slot {
    /// No word.
    pub const EMPTY: Self = Self { key: ShortKey::EMPTY, id: 0 };
}

/// Words that are one token.
pub struct Vocabulary {
    slots: Vec<Slot>,
}

impl Vocabulary {
    /// A table with room for so many words.
    pub fn with_capacity(n_words: usize) -> Self {
        let n_slots = (n_words.max(8) * 2).next_power_of_two();
        Self { slots: vec![Slot::EMPTY; n_slots] }
    }

    /// Adds a word.
    pub fn insert(&mut self, key: ShortKey, id: u32) {
        let slot = self.find(key, key.hash());
        self.slots[slot] = Slot { key, id };
    }

    /// The word's token.
    #[inline]
    pub fn get(&self, key: ShortKey, hash: u64) -> Option<u32> {
        let slot = self.slots[self.find(key, hash)];
        (slot.key == key).then_some(slot.id)
    }

    /// What lies where a word of this hash would lie first. Nothing is compared, so that many looks can be under way at once.
    #[inline]
    pub fn peek(&self, hash: u64) -> Slot {
        #[allow(clippy::cast_possible_truncation, reason = "the mask leaves an index into the slots")]
        self.slots[hash as usize & (self.slots.len() - 1)]
    }

    #[inline]
    fn find(&self, key: ShortKey, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        #[allow(clippy::cast_possible_truncation, reason = "the mask leaves an index into the slots")]
        let mut slot = hash as usize & mask;
        while self.slots[slot].key != key && self.slots[slot].key != ShortKey::EMPTY {
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// A key and the tokens of its word, [`NONE`] behind the last: half a cache line, or two.
#[derive(Clone, Copy)]
struct Line<K, const N: usize> {
    key: K,
    ids: [u32; N],
}

/// No token.
const NONE: u32 = u32::MAX;

/// Words and their tokens, one word a place: a newer one takes the place of an older. So it never grows.
pub struct Cache<K, const N: usize> {
    lines: Vec<Line<K, N>>,
}

impl<K: Copy + PartialEq, const N: usize> Cache<K, N> {
    fn new(empty: K, n_lines: usize) -> Self {
        Self { lines: vec![Line { key: empty, ids: [NONE; N] }; n_lines] }
    }

    /// The word's tokens; what follows the first [`u32::MAX`] is none of them.
    #[inline]
    pub fn get(&self, key: K, hash: u64) -> Option<&[u32; N]> {
        let line = &self.lines[self.place(hash)];
        (line.key == key).then_some(&line.ids)
    }

    /// The word that has the place.
    #[inline]
    pub fn peek(&self, hash: u64) -> K {
        self.lines[self.place(hash)].key
    }

    /// Remembers the word's tokens, if they are few enough.
    #[inline]
    pub fn insert(&mut self, key: K, hash: u64, ids: &[u32]) {
        if ids.len() <= N {
            let place = self.place(hash);
            let mut line = Line { key, ids: [NONE; N] };
            line.ids[..ids.len()].copy_from_slice(ids);
            self.lines[place] = line;
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the mask leaves an index into the lines")]
    fn place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.lines.len() - 1)
    }
}

/// One worker's caches: 640 KiB, so that they stay near.
pub struct Caches {
    /// Words of up to [`SHORT_WORD`] bytes.
    pub short: Cache<ShortKey, 4>,
    /// Words of up to [`LONG_WORD`] bytes.
    pub long: Cache<LongKey, 24>,
}

impl Caches {
    /// Empty caches.
    pub fn new() -> Self {
        Self { short: Cache::new(ShortKey::EMPTY, 1 << 14), long: Cache::new(LongKey::EMPTY, 1 << 10) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::encode::native::text::PADDING;

    fn padded(word: &[u8]) -> Vec<u8> {
        let mut bytes = word.to_vec();
        bytes.resize(word.len() + PADDING, 0);
        bytes
    }

    fn short(word: &[u8]) -> ShortKey {
        ShortKey::new(Text::new(&padded(word)), 0, word.len())
    }

    #[test]
    fn keys_tell_words_apart_by_bytes_and_by_length() {
        let words: [&[u8]; 7] = [b"a", b"a\0", b"a\0\0", b"ab", b"abcdefgh", b"abcdefgh\0", b"abcdefghijklmno"];
        let keys: HashSet<_> = words.iter().map(|word| (short(word).low, short(word).high)).collect();
        assert_eq!(keys.len(), words.len());
    }

    #[test]
    fn a_key_sees_nothing_behind_its_word() {
        let long = padded(b"abcdefghijklmnopqrstuvwxyzabcdefgh");
        for length in 1..=SHORT_WORD {
            assert!(ShortKey::new(Text::new(&long), 0, length) == short(&long[..length]));
        }
        for length in 1..=LONG_WORD {
            let alone = padded(&long[..length]);
            assert!(LongKey::new(Text::new(&long), 0, length) == LongKey::new(Text::new(&alone), 0, length));
        }
    }

    #[test]
    fn the_vocabulary_finds_what_was_put_in_and_nothing_else() {
        let mut vocabulary = Vocabulary::with_capacity(1000);
        let word = |index: u32| short(format!("w{index}").as_bytes());
        for index in 0..1000 {
            vocabulary.insert(word(index), index);
        }
        for index in 0..2000 {
            let key = word(index);
            assert_eq!(vocabulary.get(key, key.hash()), (index < 1000).then_some(index));
        }
    }

    #[test]
    fn the_cache_gives_back_what_it_holds_or_nothing() {
        let mut caches = Caches::new();
        for index in 0..100_000_u32 {
            let key = short(format!("w{index}").as_bytes());
            assert_eq!(caches.short.get(key, key.hash()), None);
            caches.short.insert(key, key.hash(), &[index; 3]);
            assert_eq!(caches.short.get(key, key.hash()), Some(&[index, index, index, NONE]));
        }
        let key = short(b"many");
        caches.short.insert(key, key.hash(), &[1; 5]);
        assert_eq!(caches.short.get(key, key.hash()), None);
    }
}
