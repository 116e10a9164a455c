//! Byte-pair merging: exact, by rank, the leftmost of equal ranks first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::encode::native::pairs::{Filter, Frequent, Merge, NEVER, Rare, Slot, hash_of, pair_of};

/// Words of at most this many symbols are merged on the stack.
pub const SHORT: usize = 30;
/// With a border on either side.
const PLACES: usize = 32;
/// A border: no symbol, which merges with nothing.
const BORDER: u32 = u32::MAX;
/// A symbol that was merged away.
const GONE: u32 = u32::MAX;

/// Which pairs of tokens merge, in which order, into what.
///
/// Memory far away is slow, so nearly every question is answered by what is near: the frequent pairs (the lowest ranks)
/// lie close together in a table of their own, and a filter says of most other pairs that they do not merge.
pub struct Merges {
    frequent: Frequent,
    rare: Rare,
    rare_filter: Filter,
}

/// Token ids and ranks that fit.
const MAX_ID: u32 = (1 << 31) - 1;
const MAX_RANK: usize = (1 << 26) - 1;

impl Merges {
    /// The table of `(left, right, made)` in the order of rank; of equal pairs the last one counts, as in Hugging Face's.
    ///
    /// None where an id or a rank is too large for the table.
    pub fn new(merges: &[(u32, u32, u32)]) -> Option<Self> {
        if merges.len() > MAX_RANK || merges.iter().any(|&(left, right, made)| left.max(right).max(made) > MAX_ID) {
            return None;
        }
        let last: HashMap<u64, Merge> = (0_u64..)
            .zip(merges)
            .map(|(rank, &(left, right, made))| (pair_of(left, right), rank << 32 | u64::from(made)))
            .collect();
        let mut pairs: Vec<Slot> = last.into_iter().map(|(pair, merge)| Slot { pair, merge }).collect();
        pairs.sort_unstable_by_key(|slot| slot.merge);
        let mut frequent = Frequent::new(pairs.len());
        let rare: Vec<Slot> = pairs.into_iter().filter(|&slot| !frequent.insert(slot)).collect();
        Some(Self { frequent, rare_filter: Filter::new(&rare), rare: Rare::new(&rare) })
    }

    #[inline]
    fn find(&self, left: u32, right: u32) -> Merge {
        let pair = pair_of(left, right);
        let hash = hash_of(pair);
        match self.frequent.find(pair, hash) {
            NEVER if self.rare_filter.may_hold(hash) => self.rare.find(pair, hash),
            merge => merge,
        }
    }

    /// Merges the symbols in place.
    pub fn merge(&self, symbols: &mut Vec<u32>) {
        if symbols.len() > SHORT {
            return self.merge_long(symbols);
        }
        let mut short = Short::new(symbols.len());
        for (place, &symbol) in (1..).zip(symbols.iter()) {
            short.symbols[place % PLACES] = symbol;
            if place > 1 {
                short.set(place - 1, self.find(symbols[place - 2], symbol));
            }
        }
        self.merge_short(short, symbols);
    }

    /// Splits an ASCII word of 1 to [`SHORT`] bytes into its symbols and merges them into `merged`.
    #[inline]
    pub fn merge_ascii(&self, word: &[u8], ascii: &AsciiPairs, merged: &mut Vec<u32>) {
        let mut short = Short::new(word.len());
        let mut previous = usize::from(word[0] & 0x7F);
        short.symbols[1] = ascii.symbols[previous];
        for (place, &byte) in (2..PLACES).zip(&word[1..]) {
            let byte = usize::from(byte & 0x7F);
            short.symbols[place] = ascii.symbols[byte];
            short.set(place - 1, ascii.merges[previous << 7 | byte]);
            previous = byte;
        }
        self.merge_short(short, merged);
    }

    /// Merges a short word and puts what is left into `merged`.
    #[inline]
    fn merge_short(&self, mut word: Short, merged: &mut Vec<u32>) {
        // The borders answer like symbols, so that nothing here depends on where in the word a merge is.
        while let Some((at, made)) = word.lowest() {
            let (before, removed) = (word.previous(at), word.next(at));
            word.symbols[at] = made;
            word.remove(removed);
            let behind = word.next(at);
            word.set(at, self.find(made, word.symbols[behind]));
            word.set(before, self.find(word.symbols[before], made));
        }
        merged.clear();
        let mut alive = word.alive & word.inside;
        while alive != 0 {
            merged.push(word.symbols[alive.trailing_zeros() as usize % PLACES]);
            alive &= alive - 1;
        }
    }

    /// The same in O(n log n): a linked list of symbols and a heap of possible merges.
    fn merge_long(&self, symbols: &mut Vec<u32>) {
        let n = symbols.len();
        let mut next: Vec<usize> = (1..=n).collect();
        let mut previous: Vec<usize> = (0..n).map(|index| index.wrapping_sub(1)).collect();
        let mut heap: BinaryHeap<Reverse<(u64, usize, usize, u32)>> = BinaryHeap::with_capacity(n);
        let push = |heap: &mut BinaryHeap<_>, symbols: &[u32], left: usize, right: usize| {
            let merge = self.find(symbols[left], symbols[right]);
            if merge != NEVER {
                heap.push(Reverse((merge >> 32, left, right, made_by(merge))));
            }
        };
        for right in 1..n {
            push(&mut heap, symbols, right - 1, right);
        }
        while let Some(Reverse((rank, left, right, made))) = heap.pop() {
            // Stale: one of the two was merged away or has grown since.
            if symbols[left] == GONE || next[left] != right || self.find(symbols[left], symbols[right]) >> 32 != rank {
                continue;
            }
            symbols[left] = made;
            symbols[right] = GONE;
            next[left] = next[right];
            if next[left] < n {
                previous[next[left]] = left;
                push(&mut heap, symbols, left, next[left]);
            }
            if previous[left] < n {
                push(&mut heap, symbols, previous[left], left);
            }
        }
        symbols.retain(|&symbol| symbol != GONE);
    }
}

