//! Where the native encoder puts tokens: ids alone, or ids and what they cover.

use std::ops::Range;

use crate::encode::native::tokenizer_json::NONE;
use crate::encode::tokens::{TokenId, Tokens};

/// Where tokens go.
pub trait Output {
    /// Takes a token and the bytes of the text that it covers.
    fn push(&mut self, id: u32, bytes: Range<usize>);

    /// Takes tokens that cover the text from byte `at` on, one after the other, up to the first that is none.
    fn push_all(&mut self, ids: &[u32], at: usize);

    /// Takes the tokens of a whole text of `n_bytes`. False, and none is taken, if they do not cover just as much, which
    /// only an output that asks what tokens cover can tell.
    fn push_text(&mut self, ids: &[u32], n_bytes: usize) -> bool;
}

/// Ids alone.
pub struct Ids<'a>(pub &'a mut Vec<TokenId>);

impl Output for Ids<'_> {
    #[inline]
    fn push(&mut self, id: u32, _bytes: Range<usize>) {
        self.0.push(id.cast_signed());
    }

    #[inline]
    fn push_all(&mut self, ids: &[u32], _at: usize) {
        for &id in ids {
            if id == NONE {
                break;
            }
            self.0.push(id.cast_signed());
        }
    }

    fn push_text(&mut self, ids: &[u32], _n_bytes: usize) -> bool {
        self.0.extend(ids.iter().map(|id| id.cast_signed()));
        true
    }
}

/// Ids and what they cover of a text that begins at `start`, behind `n_prefix` bytes that are not its own.
pub struct Placed<'a> {
    /// Where they are put.
    pub tokens: &'a mut Tokens,
    /// How many bytes of text each token covers.
    pub lengths: &'a [u16],
    /// Where the text begins in the rendered conversation.
    pub start: usize,
    /// How many bytes stand before the text that are not its own.
    pub n_prefix: usize,
    /// The end of the text's first character: Hugging Face says that a made-up space covers it.
    pub first_end: usize,
}

impl Output for Placed<'_> {
    #[inline]
    fn push(&mut self, id: u32, bytes: Range<usize>) {
        let first = self.start + bytes.start.saturating_sub(self.n_prefix);
        let mut end = self.start + bytes.end - self.n_prefix;
        if bytes.start < self.n_prefix {
            end = end.max(self.start + self.first_end);
        }
        self.tokens.push(id.cast_signed(), first..end);
    }

    #[inline]
    fn push_all(&mut self, ids: &[u32], mut at: usize) {
        for &id in ids {
            if id == NONE {
                break;
            }
            let end = at + usize::from(self.lengths[id as usize]);
            self.push(id, at..end);
            at = end;
        }
    }

    fn push_text(&mut self, ids: &[u32], n_bytes: usize) -> bool {
        let n_before = self.tokens.ids().len();
        let is_whole = self.tokens.push_adjoining(ids, self.lengths, self.start) == self.start + n_bytes;
        if !is_whole {
            self.tokens.truncate(n_before);
        }
        is_whole
    }
}
