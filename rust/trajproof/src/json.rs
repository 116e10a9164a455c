//! JSON values in the order in which they stand, written as Python's `json.dumps(value, ensure_ascii=False)` writes them.

use std::collections::HashSet;
use std::fmt::{self, Write};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::python_text::escape;

/// A JSON value whose text Python's `json` would write alike. Numbers that it might spell otherwise, and keys that stand twice,
/// are refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i128),
    /// Another number, of a size that Python writes without an exponent.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// An object, its keys in order.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses JSON text; `None` where it is none, or is refused.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// All texts in it, keys left out.
    pub fn texts<'a>(&'a self, found: &mut Vec<&'a str>) {
        match self {
            Self::Text(text) => found.push(text),
            Self::List(items) => items.iter().for_each(|item| item.texts(found)),
            Self::Object(pairs) => pairs.iter().for_each(|(_, item)| item.texts(found)),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) => {}
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => write!(f, "\"{}\"", escape(text)),
            Self::List(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { ", " } else { "" })?;
                }
                f.write_char(']')
            }
            Self::Object(pairs) => {
                f.write_char('{')?;
                for (index, (key, item)) in pairs.iter().enumerate() {
                    write!(f, "{}\"{}\": {item}", if index > 0 { ", " } else { "" }, escape(key))?;
                }
                f.write_char('}')
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

/// Whether two texts of the fewest digits are as near to the number: Rust and Python take another one then.
fn is_tie(value: f64) -> bool {
    let shortest = format!("{value:e}");
    let n_decimals =
        shortest.split_once('e').and_then(|(digits, _)| digits.split_once('.')).map_or(0, |(_, end)| end.len());
    shortest != format!("{value:.n_decimals$e}")
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        // `-0` is a whole number to Python; an exponent begins below 1e-4, and at 1e16, where whole numbers beyond 64 bits are.
        let is_plain =
            ((1e-4..1e16).contains(&value.abs()) && !is_tie(value)) || (value == 0.0 && value.is_sign_positive());
        if is_plain { Ok(Json::Float(value)) } else { Err(E::custom("a number that Python may write otherwise")) }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let (mut pairs, mut known): (Vec<(String, Json)>, HashSet<String>) = (Vec::new(), HashSet::new());
        while let Some((key, item)) = entries.next_entry::<String, Json>()? {
            if !known.insert(key.clone()) {
                return Err(A::Error::custom("a key that stands twice"));
            }
            pairs.push((key, item));
        }
        Ok(Json::Object(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn values_are_written_as_python_writes_them() {
        let text =
            r#"{"b":[1,-2,18446744073709551615,0.5,1.0,123456.75,null,true],"a":{"é\n":"\u00e9"},"z":[],"o":{}}"#;
        let written = r#"{"b": [1, -2, 18446744073709551615, 0.5, 1.0, 123456.75, null, true], "a": {"é\n": "é"}, "z": [], "o": {}}"#;
        assert_eq!(Json::parse(text).map(|json| json.to_string()).as_deref(), Some(written));
    }

    #[test]
    fn what_python_might_write_otherwise_is_refused() {
        for text in [
            "-0",
            "-0.0",
            "1e16",
            "1e-5",
            "18446744073709551616",
            r#"{"a":1,"a":2}"#,
            "1e999",
            "NaN",
            "",
            "1700000000.00390625",
            "1320275584388339.2",
        ] {
            assert_eq!(Json::parse(text), None, "{text}");
        }
    }
}
