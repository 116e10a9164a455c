//! Messages that are turns as they stand.

use std::borrow::Cow;

use super::fields::{get, has_only};
use super::value::{Object, Value};
use crate::json_text::push_text;

/// Closes what was thought; a content without it is all said.
const CLOSE: &str = "</think>";

/// A turn in its canonical spelling.
#[derive(Debug)]
pub(super) struct PlainTurn {
    pub(super) is_agent: bool,
    /// Whether it asks something: a user's, with more than white space.
    pub(super) asks: bool,
    /// JSON text, its keys sorted.
    pub(super) json: String,
}

/// The agent's turn, a user's or a system's, with what it says alone.
pub(super) fn said(role: &str, content: &str, is_untrained: bool) -> Option<PlainTurn> {
    if role == "assistant" && content.contains(CLOSE) {
        return None;
    }
    Some(turn(role, content, is_untrained, None, &[]))
}

/// A message of our own format or of chat completions.
pub(super) fn read(message: &Object<'_>) -> Option<PlainTurn> {
    let role = get(message, "role").as_text()?;
    let keys: &[&str] = match role {
        "system" | "user" => &["role", "content"],
        "assistant" => &["role", "content", "tool_calls"],
        "tool" => &["role", "content", "tool_call_id"],
        _ => return None,
    };
    if !has_only(message, keys) {
        return None;
    }
    let calls = match get(message, "tool_calls") {
        Value::Null => Vec::new(),
        Value::List(calls) => calls.iter().map(call).collect::<Option<Vec<String>>>()?,
        _ => return None,
    };
    let content = match get(message, "content") {
        Value::Text(text) => text.as_ref(),
        Value::Null if !calls.is_empty() => "",
        _ => return None,
    };
    if role == "assistant" && content.contains(CLOSE) {
        return None;
    }
    let call_id = match get(message, "tool_call_id") {
        Value::Null => None,
        Value::Text(text) => Some(text.as_ref()).filter(|text| !text.is_empty()),
        _ => return None,
    };
    Some(turn(role, content, false, call_id, &calls))
}

fn turn(role: &str, content: &str, is_untrained: bool, call_id: Option<&str>, calls: &[String]) -> PlainTurn {
    let mut json = String::with_capacity(content.len() + content.len() / 16 + 64);
    json.push_str("{\"content\":");
    push_text(content, &mut json);
    if is_untrained {
        json.push_str(",\"loss\":false");
    }
    json.push_str(",\"role\":");
    push_text(role, &mut json);
    if let Some(call_id) = call_id {
        json.push_str(",\"tool_call_id\":");
        push_text(call_id, &mut json);
    }
    if !calls.is_empty() {
        json.push_str(",\"tool_calls\":[");
        json.push_str(&calls.join(","));
        json.push(']');
    }
    json.push('}');
    // Python's white space has four separators of ASCII more
    let is_blank = content.chars().all(|char| char.is_whitespace() || ('\x1c'..='\x1f').contains(&char));
    PlainTurn { is_agent: role == "assistant", asks: role == "user" && !is_blank, json }
}

/// A call as `{arguments, id?, name}`.
fn call(value: &Value<'_>) -> Option<String> {
    let call = value.as_object()?;
    let function = match call.iter().find(|(key, _)| key == "function") {
        None => call,
        Some((_, function)) => function.as_object()?,
    };
    let is_ours = std::ptr::eq(function, call);
    let is_known = if is_ours {
        has_only(call, &["id", "name", "arguments"])
    } else {
        has_only(call, &["id", "type", "function"]) && has_only(function, &["name", "arguments"])
    };
    if !is_known || !matches!(get(call, "type"), Value::Null | Value::Text(Cow::Borrowed("function"))) {
        return None;
    }
    let name = get(function, "name").as_text().filter(|name| !name.is_empty())?;
    let mut json = "{\"arguments\":".to_owned();
    match get(function, "arguments") {
        Value::Text(text) => {
            let parsed: Value<'_> = serde_json::from_str(text).ok()?;
            parsed.as_object()?;
            push_text(text, &mut json);
        }
        object @ Value::Object(_) => {
            let mut text = String::new();
            object.dumps(&mut text)?;
            push_text(&text, &mut json);
        }
        _ => return None,
    }
    let id = match get(call, "id") {
        Value::Null => String::new(),
        Value::Text(text) => text.to_string(),
        Value::Integer(number) => number.to_string(),
        _ => return None,
    };
    if !id.is_empty() {
        json.push_str(",\"id\":");
        push_text(&id, &mut json);
    }
    json.push_str(",\"name\":");
    push_text(name, &mut json);
    json.push('}');
    Some(json)
}
