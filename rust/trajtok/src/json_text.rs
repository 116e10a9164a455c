//! Texts and numbers of JSON as Python writes them.

use std::fmt::Write as _;

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// A text in quotes, as Python's `json` writes it with `ensure_ascii=False`.
pub(crate) fn push_text(inner: &str, text: &mut String) {
    text.push('"');
    let mut rest = inner;
    while let Some(at) = first_escaped(rest.as_bytes()) {
        text.push_str(&rest[..at]);
        let byte = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x08 => text.push_str("\\b"),
            0x0c => text.push_str("\\f"),
            _ => text.extend(["\\u00", if byte < 0x10 { "0" } else { "1" }, HEX[usize::from(byte % 16)]]),
        }
    }
    text.push_str(rest);
    text.push('"');
}

/// Where the first byte stands that JSON text spells otherwise: a quote, a backslash or a control character.
fn first_escaped(bytes: &[u8]) -> Option<usize> {
    let mut words = bytes.chunks_exact(8);
    let n_words = words.by_ref().take_while(|word| !may_hold_escaped(word)).count();
    let from = n_words * 8;
    bytes[from..].iter().position(|byte| *byte < b' ' || matches!(byte, b'"' | b'\\')).map(|at| from + at)
}

/// Whether one of eight bytes is to be escaped; never `false` where one is.
fn may_hold_escaped(word: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let word = word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let below = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word & (EACH << 7);
    let is_byte = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
    below(word, u64::from(b' ')) | is_byte(b'"') | is_byte(b'\\') != 0
}

/// `float.__repr__`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
pub(crate) fn push_float(float: f64, out: &mut String) {
    let shortest = format!("{float:e}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let n_decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    if float != 0.0 && !(-4..16).contains(&exponent) {
        let scientific = nearest_even(float, shortest.clone(), format!("{float:.n_decimals$e}"));
        let sign = if exponent < 0 { '-' } else { '+' };
        let digits = scientific.split('e').next().unwrap_or_default();
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs());
        return;
    }
    let n_places = n_decimals.saturating_add_signed(-isize::try_from(exponent).unwrap_or(0));
    let plain = nearest_even(float, format!("{float}"), format!("{float:.n_places$}"));
    out.push_str(&plain);
    if !plain.contains('.') {
        out.push_str(".0");
    }
}

/// Of two texts of as few digits that are as near to a number, the one that ends evenly, as Python has it.
fn nearest_even(float: f64, shortest: String, even: String) -> String {
    if even.parse() == Ok(float) { even } else { shortest }
}
