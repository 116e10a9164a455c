//! Scanners: where the next word of a text ends, as the pre-tokenizers of known tokenizer files would split it.
//!
//! Each family is one regular expression (or a few, one after the other), written out by hand. All are exact: a test
//! compares them with Hugging Face's own on every kind of character, and an encoder checks itself when it is loaded.

use crate::unicode::{CRLF, DIGIT, KANA, L, M, N, P, S, class_of};

/// Zero bytes behind a text, so that words can be read in wide strides.
pub const PADDING: usize = 40;

/// The class bits of ASCII characters, at compile time; 0 above.
const ASCII: [u8; 256] = ascii_classes();

const fn ascii_classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 128 {
        #[allow(clippy::cast_possible_truncation, reason = "below 128")]
        let byte = code as u8;
        table[code] = match byte {
            b'\r' | b'\n' => S | CRLF,
            b'\t' | 0x0B | 0x0C | b' ' => S,
            b'0'..=b'9' => N | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' => L,
            b'!'..=b'~' => P,
            _ => 0,
        };
        code += 1;
    }
    table
}

/// A text with [`PADDING`] zero bytes behind it. Positions are bytes, always at the border of a character.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    bytes: &'a [u8],
    end: usize,
}

impl<'a> Text<'a> {
    /// The padded bytes of a valid UTF-8 text.
    pub fn new(padded: &'a [u8]) -> Self {
        Self { bytes: padded, end: padded.len() - PADDING }
    }

    /// Where the text ends.
    pub fn end(self) -> usize {
        self.end
    }

