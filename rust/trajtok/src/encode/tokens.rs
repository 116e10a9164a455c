//! Token ids, and which bytes of the text each covers.

use std::ops::Range;

/// A token's id, as the batch stores it.
pub type TokenId = i32;

/// Token ids and, in parallel, the bytes of the rendered text that each token covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<TokenId>,
    offsets: Vec<Range<usize>>,
}

impl Tokens {
    /// Takes all tokens out and keeps the room.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.offsets.clear();
    }

    /// Adds one token.
    #[inline]
    pub fn push(&mut self, id: TokenId, bytes: Range<usize>) {
        self.ids.push(id);
        self.offsets.push(bytes);
    }

    /// Adds tokens that cover the text from byte `at` on, one after the other, and says where the last one ends.
    #[inline]
    pub(crate) fn push_adjoining(&mut self, ids: &[u32], lengths: &[u16], mut at: usize) -> usize {
        self.ids.extend(ids.iter().map(|id| id.cast_signed()));
        self.offsets.extend(ids.iter().map(|&id| {
            let start = at;
            at += lengths.get(id as usize).map_or(0, |length| usize::from(*length));
            start..at
        }));
        at
    }

    /// Moves all tokens but the first `n` by so many bytes.
    pub(crate) fn shift(&mut self, n: usize, n_bytes: usize) {
        for bytes in &mut self.offsets[n..] {
            *bytes = bytes.start + n_bytes..bytes.end + n_bytes;
        }
    }

    /// Takes out all but the first `n` tokens.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.ids.truncate(n);
        self.offsets.truncate(n);
    }

    /// The ids.
    #[must_use]
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// The ids, owned.
    #[must_use]
    pub fn into_ids(self) -> Vec<TokenId> {
        self.ids
    }

    /// What each token covers, in bytes of the rendered text.
    #[must_use]
    pub fn offsets(&self) -> &[Range<usize>] {
        &self.offsets
    }
}
