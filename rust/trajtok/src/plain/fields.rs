//! Typed access to a record's fields; `None` where what stands there has to be judged.

#![allow(clippy::option_option, reason = "the outer one says whether the record is plain")]

use super::value::{Object, Value, canonical_object, is_minus_zero};
use crate::json_text::push_text;

/// The value of a key; null where it is absent.
pub(super) fn get<'o, 'a>(object: &'o Object<'a>, key: &str) -> &'o Value<'a> {
    object.iter().find(|(known, _)| known == key).map_or(&Value::Null, |(_, value)| value)
}

/// Whether all keys are among these.
pub(super) fn has_only(object: &Object<'_>, keys: &[&str]) -> bool {
    object.iter().all(|(key, _)| keys.contains(&key.as_ref()))
}

/// A text that may be absent or null; a whole number is read as its digits.
pub(super) fn optional_text(object: &Object<'_>, key: &str) -> Option<Option<String>> {
    match get(object, key) {
        Value::Null => Some(None),
        Value::Text(text) => Some(Some(text.to_string())),
        Value::Integer(number) => Some(Some(number.to_string())),
        _ => None,
    }
}

/// Success, failure or not known.
pub(super) fn optional_reward(object: &Object<'_>, key: &str) -> Option<Option<bool>> {
    match get(object, key) {
        Value::Null => Some(None),
        Value::Bool(value) => Some(Some(*value)),
        _ => None,
    }
}

/// An answer that may be absent or null: a text as it stands.
pub(super) fn optional_answer(object: &Object<'_>, key: &str) -> Option<Option<String>> {
    match get(object, key) {
        Value::Null => Some(None),
        Value::Text(text) => Some(Some(text.to_string())),
        other => scalar_json(other).map(Some),
    }
}

/// A score that may be absent or null.
pub(super) fn optional_score(object: &Object<'_>) -> Option<Option<f64>> {
    match get(object, "score") {
        Value::Null => Some(None),
        Value::Bool(value) => Some(Some(f64::from(u8::from(*value)))),
        Value::Integer(number) => i32::try_from(*number).ok().map(|number| Some(f64::from(number))),
        Value::Number(number) => (!is_minus_zero(*number)).then_some(Some(*number)),
        _ => None,
    }
}

/// Canonical JSON text of a value that is no list and no object; `None` for a number that is not whole, too.
pub(super) fn scalar_json(value: &Value<'_>) -> Option<String> {
    let mut text = String::new();
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Integer(number) => text.push_str(&number.to_string()),
        Value::Text(inner) => push_text(inner, &mut text),
        Value::Number(_) | Value::List(_) | Value::Object(_) => return None,
    }
    Some(text)
}

/// Keys beside the messages that hold what cannot be trained.
const MEDIA: [&str; 3] = ["images", "audios", "videos"];

/// Whether images, sound or video stand beside the messages.
pub(super) fn has_media(object: &Object<'_>) -> bool {
    MEDIA.iter().any(|key| !get(object, key).says_nothing())
}

/// Canonical JSON text of what stands under other keys than these and says something; none where nothing does.
pub(super) fn extra_json(object: &Object<'_>, known: &[&str]) -> Option<Option<String>> {
    let mut pairs: Vec<(&str, &Value<'_>)> = unknown(object, known).filter(|pair| !pair.1.says_nothing()).collect();
    pairs.sort_unstable_by_key(|pair| pair.0);
    if pairs.is_empty() { Some(None) } else { canonical_object(&pairs).map(Some) }
}

/// The keys that are none of these, with their values.
pub(super) fn unknown<'o>(object: &'o Object<'_>, known: &[&str]) -> impl Iterator<Item = (&'o str, &'o Value<'o>)> {
    object.iter().map(|(key, value)| (key.as_ref(), value)).filter(|(key, _)| !known.contains(key))
}

/// Whether a key says that the record is an episode of an evaluation; `None` for anything but true, false and null.
pub(super) fn is_evaluation(object: &Object<'_>) -> Option<bool> {
    optional_reward(object, "is_evaluation").map(|value| value == Some(true))
}

/// JSON text of a list of tool schemas: a text as it stands, a list written anew; none for an empty one.
pub(super) fn read_tools(object: &Object<'_>) -> Option<Option<String>> {
    let is_schemas =
        |value: &Value<'_>| value.as_list().map(|items| items.iter().all(|item| item.as_object().is_some()));
    match get(object, "tools") {
        Value::Null => Some(None),
        Value::Text(text) if text.is_empty() => Some(None),
        Value::Text(text) => {
            let parsed: Value<'_> = serde_json::from_str(text).ok()?;
            is_schemas(&parsed)?.then(|| (!parsed.as_list().is_none_or(<[_]>::is_empty)).then(|| text.to_string()))
        }
        value => {
            if !is_schemas(value)? {
                return None;
            }
            let mut text = String::new();
            value.dumps(&mut text)?;
            Some((text != "[]").then_some(text))
        }
    }
}
