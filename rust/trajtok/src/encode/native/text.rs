//! A text as scanners read it: padded, in wide strides, by the classes of its characters.

use crate::encode::native::unicode::{DIGIT, L, N, S, class_of};

/// Zero bytes behind a text, so that words can be read in wide strides.
pub const PADDING: usize = 40;

/// The class bits of ASCII characters, at compile time; 0 above.
pub const ASCII: [u8; 256] = ascii_classes();

const fn ascii_classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 128 {
        #[allow(clippy::cast_possible_truncation, reason = "below 128")]
        let byte = code as u8;
        table[code] = match byte {
            b'\t'..=b'\r' | b' ' => S,
            b'0'..=b'9' => N | DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' => L,
            _ => 0,
        };
        code += 1;
    }
    table
}

/// A text with [`PADDING`] zero bytes behind it. Positions are bytes, always at the border of a character.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    /// The bytes, padding included.
    pub bytes: &'a [u8],
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
    pub fn class_at(self, at: usize) -> (u8, usize) {
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
    pub fn run(self, mut at: usize, wanted: u8, stop: u8) -> usize {
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
    pub fn run_without(self, mut at: usize, stop: u8) -> usize {
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
    pub fn ascii_letters(self, mut at: usize) -> usize {
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
    pub fn letters(self, at: usize) -> usize {
        let at = self.ascii_letters(at);
        if self.bytes[at] < 0x80 { at } else { self.wide_letters(at) }
    }

    #[cold]
    fn wide_letters(self, at: usize) -> usize {
        self.run(at, L, 0)
    }

    /// `\s+(?!\S)|\s+`, given the run `at..next` whose last character begins at `last`.
    pub fn without_last(self, at: usize, last: usize, next: usize, stop: u8) -> usize {
        let is_at_end = next == self.end || self.class_at(next).0 & stop != 0;
        if is_at_end || last == at { next } else { last }
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

/// How many of the eight bytes, from the lowest on, are no spaces.
#[inline]
pub fn leading_non_spaces(bytes: u64) -> usize {
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
}