    /// The bytes of a stretch.
    pub fn slice(self, start: usize, end: usize) -> &'a [u8] {
        &self.bytes[start..end]
    }

    /// Eight bytes, the first one lowest.
    #[inline]
    pub fn load(self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.bytes[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    /// The classes of the character at `at` and its length; nothing behind the end.
    #[inline]
    fn class_at(self, at: usize) -> (u8, usize) {
        let byte = self.bytes[at];
        match byte {
            0..0x80 => (if at < self.end { ASCII[usize::from(byte)] } else { 0 }, usize::from(at < self.end)),
            _ => self.class_of_wide(at),
        }
    }

    fn class_of_wide(self, at: usize) -> (u8, usize) {
        let (char, length) = self.char_at(at);
        (class_of(char), length)
    }

    /// The character of several bytes at `at`, and how many.
    fn char_at(self, at: usize) -> (char, usize) {
        let tail = |index: usize| u32::from(self.bytes[at + index] & 0x3F);
        let lead = u32::from(self.bytes[at]);
        let (code, length) = match lead {
            0..0xE0 => ((lead & 0x1F) << 6 | tail(1), 2),
            0xE0..0xF0 => ((lead & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
            _ => ((lead & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
        };
        (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), length)
    }

    /// Where the run of characters from `at` on ends that have a class of `wanted` and none of `stop`.
    #[inline]
    fn run(self, mut at: usize, wanted: u8, stop: u8) -> usize {
        while at < self.end {
            let (class, length) = self.class_at(at);
            if class & wanted == 0 || class & stop != 0 {
                break;
            }
            at += length;
        }
        at
    }

    /// Where the run of characters from `at` on ends that have none of the classes of `stop`.
    #[inline]
    fn run_without(self, mut at: usize, stop: u8) -> usize {
        while at < self.end {
            let (class, length) = self.class_at(at);
            if class & stop != 0 {
                break;
            }
            at += length;
        }
        at
    }

    /// Where the run of ASCII letters from `at` on ends, eight at a time.
    #[inline]
    fn ascii_letters(self, mut at: usize) -> usize {
        loop {
            let n_letters = leading_ascii_letters(self.load(at));
            at += n_letters;
            if n_letters < 8 {
                return at;
            }
        }
    }

    /// Where the run of letters from `at` on ends.
    #[inline]
    fn letters(self, at: usize) -> usize {
        let at = self.ascii_letters(at);
        if self.bytes[at] < 0x80 { at } else { self.wide_letters(at) }
    }

    #[cold]
    fn wide_letters(self, at: usize) -> usize {
        self.run(at, L, 0)
    }

    /// White space from `at` on, `\s*[\r\n]+|\s+(?!\S)|\s+`, in a text that ends before any of `stop`.
    fn white_space(self, at: usize, stop: u8) -> usize {
        let (mut next, mut last, mut line_end) = (at, at, None);
        while next < self.end {
            let (class, length) = self.class_at(next);
            if class & S == 0 || class & stop != 0 {
                break;
            }
            last = next;
            next += length;
            if class & CRLF != 0 {
                line_end = Some(next);
            }
        }
        if let Some(line_end) = line_end {
            return line_end;
        }
        self.without_last(at, last, next, stop)
    }

    /// `\s+(?!\S)|\s+`, given the run `at..next` whose last character begins at `last`.
    fn without_last(self, at: usize, last: usize, next: usize, stop: u8) -> usize {
        let is_at_end = next == self.end || self.class_at(next).0 & stop != 0;
        if is_at_end || last == at { next } else { last }
    }

    /// The end of an English contraction at an apostrophe, whatever its case: `(?i:'s|'t|'re|'ve|'m|'ll|'d)`.
    fn contraction(self, at: usize) -> Option<usize> {
        let (first, second) = (self.bytes[at + 1] | 0x20, self.bytes[at + 2] | 0x20);
        match (first, second) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(at + 3),
            // U+017F, the long s, is an s where case does not matter.
            _ if self.bytes[at + 1..].starts_with("ſ".as_bytes()) => Some(at + 3),
            _ => None,
        }
    }
}

/// How many of the eight bytes, from the lowest on, are ASCII letters.
#[inline]
fn leading_ascii_letters(bytes: u64) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let lower = (bytes | (0x20 * ONES)) & !HIGH;
    let from_a = lower + (0x80 - 0x61) * ONES;
    let above_z = lower + (0x80 - 0x7B) * ONES;
    let is_other = !(from_a & !above_z & !bytes) & HIGH;
    (is_other.trailing_zeros() / 8) as usize
}

/// Splits a text into words.
pub trait Scanner {
    /// Where the word that begins at `at` ends. `at` lies inside of the text.
    fn word_end(&self, text: Text<'_>, at: usize) -> usize;
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,D}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:
/// Llama 3 with three digits at a time, Qwen 2 with one.
pub struct Cl100k<const DIGITS: usize>;

impl<const DIGITS: usize> Scanner for Cl100k<DIGITS> {
    #[inline]
    fn word_end(&self, text: Text<'_>, at: usize) -> usize {
        let byte = text.bytes[at];
        if byte == b' ' && ASCII[usize::from(text.bytes[at + 1])] & L != 0 {
            return text.letters(at + 2);
        }
        let (class, length) = text.class_at(at);
        if class & L != 0 {
            return text.letters(at + length);
        }
        Self::other_word(text, at, class, length)
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
        if text.bytes[at] == b' ' && next < text.end && next_class & (S | L | N) == 0 {
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
        let byte = text.bytes[at];
        if byte == b' ' && ASCII[usize::from(text.bytes[at + 1])] & L != 0 {
            return text.letters(at + 2);
        }
        let (class, length) = text.class_at(at);
        if class & L != 0 {
            return text.letters(at + length);
        }
        Self::other_word(text, at, class, length)
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
        while next < text.end && text.class_at(next).0 & S != 0 {
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
        while at < text.end {
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
        while at < text.end && text.bytes[at] == b' ' {
            at += 1;
        }
        while at < text.end {
            let n_others = leading_non_spaces(text.load(at));
            at += n_others;
            if n_others < 8 {
                break;
            }
        }
        at.min(text.end)
    }
}

/// How many of the eight bytes, from the lowest on, are no spaces.
#[inline]
fn leading_non_spaces(bytes: u64) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let other = bytes ^ (0x20 * ONES);
    // The lowest mark is exact: a borrow can only come from a byte that is marked itself.
    let is_space = other.wrapping_sub(ONES) & !other & HIGH;
    (is_space.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compile_time_classes_are_those_of_the_tables() {
        for code in 0..128_u8 {
            assert_eq!(ASCII[usize::from(code)], class_of(char::from(code)), "{code:#x}");
        }
    }

    #[test]
    fn letters_are_counted_from_the_lowest_byte() {
        assert_eq!(leading_ascii_letters(u64::from_le_bytes(*b"abcXYZzZ")), 8);
        assert_eq!(leading_ascii_letters(u64::from_le_bytes(*b"ab@`[{/:")), 2);
        assert_eq!(leading_ascii_letters(u64::from_le_bytes([b'a', 0xC3, 0xA9, 0, 0, 0, 0, 0])), 1);
        for code in 0..=255_u8 {
            let found = leading_ascii_letters(u64::from(code));
            assert_eq!(found, usize::from(code.is_ascii_alphabetic()), "{code:#x}");
        }
    }

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
