//! Texts and numbers of JSON as Python writes them.

use std::fmt::Write as _;

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// A text in quotes, as Python's `json` writes it with `ensure_ascii=False`.
pub(crate) fn push_text(inner: &str, text: &mut String) {
    text.push('"');
    let mut from = 0;
    for (at, byte) in inner.bytes().enumerate().filter(|(_, byte)| *byte < b' ' || matches!(byte, b'"' | b'\\')) {
        text.push_str(&inner[from..at]);
        from = at + 1;
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
    text.push_str(&inner[from..]);
    text.push('"');
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