/// The symbols of ASCII characters, and which pairs of them merge: a word's first look needs no hashing.
pub struct AsciiPairs {
    symbols: [u32; 128],
    merges: Box<[Merge]>,
}

impl AsciiPairs {
    /// The table for these symbols.
    pub fn new(symbols: &[u32; 128], merges: &Merges) -> Self {
        let pairs = symbols.iter().flat_map(|&left| symbols.iter().map(move |&right| (left, right)));
        Self { symbols: *symbols, merges: pairs.map(|(left, right)| merges.find(left, right)).collect() }
    }
}

/// A word of at most [`SHORT`] symbols that is being merged: nothing moves, what is merged away is struck out.
struct Short {
    /// The symbols from place 1 on, between borders.
    symbols: [u32; PLACES],
    /// The merge of each symbol with the one behind it, `rank << 37 | place << 32 | made`: the lowest one is next.
    merges: [u64; PLACES],
    /// One bit for each symbol that is left, and one for each border.
    alive: u32,
    /// One bit for each symbol, borders left out.
    inside: u32,
    length: usize,
}

impl Short {
    #[inline]
    fn new(length: usize) -> Self {
        let length = length.min(SHORT);
        let inside = ((1 << length) - 1) << 1;
        Self {
            symbols: [BORDER; PLACES],
            merges: [NEVER; PLACES],
            alive: inside | 1 | 1 << (length + 1),
            inside,
            length,
        }
    }

    #[inline]
    fn set(&mut self, at: usize, merge: Merge) {
        let placed = (merge >> 32) << 37 | (at as u64) << 32 | merge & 0xFFFF_FFFF;
        self.merges[at % PLACES] = if merge == NEVER { NEVER } else { placed };
    }

    /// The place of the next merge and what it makes.
    #[inline]
    fn lowest(&self) -> Option<(usize, u32)> {
        let mut lowest = NEVER;
        for &merge in &self.merges[1..=self.length] {
            lowest = lowest.min(merge);
        }
        (lowest != NEVER).then_some(((lowest >> 32 & 31) as usize, made_by(lowest)))
    }

    #[inline]
    fn remove(&mut self, at: usize) {
        self.alive &= !(1 << at);
        self.merges[at % PLACES] = NEVER;
    }

    /// The place behind `at` that is left; `at` is no border.
    #[inline]
    fn next(&self, at: usize) -> usize {
        (self.alive & (u32::MAX << at << 1)).trailing_zeros() as usize % PLACES
    }

    /// The place before `at` that is left; `at` is no border.
    #[inline]
    fn previous(&self, at: usize) -> usize {
        31 - (self.alive & ((1 << at) - 1)).leading_zeros() as usize % PLACES
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the lower half is what is asked")]
fn made_by(merge: Merge) -> u32 {
    merge as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Merges by the definition: look for the lowest rank everywhere, each time.
    fn slow(merges: &[(u32, u32, u32)], symbols: &[u32]) -> Vec<u32> {
        let mut symbols = symbols.to_vec();
        loop {
            let rank = |pair: &[u32]| merges.iter().rposition(|merge| (merge.0, merge.1) == (pair[0], pair[1]));
            let best = symbols.windows(2).enumerate().filter_map(|(at, pair)| Some((rank(pair)?, at))).min();
            let Some((rank, at)) = best else { return symbols };
            symbols[at] = merges[rank].2;
            symbols.remove(at + 1);
        }
    }

    /// Merges of four letters, each making a new token of ones that exist.
    fn merges() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
        prop::collection::vec((any::<u32>(), any::<u32>()), 0..40).prop_map(|pairs| {
            let mut known: Vec<(u32, u32, u32)> = Vec::new();
            for (made, (left, right)) in (4..).zip(pairs) {
                let pair = (left % made, right % made);
                if known.iter().all(|merge| (merge.0, merge.1) != pair) {
                    known.push((pair.0, pair.1, made));
                }
            }
            known
        })
    }

    proptest! {
        #[test]
        fn merging_is_by_the_definition_for_short_and_long_words(
            merges in merges(),
            symbols in prop::collection::vec(0_u32..4, 0..100),
        ) {
            let table = Merges::new(&merges).unwrap();
            let mut merged = symbols.clone();
            table.merge(&mut merged);
            prop_assert_eq!(merged, slow(&merges, &symbols));
        }

        #[test]
        fn the_two_ways_agree(merges in merges(), symbols in prop::collection::vec(0_u32..4, 0..=SHORT)) {
            let table = Merges::new(&merges).unwrap();
            let (mut short, mut long) = (symbols.clone(), symbols);
            table.merge(&mut short);
            table.merge_long(&mut long);
            prop_assert_eq!(short, long);
        }
    }

    #[test]
    fn of_equal_pairs_the_last_one_counts() {
        let table = Merges::new(&[(0, 1, 5), (1, 0, 6), (0, 1, 7)]).unwrap();
        let mut symbols = vec![0, 1, 0];
        table.merge(&mut symbols);
        assert_eq!(symbols, [0, 6]);
    }

    #[test]
    fn ids_beyond_the_table_are_refused() {
        assert!(Merges::new(&[(MAX_ID, 0, 1)]).is_some());
        assert!(Merges::new(&[(MAX_ID + 1, 0, 1)]).is_none());
    }
}
