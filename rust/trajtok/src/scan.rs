//! Scanners: where the next word of a text ends, as the pre-tokenizers of known tokenizer files would split it.
//!
//! Each family is one regular expression (or a few, one after the other), written out by hand. All are exact: a test
//! compares them with Hugging Face's own on every kind of character, and an encoder checks itself when it is loaded.

use crate::text::{ASCII, Text, leading_non_spaces};
use crate::unicode::{CRLF, DIGIT, KANA, L, M, N, P, S};

/// Splits a text into words.
pub trait Scanner {
    /// Where the word that begins at `at` ends. `at` lies inside of the text.
    fn word_end(&self, text: Text<'_>, at: usize) -> usize;
}

/// Where a word of letters ends, with a space before it or without; else the class and the length of the first character.
#[inline]
fn letters_word(text: Text<'_>, at: usize) -> Result<usize, (u8, usize)> {
    if text.bytes[at] == b' ' && ASCII[usize::from(text.bytes[at + 1])] & L != 0 {
        return Ok(text.letters(at + 2));
    }
    let (class, length) = text.class_at(at);
    if class & L != 0 { Ok(text.letters(at + length)) } else { Err((class, length)) }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,D}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:
/// Llama 3 with three digits at a time, Qwen 2 with one.
pub struct Cl100k<const DIGITS: usize>;

impl<const DIGITS: usize> Scanner for Cl100k<DIGITS> {
    #[inline]
    fn word_end(&self, text: Text<'_>, at: usize) -> usize {
        letters_word(text, at).unwrap_or_else(|(class, length)| Self::other_word(text, at, class, length))
    }
}

impl<const DIGITS: usize> Cl100k<DIGITS> {
    fn other_word(text: Text<'_>, at: usize, class: u8, length: usize) -> usize {
        if class & N != 0 {
            return numbers(text, at + length, DIGITS - 1);
        }
        if text.bytes[at] == b'\''
            && let Some(end) = text.contraction(at)
        {
            return end;
        }
        let next = at + length;
        let (next_class, next_length) = text.class_at(next);
        if class & CRLF == 0 && next_class & L != 0 {
            return text.letters(next + next_length);
        }
        if class & S == 0 {
            return marks_and_lines(text, next);
        }
        if text.bytes[at] == b' ' && next < text.end() && next_class & (S | L | N) == 0 {
            return marks_and_lines(text, next + next_length);
        }
        text.white_space(at, 0)
    }
}

/// The rest of `[^\s\p{L}\p{N}]+[\r\n]*`.
#[inline]
fn marks_and_lines(text: Text<'_>, at: usize) -> usize {
    text.run(text.run_without(at, S | L | N), CRLF, 0)
}

/// At most `limit` further numbers.
fn numbers(text: Text<'_>, mut at: usize, limit: usize) -> usize {
    for _ in 0..limit {
        let (class, length) = text.class_at(at);
        if class & N == 0 {
            break;
        }
        at += length;
    }
    at
}

/// `Digits(individual)` and then GPT-2's
/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: `SmolLM`; without `Digits` GPT-2 itself.
pub struct Gpt2<const SINGLE_DIGITS: bool>;

impl<const SINGLE_DIGITS: bool> Scanner for Gpt2<SINGLE_DIGITS> {
    #[inline]
    fn word_end(&self, text: Text<'_>, at: usize) -> usize {
        letters_word(text, at).unwrap_or_else(|(class, length)| Self::other_word(text, at, class, length))
    }
}

impl<const SINGLE_DIGITS: bool> Gpt2<SINGLE_DIGITS> {
    /// Where `Digits` cuts the text.
    const STOP: u8 = if SINGLE_DIGITS { DIGIT } else { 0 };

