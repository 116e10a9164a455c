//! JSON values in the order in which they stand; a text in which a key stands twice in one object is no value.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    /// Any other number.
    Number(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Object<'a>),
}

/// Keys and values in their order.
pub(super) type Object<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

impl<'a> Value<'a> {
    pub(super) fn as_object(&self) -> Option<&Object<'a>> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    pub(super) fn as_list(&self) -> Option<&[Value<'a>]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// Python's `json.dumps(value, ensure_ascii=False)`; `None` for a number that it may spell otherwise.
    pub(super) fn dumps(&self, text: &mut String) -> Option<()> {
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::Integer(value) => text.push_str(&value.to_string()),
            // Python writes an exponent below 1e-4 and from 1e16 on, where whole numbers of more than 64 bits are, too
            Self::Number(value) if (1e-4..1e16).contains(&value.abs()) && !is_tie(*value) => {
                write!(text, "{value:?}").ok()?;
            }
            Self::Number(_) => return None,
            Self::Text(inner) => push_text(text, inner),
            Self::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    item.dumps(text)?;
                }
                text.push(']');
            }
            Self::Object(pairs) => {
                text.push('{');
                for (index, (key, item)) in pairs.iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    push_text(text, key);
                    text.push_str(": ");
                    item.dumps(text)?;
                }
                text.push('}');
            }
        }
        Some(())
    }
}

/// Whether two texts of the fewest digits are as near to the number: Rust and Python take another one then.
fn is_tie(value: f64) -> bool {
    let shortest = format!("{value:e}");
    let n_decimals =
        shortest.split_once('e').and_then(|(digits, _)| digits.split_once('.')).map_or(0, |(_, end)| end.len());
    shortest != format!("{value:.n_decimals$e}")
}

const HEX: [&str; 16] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];

/// A text in quotes, as Python's `json` writes it with `ensure_ascii=False`.
pub(super) fn push_text(text: &mut String, inner: &str) {
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

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// A key, borrowed where it can be.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ValueVisitor)? {
            Value::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a key that is no text")),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        i64::try_from(value).map(Value::Integer).map_err(E::custom)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object: Object<'de> = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            if object.iter().any(|(known, _)| *known == key) || object.len() == MAX_KEYS {
                return Err(A::Error::custom("a key that stands twice, or too many"));
            }
            object.push((key, entries.next_value()?));
        }
        Ok(Value::Object(object))
    }
}

/// Keys of one object: each is compared with those before it.
const MAX_KEYS: usize = 256;
