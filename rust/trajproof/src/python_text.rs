//! Texts as Python sees them: what its `strip` takes for white space, and how its `json.dumps` writes a string.

/// Whether Python's `str.strip` takes the character away: Unicode's white space and four separators of ASCII.
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\x1c'..='\x1f').contains(&char)
}

/// `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// `json.dumps(text, ensure_ascii=False)`, without the quotes around it.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\x08' => escaped.push_str("\\b"),
            '\x0c' => escaped.push_str("\\f"),
            '\0'..='\x1f' => escaped.extend(["\\u00", if char < '\x10' { "0" } else { "1" }, HEX[char as usize % 16]]),
            _ => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{escape, strip};

    #[test]
    fn texts_are_stripped_and_escaped_as_python_does() {
        assert_eq!(strip("\x1f \u{a0}\u{2028}a b\x1c\u{85}"), "a b");
        assert_eq!(strip("\u{200b}a\u{feff}"), "\u{200b}a\u{feff}");
        assert_eq!(
            escape("a\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}é\u{2028}"),
            "a\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}é\u{2028}"
        );
    }
}
