//! Where the native encoder puts tokens: ids alone, or ids and what they cover.

use std::ops::Range;

use crate::encode::{TokenId, Tokens};

/// Where tokens go.
pub trait Output {
    /// Whether it wants to know what a token covers.
    const HAS_OFFSETS: bool;

    /// Takes a token and the bytes of the text that it covers.
    fn push(&mut self, id: u32, bytes: Range<usize>);
}

/// Ids alone.
pub struct Ids<'a>(pub &'a mut Vec<TokenId>);

impl Output for Ids<'_> {
    const HAS_OFFSETS: bool = false;

    #[inline]
    fn push(&mut self, id: u32, _bytes: Range<usize>) {
        self.0.push(id.cast_signed());
    }
}

/// Ids and what they cover of a text that begins at `start`, behind `n_prefix` bytes that are not its own.
pub struct Placed<'a> {
    /// Where they are put.
    pub tokens: &'a mut Tokens,
    /// Where the text begins in the rendered conversation.
    pub start: usize,
    /// How many bytes stand before the text that are not its own.
    pub n_prefix: usize,
    /// The end of the text's first character: Hugging Face says that a made-up space covers it.
    pub first_end: usize,
}

impl Output for Placed<'_> {
    const HAS_OFFSETS: bool = true;

    #[inline]
    fn push(&mut self, id: u32, bytes: Range<usize>) {
        let first = self.start + bytes.start.saturating_sub(self.n_prefix);
        let mut end = self.start + bytes.end - self.n_prefix;
        if bytes.start < self.n_prefix {
            end = end.max(self.start + self.first_end);
        }
        self.tokens.push(id.cast_signed(), first..end);
    }
}
