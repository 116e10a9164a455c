//! The loss mask: trained stretches of text become ranges of tokens.

use std::ops::Range;

use crate::encode::Tokens;
use crate::template::TrainedBytes;

/// A run of tokens with one weight: half-open token indices.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedTokens {
    /// Which tokens.
    pub tokens: Range<usize>,
    /// Their loss weight, above 0.
    pub weight: f64,
}

/// Which tokens of a row are trained.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LossMask {
    /// One run per trained message, in order, never overlapping.
    pub runs: Vec<TrainedTokens>,
    /// How many tokens lie on both sides of a trained stretch's border.
    pub n_straddling: usize,
}

impl LossMask {
    /// How many tokens are trained.
    #[must_use]
    pub fn n_trained(&self) -> usize {
        self.runs.iter().map(|run| run.tokens.len()).sum()
    }
}

/// Finds the tokens of every trained stretch.
///
/// Hugging Face's rule (`return_assistant_tokens_mask`): from the token that holds the first byte of the stretch to the
/// token that holds its last byte, both included. So a token that straddles a border is trained, and it is counted.
/// We differ in two things: offsets are never trimmed (a tokenizer whose post-processor trims them makes Hugging Face
/// lose a turn that begins with a space), and where several tokens share the last byte, all of them are trained.
/// A token that two stretches share belongs to the first.
///
/// `trained`: in order, not overlapping; a stretch that no token overlaps yields no run.
#[must_use]
pub fn mask_tokens(tokens: &Tokens, trained: &[TrainedBytes]) -> LossMask {
    let mut mask = LossMask { runs: Vec::with_capacity(trained.len()), n_straddling: 0 };
    let mut next = 0;
    for stretch in trained {
        let Some(run) = tokens_of(tokens.offsets(), next, &stretch.bytes) else { continue };
        mask.n_straddling +=
            tokens.offsets()[run.clone()].iter().filter(|token| straddles(token, &stretch.bytes)).count();
        next = run.end;
        mask.runs.push(TrainedTokens { tokens: run, weight: stretch.weight });
    }
    mask
}

/// The tokens from `from` on that overlap `bytes`, and all that lie between the first and the last of them.
fn tokens_of(offsets: &[Range<usize>], from: usize, bytes: &Range<usize>) -> Option<Range<usize>> {
    let first = from + offsets[from..].iter().position(|token| overlaps(token, bytes))?;
    let n_before_end = offsets[first..].iter().take_while(|token| token.start < bytes.end).count();
    let last = first + offsets[first..first + n_before_end].iter().rposition(|token| overlaps(token, bytes))?;
    Some(first..last + 1)
}

fn overlaps(token: &Range<usize>, bytes: &Range<usize>) -> bool {
    token.start.max(bytes.start) < token.end.min(bytes.end)
}

fn straddles(token: &Range<usize>, bytes: &Range<usize>) -> bool {
    overlaps(token, bytes) && (token.start < bytes.start || token.end > bytes.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(borders: &[usize]) -> Tokens {
        let mut tokens = Tokens::default();
        for pair in borders.windows(2) {
            tokens.push(0, pair[0]..pair[1]);
        }
        tokens
    }

    fn stretch(bytes: Range<usize>) -> TrainedBytes {
        TrainedBytes { bytes, weight: 1.0 }
    }

    fn runs(mask: &LossMask) -> Vec<(usize, usize)> {
        mask.runs.iter().map(|run| (run.tokens.start, run.tokens.end)).collect()
    }

    #[test]
    fn a_stretch_on_token_borders_trains_exactly_its_tokens() {
        let mask = mask_tokens(&tokens(&[0, 2, 4, 6, 8]), &[stretch(2..6)]);
        assert_eq!((runs(&mask), mask.n_straddling, mask.n_trained()), (vec![(1, 3)], 0, 2));
    }

    #[test]
    fn a_token_that_overlaps_by_one_byte_is_trained_and_counted() {
        let mask = mask_tokens(&tokens(&[0, 3, 6, 9]), &[stretch(2..7)]);
        assert_eq!((runs(&mask), mask.n_straddling), (vec![(0, 3)], 2));
    }

    #[test]
    fn a_token_around_the_whole_stretch_counts_once() {
        let mask = mask_tokens(&tokens(&[0, 9]), &[stretch(3..5)]);
        assert_eq!((runs(&mask), mask.n_straddling), (vec![(0, 1)], 1));
    }

    #[test]
    fn a_token_that_two_stretches_share_belongs_to_the_first() {
        let mask = mask_tokens(&tokens(&[0, 2, 4, 6]), &[stretch(0..3), stretch(3..6)]);
        assert_eq!(runs(&mask), [(0, 2), (2, 3)]);
    }

    #[test]
    fn all_tokens_of_one_character_are_trained() {
        let mut tokens = Tokens::default();
        for bytes in [0..1, 1..5, 1..5, 1..5, 5..6] {
            tokens.push(0, bytes);
        }
        assert_eq!(runs(&mask_tokens(&tokens, &[stretch(1..5)])), [(1, 4)]);
    }

    #[test]
    fn a_token_without_bytes_inside_a_stretch_is_trained() {
        let mut tokens = Tokens::default();
        for bytes in [0..1, 1..1, 1..2] {
            tokens.push(0, bytes);
        }
        assert_eq!(runs(&mask_tokens(&tokens, &[stretch(0..2)])), [(0, 3)]);
    }

    proptest! {
        #[test]
        fn runs_are_those_of_a_slow_search(
            lengths in prop::collection::vec(1_usize..5, 1..30),
            cuts in prop::collection::btree_set(0_usize..60, 0..8),
        ) {
            let borders: Vec<usize> = std::iter::once(0)
                .chain(lengths.iter().scan(0, |end, length| { *end += length; Some(*end) }))
                .collect();
            let tokens = tokens(&borders);
            let cuts: Vec<usize> = cuts.into_iter().collect();
            let trained: Vec<_> = cuts.chunks_exact(2).map(|pair| stretch(pair[0]..pair[1])).collect();
            let mask = mask_tokens(&tokens, &trained);
            let found: Vec<usize> = mask.runs.iter().flat_map(|run| run.tokens.clone()).collect();
            let expected: Vec<usize> = (0..lengths.len())
                .filter(|&i| trained.iter().any(|s| overlaps(&tokens.offsets()[i], &s.bytes)))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
