//! Which pairs of tokens merge: tables that answer nearly every question from near memory.

/// A possible merge: `rank << 32 | made`. The lower of two is due first.
pub type Merge = u64;
/// No merge.
pub const NEVER: Merge = u64::MAX;

/// A pair and its merge.
#[derive(Clone, Copy)]
pub struct Slot {
    /// Both tokens.
    pub pair: u64,
    /// What comes of them.
    pub merge: Merge,
}

impl Slot {
    const EMPTY: Self = Self { pair: u64::MAX, merge: NEVER };
}

/// Four slots: one cache line, one look.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Place([Slot; 4]);

impl Place {
    const EMPTY: Self = Self([Slot::EMPTY; 4]);

    #[inline]
    fn find(&self, pair: u64) -> Merge {
        let mut merge = NEVER;
        for slot in &self.0 {
            merge = if slot.pair == pair { slot.merge } else { merge };
        }
        merge
    }

    /// Whether there was room.
    fn insert(&mut self, slot: Slot) -> bool {
        let free = self.0.iter_mut().find(|known| known.pair == u64::MAX);
        let has_room = free.is_some();
        if let Some(free) = free {
            *free = slot;
        }
        has_room
    }
}

/// The frequent pairs, in the order of their ranks until a place is full.
pub struct Frequent {
    places: Vec<Place>,
}

impl Frequent {
    /// At most so many places: 256 KiB.
    const MAX_PLACES: usize = 1 << 12;

    pub fn new(n_pairs: usize) -> Self {
        Self { places: vec![Place::EMPTY; (n_pairs / 4).clamp(1, Self::MAX_PLACES)] }
    }

    pub fn insert(&mut self, slot: Slot) -> bool {
        let place = scale(hash_of(slot.pair), self.places.len());
        self.places[place].insert(slot)
    }

    #[inline]
    pub fn find(&self, pair: u64, hash: u64) -> Merge {
        self.places[scale(hash, self.places.len())].find(pair)
    }
}

/// All other pairs: a place that is full goes on in the next one.
pub struct Rare {
    places: Vec<Place>,
}

impl Rare {
    pub fn new(slots: &[Slot]) -> Self {
        let mut rare = Self { places: vec![Place::EMPTY; slots.len() / 2 + 2] };
        for &slot in slots {
            let mut place = scale(hash_of(slot.pair), rare.places.len());
            while !rare.places[place].insert(slot) {
                place = (place + 1) % rare.places.len();
            }
        }
        rare
    }

    #[inline(never)]
    pub fn find(&self, pair: u64, hash: u64) -> Merge {
        let mut place = scale(hash, self.places.len());
        loop {
            let found = self.places[place].find(pair);
            if found != NEVER || self.places[place].0[3].pair == u64::MAX {
                return found;
            }
            place = (place + 1) % self.places.len();
        }
    }
}

/// A Bloom filter whose bits of one pair lie in one word: small enough to stay near.
pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    const BITS_PER_PAIR: usize = 10;

    pub fn new(slots: &[Slot]) -> Self {
        let mut words = vec![0; (slots.len() * Self::BITS_PER_PAIR).div_ceil(64).max(1)];
        for slot in slots {
            let hash = hash_of(slot.pair);
            let word = scale(hash, words.len());
            words[word] |= Self::bits(hash);
        }
        Self { words }
    }

    #[inline]
    pub fn may_hold(&self, hash: u64) -> bool {
        let bits = Self::bits(hash);
        self.words[scale(hash, self.words.len())] & bits == bits
    }

    /// From the hash's lower half: its upper one chose the word.
    #[inline]
    fn bits(hash: u64) -> u64 {
        let mixed = hash.wrapping_mul(0xBF58_476D_1CE4_E5B9);
        1 << (mixed >> 58) | 1 << (mixed >> 52 & 63) | 1 << (mixed >> 46 & 63)
    }
}

/// The hash as an index below `n`.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "below n")]
fn scale(hash: u64, n: usize) -> usize {
    ((u128::from(hash) * n as u128) >> 64) as usize
}

#[inline]
pub fn hash_of(pair: u64) -> u64 {
    let mixed = (pair ^ pair >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

#[inline]
pub fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
