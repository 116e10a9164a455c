//! JSON values in the order in which they stand; a text in which a key stands twice in one object is no value.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::json_text::{push_float, push_text};

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
        self.write(&AS_RECORDED, text)
    }

    /// Whether it is null, or an empty text, list or object.
    pub(super) fn says_nothing(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Object(pairs) => pairs.is_empty(),
            Self::Bool(_) | Self::Integer(_) | Self::Number(_) => false,
        }
    }

    fn write(&self, style: &Style, text: &mut String) -> Option<()> {
        match self {
            Self::Null => text.push_str("null"),
            Self::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Self::Integer(value) => text.push_str(&value.to_string()),
            // Whole numbers of more than 64 bits, and -0, are floats here, and none to Python.
            Self::Number(value) if value.fract() == 0.0 && (value.abs() >= 9e15 || is_minus_zero(*value)) => {
                return None;
            }
            Self::Number(value) => push_float(*value, text),
            Self::Text(inner) => push_text(inner, text),
            Self::List(items) => {
                text.push('[');
                for (index, item) in items.iter().enumerate() {
                    text.push_str(if index > 0 { style.comma } else { "" });
                    item.write(style, text)?;
                }
                text.push(']');
            }
            Self::Object(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (key.as_ref(), value));
                if style.is_sorted {
                    let mut sorted: Vec<(&str, &Value<'_>)> = pairs.collect();
                    sorted.sort_unstable_by_key(|pair| pair.0);
                    write_object(sorted.into_iter(), style, text)?;
                } else {
                    write_object(pairs, style, text)?;
                }
            }
        }
        Some(())
    }
}

/// Whether it was written `-0`, or `-0.0`.
pub(super) fn is_minus_zero(number: f64) -> bool {
    number == 0.0 && number.is_sign_negative()
}

/// How JSON is spelled.
struct Style {
    comma: &'static str,
    colon: &'static str,
    is_sorted: bool,
}

const AS_RECORDED: Style = Style { comma: ", ", colon: ": ", is_sorted: false };
const CANONICAL: Style = Style { comma: ",", colon: ":", is_sorted: true };

/// An object of these pairs, sorted already, as `negtraj_dagster.schema.canonical_json` writes it; `None` as in
/// [`Value::dumps`].
pub(super) fn canonical_object(pairs: &[(&str, &Value<'_>)]) -> Option<String> {
    let mut text = String::new();
    write_object(pairs.iter().copied(), &CANONICAL, &mut text)?;
    Some(text)
}

fn write_object<'v>(
    pairs: impl Iterator<Item = (&'v str, &'v Value<'v>)>,
    style: &Style,
    text: &mut String,
) -> Option<()> {
    text.push('{');
    for (index, (key, item)) in pairs.enumerate() {
        text.push_str(if index > 0 { style.comma } else { "" });
        push_text(key, text);
        text.push_str(style.colon);
        item.write(style, text)?;
    }
    text.push('}');
    Some(())
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