    fn other_word(text: Text<'_>, at: usize, class: u8, length: usize) -> usize {
        if class & Self::STOP != 0 {
            return at + length;
        }
        if text.bytes[at] == b'\''
            && let Some(end) = gpt2_contraction(text, at)
        {
            return end;
        }
        if text.bytes[at] == b' ' {
            let (next_class, next_length) = text.class_at(at + 1);
            if next_length > 0 && next_class & (S | Self::STOP) == 0 {
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
        text.without_last(at, last, next, Self::STOP)
    }

    /// `\p{L}+`, `\p{N}+` or `[^\s\p{L}\p{N}]+`, by the class of the first character.
    fn same_class(text: Text<'_>, at: usize, class: u8) -> usize {
        match class & (L | N) {
            0 => text.run_without(at, S | L | N | Self::STOP),
            same => text.run(at, same, Self::STOP),
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

/// `DeepSeek`'s three splits, one after the other: `\p{N}{1,3}`, runs of Kanji and Kana, and
/// ``[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``.
pub struct DeepSeek;

impl DeepSeek {
    /// Where the first two splits cut the text.
    const STOP: u8 = N | KANA;

    #[inline]
    fn letters(text: Text<'_>, at: usize) -> usize {
        let at = text.ascii_letters(at);
        if text.bytes[at] < 0x80 { at } else { text.run(at, L | M, Self::STOP) }
    }

    fn is_letter(class: u8) -> bool {
        class & (L | M) != 0 && class & Self::STOP == 0
    }

    fn other_word(text: Text<'_>, at: usize, class: u8, length: usize) -> usize {
        let next = at + length;
        let (next_class, next_length) = text.class_at(next);
        if class & (CRLF | P) == 0 && Self::is_letter(next_class) {
            return Self::letters(text, next + next_length);
        }
        if class & P != 0 {
            return Self::marks_and_lines(text, next);
        }
        if text.bytes[at] == b' ' && next_class & P != 0 && next_class & Self::STOP == 0 {
            return Self::marks_and_lines(text, next + next_length);
        }
        if class & S != 0 {
            return text.white_space(at, Self::STOP);
        }
        Self::unmatched(text, next)
    }

    fn marks_and_lines(text: Text<'_>, at: usize) -> usize {
        text.run(text.run(at, P, Self::STOP), CRLF, 0)
    }

    /// What no alternative matches stays together up to the next match.
    fn unmatched(text: Text<'_>, mut at: usize) -> usize {
        while at < text.end() {
            let (class, length) = text.class_at(at);
            let is_match = class & (L | M | P | S | Self::STOP) != 0 || Self::is_letter(text.class_at(at + length).0);
            if is_match {
                break;
            }
            at += length;
        }
        at
    }
}

impl Scanner for DeepSeek {
    #[inline]
    fn word_end(&self, text: Text<'_>, at: usize) -> usize {
        if text.bytes[at] == b' ' && ASCII[usize::from(text.bytes[at + 1])] & L != 0 {
            return Self::letters(text, at + 2);
        }
        let (class, length) = text.class_at(at);
        if class & N != 0 {
            return numbers(text, at + length, 2);
        }
        if class & KANA != 0 {
            return text.run(at, KANA, N);
        }
        if class & (L | M) != 0 {
            return Self::letters(text, at + length);
        }
        if class & P != 0 && text.bytes[at] < 0x80 && ASCII[usize::from(text.bytes[at + 1])] & L != 0 {
            return text.ascii_letters(at + 1);
        }
        Self::other_word(text, at, class, length)
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
    use crate::text::PADDING;

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
        let text = "Hi there, it's 12345 a\n\n  b .\r\n";
        assert_eq!(
            words(&Cl100k::<3>, text),
            ["Hi", " there", ",", " it", "'s", " ", "123", "45", " a", "\n\n", " ", " b", " .\r\n"]
        );
        assert_eq!(words(&Cl100k::<1>, "x12"), ["x", "1", "2"]);
        assert_eq!(words(&Gpt2::<true>, "it's  12 x"), ["it", "'s", "  ", "1", "2", " x"]);
        assert_eq!(words(&Gpt2::<false>, "it's  12 x"), ["it", "'s", " ", " 12", " x"]);
        assert_eq!(words(&DeepSeek, "#ab 12 日本x\u{0}\u{0}a"), ["#ab", " ", "12", " ", "日本", "x", "\0", "\0a"]);
        assert_eq!(words(&Spaces, " a  b\nc "), [" a", "  b\nc", " "]);
    }
}
