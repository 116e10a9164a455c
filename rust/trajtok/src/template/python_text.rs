//! Values as Python writes them: what a chat template prints, and the methods that it calls.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error as Fault, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;
use unicode_normalization_alignments::char::is_combining_mark;

use crate::json_text::{push_float, push_text};

/// Python's `str`.
pub struct PythonText;

impl PythonText {
    /// The text that Python prints for a value.
    ///
    /// # Errors
    /// Python's notation of the value is not supported.
    pub fn of(value: &Value) -> Result<String, Fault> {
        if let Some(text) = value.as_str() {
            return Ok(text.to_owned());
        }
        if value.is_undefined() {
            return Ok(String::new());
        }
        let mut text = String::new();
        repr(value, &mut text)?;
        Ok(text)
    }
}

/// A fault that says what is not supported.
pub fn refuse(problem: impl Into<String>) -> Fault {
    Fault::new(ErrorKind::InvalidOperation, problem.into())
}

/// Python's `repr`.
fn repr(value: &Value, out: &mut String) -> Result<(), Fault> {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => push_number(value, out, "inf", "nan"),
        ValueKind::String => repr_text(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            let n_items = value.len().unwrap_or(0);
            for (at, item) in value.try_iter()?.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                repr(&item, out)?;
            }
            out.push_str(if value.is_tuple() && n_items == 1 { "," } else { "" });
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (at, key) in value.try_iter()?.enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                repr(&key, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out)?;
            }
            out.push('}');
        }
        kind => return Err(refuse(format!("it prints a value of kind {kind}, which Python writes in its own way"))),
    }
    Ok(())
}

pub fn repr_text(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if char == quote => {
                out.push('\\');
                out.push(char);
            }
            _ if is_printable(char) => out.push(char),
            _ => {
                let _ = match u32::from(char) {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable`. Characters that Unicode took up after Python's tables were made may differ: Python's own versions do.
fn is_printable(char: char) -> bool {
    // Rust escapes a mark that begins a text, and both kinds of quotes; Python does not.
    char.escape_debug().len() == 1 || is_combining_mark(char) || matches!(char, '\'' | '"')
}

/// A number as Python writes it, with these words for what is no number.
fn push_number(value: &Value, out: &mut String, infinite: &str, none: &str) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
        return;
    }
    let float = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    if float.is_nan() {
        out.push_str(none);
    } else if float.is_infinite() {
        let _ = write!(out, "{}{infinite}", if float < 0.0 { "-" } else { "" });
    } else {
        push_float(float, out);
    }
}

/// Python's `json.dumps`.
///
/// # Errors
/// A value that JSON does not have.
pub fn dumps(
    value: &Value,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<&str>,
    separators: (&str, &str),
) -> Result<String, Fault> {
    let mut json = Json { out: String::new(), ensure_ascii, sort_keys, indent, separators, level: 0 };
    json.push(value)?;
    Ok(json.out)
}

struct Json<'a> {
    out: String,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<&'a str>,
    separators: (&'a str, &'a str),
    level: usize,
}

impl Json<'_> {
    fn push(&mut self, value: &Value) -> Result<(), Fault> {
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => push_number(value, &mut self.out, "Infinity", "NaN"),
            ValueKind::String => self.push_text(value.as_str().unwrap_or_default()),
            ValueKind::Seq => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.push_all('[', ']', &items, Self::push)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.push_all('{', '}', &keys, |json, key| {
                    match key.kind() {
                        ValueKind::String => json.push_text(key.as_str().unwrap_or_default()),
                        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                            json.out.push('"');
                            json.push(key)?;
                            json.out.push('"');
                        }
                        kind => return Err(refuse(format!("tojson: a key of kind {kind}"))),
                    }
                    json.out.push_str(json.separators.1);
                    json.push(&value.get_item(key)?)
                })?;
            }
            kind => return Err(refuse(format!("tojson: a value of kind {kind} has no JSON"))),
        }
        Ok(())
    }

    fn push_all(
        &mut self,
        open: char,
        close: char,
        items: &[Value],
        mut push: impl FnMut(&mut Self, &Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.out.push(open);
        self.level += 1;
        for (at, item) in items.iter().enumerate() {
            self.out.push_str(if at > 0 { self.separators.0 } else { "" });
            self.new_line();
            push(self, item)?;
        }
        self.level -= 1;
        if !items.is_empty() {
            self.new_line();
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent, self.level));
        }
    }

    fn push_text(&mut self, text: &str) {
        if self.ensure_ascii && !text.is_ascii() {
            push_ascii(text, &mut self.out);
        } else {
            push_text(text, &mut self.out);
        }
    }
}

/// A text in quotes, as Python's `json` writes it with `ensure_ascii`.
fn push_ascii(text: &str, out: &mut String) {
    let mut quoted = String::with_capacity(text.len() + 2);
    push_text(text, &mut quoted);
    for char in quoted.chars() {
        if char.is_ascii() {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]).iter() {
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
}

/// What Python's `str.strip` and `str.split` take for white space.
pub fn is_space(char: char) -> bool {
    char.is_whitespace() || matches!(char, '\u{1c}'..='\u{1f}')
}

/// What ends a line for Python's `str.splitlines`.
fn ends_line(char: char) -> bool {
    matches!(char, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Python's methods of strings and dicts.
///
/// # Errors
/// There is no such method here, or it is called in a way that Python refuses.
pub fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Fault> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, args) };
    let strip = |args: &[Value]| -> Result<Option<Vec<char>>, Fault> {
        let (chars,): (Option<Value>,) = from_args(args)?;
        match chars.filter(|chars| !chars.is_none()) {
            None => Ok(None),
            Some(chars) => match chars.as_str() {
                Some(chars) => Ok(Some(chars.chars().collect())),
                None => Err(refuse(format!("{name} takes a text, not {}", chars.kind()))),
            },
        }
    };
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => {
            let chars = strip(args)?;
            let is_stripped = |char: char| chars.as_ref().map_or_else(|| is_space(char), |chars| chars.contains(&char));
            let text = if name == "rstrip" { text } else { text.trim_start_matches(is_stripped) };
            Value::from(if name == "lstrip" { text } else { text.trim_end_matches(is_stripped) })
        }
        "split" if args.is_empty() => text.split(is_space).filter(|word| !word.is_empty()).map(Value::from).collect(),
        "splitlines" if args.is_empty() => {
            let mut lines: Vec<Value> = Vec::new();
            let mut rest = text;
            while let Some(at) = rest.find(ends_line) {
                lines.push(Value::from(&rest[..at]));
                let is_pair = rest[at..].starts_with("\r\n");
                rest = &rest[at + if is_pair { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) }..];
            }
            if !rest.is_empty() {
                lines.push(Value::from(rest));
            }
            Value::from(lines)
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let short = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(short.unwrap_or(text))
        }
        "rsplit" => {
            let (separator, limit): (&str, Option<i64>) = from_args(args)?;
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
                return method(state, value, "split", &args[..1]);
            };
            let mut parts: Vec<Value> = text.rsplitn(limit + 1, separator).map(Value::from).collect();
            parts.reverse();
            Value::from(parts)
        }
        _ => return unknown_method_callback(state, value, name, args),
    })
}
