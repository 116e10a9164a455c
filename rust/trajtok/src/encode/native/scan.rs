//! Scanners: where the next word of a text ends, as the pre-tokenizers of known tokenizer files would split it.
//!
//! Each family is one regular expression (or a few, one after the other), written out by hand. All are exact: a test
//! compares them with Hugging Face's own on every kind of character, and an encoder checks itself when it is loaded.

use crate::encode::native::text::{ASCII, Text, leading_non_spaces};
use crate::encode::native::unicode::{DIGIT, L, N, S};

/// Splits a text into words.
pub trait Scanner {
    /// Where the word that begins at `at` ends. `at` lies inside of the text.
    fn word_end(&self, text: Text<'_>, at: usize) -> usize;
}

/// `Digits(individual)` and then GPT-2's
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: `SmolLM`.
pub struct SmolLm;

impl Scanner for SmolLm {
    #[inline]
    fn word_end(&self, text: Text<'_>, at: usize) -> usize {
        if text.bytes[at] == b' ' && ASCII[usize::from(text.bytes[at + 1])] & L != 0 {
            return text.letters(at + 2);
        }
        let (class, length) = text.class_at(at);
        if class & L != 0 { text.letters(at + length) } else { Self::other_word(text, at, class, length) }
    }
}

impl SmolLm {
    fn other_word(text: Text<'_>, at: usize, class: u8, length: usize) -> usize {
        if class & DIGIT != 0 {
            return at + length;
        }
        if text.bytes[at] == b'\''
            && let Some(end) = gpt2_contraction(text, at)
        {
            return end;
        }
        if text.bytes[at] == b' ' {
            let (next_class, next_length) = text.class_at(at + 1);
            if next_length > 0 && next_class & (S | DIGIT) == 0 {
                return Self::same_class(text, at + 1, next_class);
            }
        }
        if class & S == 0 {
            return Self::same_class(text, at, class);
        }
        let (mut next, mut last) = (at, at);
        while next < text.end() && text.class_at(next).0 & S != 0 {
            last = next;
            next += text.class_at(next).1;
        }
        text.without_last(at, last, next, DIGIT)
    }

    /// `\p{L}+`, `\p{N}+` or `[^\s\p{L}\p{N}]+`, by the class of the first character.
    fn same_class(text: Text<'_>, at: usize, class: u8) -> usize {
        match class & (L | N) {
            0 => text.run_without(at, S | L | N | DIGIT),
            same => text.run(at, same, DIGIT),
        }
    }
}

fn gpt2_contraction(text: Text<'_>, at: usize) -> Option<usize> {
    match (text.bytes[at + 1], text.bytes[at + 2]) {
        (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
        (b'r' | b'v', b'e') | (b'l', b'l') => Some(at + 3),
        _ => None,
    }
}

/// `SentencePiece`'s words, where no token holds a space behind anything else: spaces and what follows them.
pub struct Spaces;

impl Scanner for Spaces {
    #[inline]
    fn word_end(&self, text: Text<'_>, at: usize) -> usize {
        let mut at = at;
        while at < text.end() && text.bytes[at] == b' ' {
            at += 1;
        }
        while at < text.end() {
            let n_others = leading_non_spaces(text.load(at));
            at += n_others;
            if n_others < 8 {
                break;
            }
        }
        at.min(text.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::native::text::PADDING;

    fn words<'a>(scanner: &impl Scanner, text: &'a str) -> Vec<&'a str> {
        let mut padded = text.as_bytes().to_vec();
        padded.resize(text.len() + PADDING, 0);
        let padded = Text::new(&padded);
        let (mut words, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let end = scanner.word_end(padded, at);
            words.push(&text[at..end]);
            at = end;
        }
        words
    }

    #[test]
    fn words_of_each_family() {
        assert_eq!(
            words(&SmolLm, "Hi there, it's  12 x\n\n  b ."),
            ["Hi", " there", ",", " it", "'s", "  ", "1", "2", " x", "\n\n ", " b", " ."]
        );
        assert_eq!(words(&Spaces, " a  b\nc "), [" a", "  b\nc", " "]);
    }
}
