//! Character classes as the regular expressions of tokenizer files see them.
//!
//! The tables hold what Oniguruma, the engine inside of `tokenizers`, answers for every code point. A test asks it again.

use std::sync::LazyLock;

use crate::encode::native::unicode_tables::{LETTER, NUMBER, SPACE};

/// `\p{L}`
pub const L: u8 = 1;
/// `\p{N}`
pub const N: u8 = 2;
/// `\s`
pub const S: u8 = 4;
/// `char::is_numeric`: the pre-tokenizer `Digits` asks Rust, not the regular expressions.
pub const DIGIT: u8 = 8;

const BLOCK: usize = 256;
const N_BLOCKS: usize = 0x11_0000 / BLOCK;

struct Classes {
    block_of: Vec<u16>,
    blocks: Vec<[u8; BLOCK]>,
}

static CLASSES: LazyLock<Classes> = LazyLock::new(build);

/// The class bits of a character.
#[inline]
pub fn class_of(char: char) -> u8 {
    let code = char as usize;
    let classes = &*CLASSES;
    classes.blocks[usize::from(classes.block_of[code / BLOCK])][code % BLOCK]
}

fn build() -> Classes {
    let mut bits = vec![0_u8; N_BLOCKS * BLOCK];
    let tables = [(LETTER, L), (NUMBER, N), (SPACE, S)];
    for (ranges, bit) in tables {
        for &(first, last) in ranges {
            bits[first as usize..=last as usize].iter_mut().for_each(|bits| *bits |= bit);
        }
    }
    for (code, bits) in (0..).zip(&mut bits) {
        *bits |= if char::from_u32(code).is_some_and(char::is_numeric) { DIGIT } else { 0 };
    }
    let mut classes = Classes { block_of: Vec::with_capacity(N_BLOCKS), blocks: Vec::new() };
    for block in bits.chunks_exact(BLOCK) {
        let known = classes.blocks.iter().position(|known| known == block);
        let index = known.unwrap_or_else(|| {
            let mut owned = [0; BLOCK];
            owned.copy_from_slice(block);
            classes.blocks.push(owned);
            classes.blocks.len() - 1
        });
        #[allow(clippy::cast_possible_truncation, reason = "there are 4,352 blocks at most")]
        classes.block_of.push(index as u16);
    }
    classes
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    const TABLES: [(&str, &str, &str); 3] =
        [("LETTER", r"\p{L}", "letters"), ("NUMBER", r"\p{N}", "numbers"), ("SPACE", r"\s", "white space")];

    /// The ranges of code points that the engine says are in the class.
    fn ask(class: &str) -> Vec<(u32, u32)> {
        let regex = onig::Regex::new(&format!("^{class}$")).unwrap();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for char in '\0'..=char::MAX {
            // A line feed is before the end of a line for `$`: it is asked with company.
            let is_in = if char == '\n' {
                onig::Regex::new(class).unwrap().find("\n").is_some()
            } else {
                regex.is_match(char.encode_utf8(&mut [0; 4]))
            };
            match ranges.last_mut() {
                Some(last) if is_in && last.1 + 1 == char as u32 => last.1 += 1,
                _ if is_in => ranges.push((char as u32, char as u32)),
                _ => {}
            }
        }
        ranges
    }

    #[test]
    fn the_tables_are_what_the_regular_expressions_engine_says() {
        let mut file =
            String::from("//! Written by the test of `unicode.rs` (`TRAJTOK_WRITE_TABLES=1 cargo test tables`).\n");
        let ours = [LETTER, NUMBER, SPACE];
        let mut differing = Vec::new();
        for ((name, class, words), ours) in TABLES.into_iter().zip(ours) {
            let asked = ask(class);
            if asked != ours {
                differing.push(name);
            }
            write!(file, "\n/// `{class}`: {words}.\n#[rustfmt::skip]\npub const {name}: &[(u32, u32)] = &[").unwrap();
            for (index, (first, last)) in asked.iter().enumerate() {
                let lead = if index % 6 == 0 { "\n    " } else { " " };
                write!(file, "{lead}(0x{first:04X}, 0x{last:04X}),").unwrap();
            }
            file.push_str("\n];\n");
        }
        if std::env::var_os("TRAJTOK_WRITE_TABLES").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/encode/native/unicode_tables.rs"), file).unwrap();
            return;
        }
        assert_eq!(differing, [] as [&str; 0]);
    }

    #[test]
    fn no_character_is_a_letter_and_a_digit_or_a_space_and_another() {
        for char in '\0'..=char::MAX {
            let class = class_of(char);
            assert!(class & L == 0 || class & (DIGIT | N | S) == 0, "{char:?}");
            assert!(class & S == 0 || class & (DIGIT | N) == 0, "{char:?}");
        }
    }

    #[test]
    fn classes_of_well_known_characters() {
        for (char, class) in [
            ('a', L),
            ('é', L),
            ('7', N | DIGIT),
            ('½', N | DIGIT),
            (' ', S),
            ('\n', S),
            ('\u{85}', S),
            ('\u{301}', 0),
            ('.', 0),
            ('中', L),
            ('\0', 0),
        ] {
            assert_eq!(class_of(char), class, "{char:?}");
        }
    }
}
