//! Texts and numbers of JSON as Python writes them.

use std::fmt::Write as _;

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// A text in quotes, as Python's `json` writes it with `ensure_ascii=False`.
pub(crate) fn push_text(inner: &str, text: &mut String) {
    text.push('"');
    let mut rest = inner;
    loop {
        let n_plain = plain_len(rest.as_bytes());
        text.push_str(&rest[..n_plain]);
        let Some(&byte) = rest.as_bytes().get(n_plain) else { break };
        rest = &rest[n_plain + 1..];
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
    text.push('"');
}

/// How many bytes stand before a quote, a backslash, a control character or the end.
#[inline]
pub(crate) fn plain_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(word) = bytes[at..].first_chunk::<8>() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
        at += blocks_without_special(&bytes[at..]);
    }
    let is_special = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
    at + bytes[at..].iter().position(is_special).unwrap_or(bytes.len() - at)
}

/// The bytes of whole blocks that hold nothing special.
#[inline]
fn blocks_without_special(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(block) = bytes[at..].first_chunk::<32>() {
        let is_special = |byte: u8| u8::from(byte < b' ') | u8::from(byte == b'"') | u8::from(byte == b'\\');
        if block.iter().fold(0, |any, &byte| any | is_special(byte)) != 0 {
            break;
        }
        at += 32;
    }
    at
}

/// A word whose lowest set bit lies in the first byte that is a quote, a backslash or a control character.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | controls) & (ONES * 0x80)
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

#[cfg(test)]
mod tests {
    use super::plain_len;

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for n in 0..100 {
            for special in [b'"', b'\\', 0, 0x1f] {
                let mut bytes = vec![b'x'; 120];
                bytes[..n].iter_mut().step_by(3).for_each(|byte| *byte = 0xc3);
                bytes[n] = special;
                assert_eq!(plain_len(&bytes), n);
                assert_eq!(plain_len(&bytes[..n]), n);
            }
        }
        assert_eq!(plain_len("\u{7f} !#[]".as_bytes()), 6);
    }
}
