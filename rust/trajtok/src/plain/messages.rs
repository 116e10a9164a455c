//! Messages that are turns as they stand.

use std::borrow::Cow;

use super::fields::{get, has_only};
use super::value::{Object, Value};
use crate::json_text::push_text;

/// Closes what was thought; a content without it is all said.
const CLOSE: &str = "</think>";

/// Keys of a message that mean something else than nothing though they are empty.
const JUDGED: [&str; 8] =
    ["loss", "weight", "loss_scale", "loss_weight", "reasoning", "reasoning_content", "ranges", "token_ids"];

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

impl Role {
    /// A role by its name in our own format.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            "tool" => Some(Self::Tool),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A turn in its canonical spelling.
#[derive(Debug)]
pub(super) struct PlainTurn<'a> {
    pub(super) role: Role,
    content: Cow<'a, str>,
    pub(super) is_untrained: bool,
    call_id: Option<&'a str>,
    name: Option<&'a str>,
    /// JSON text of each call.
    pub(super) calls: Vec<String>,
}

impl<'a> PlainTurn<'a> {
    /// What is said; `None` where it holds what was thought, too.
    pub(super) fn said(role: Role, content: impl Into<Cow<'a, str>>) -> Option<Self> {
        Self::calling(role, content, Vec::new())
    }

    /// What is said, and what is called.
    pub(super) fn calling(role: Role, content: impl Into<Cow<'a, str>>, calls: Vec<String>) -> Option<Self> {
        let content = content.into();
        if role == Role::Assistant && content.contains(CLOSE) {
            return None;
        }
        Some(Self { role, content, is_untrained: false, call_id: None, name: None, calls })
    }

    /// A tool's answer to a call.
    pub(super) fn answering(self, call_id: Option<&'a str>, name: Option<&'a str>) -> Self {
        let named = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        Self { call_id: named(call_id), name: named(name), ..self }
    }

    pub(super) fn is_agent(&self) -> bool {
        self.role == Role::Assistant
    }

    /// Whether it asks something: a user's, with more than white space.
    pub(super) fn asks(&self) -> bool {
        // Python's white space has four separators of ASCII more
        let is_blank = |char: char| char.is_whitespace() || ('\x1c'..='\x1f').contains(&char);
        self.role == Role::User && !self.content.chars().all(is_blank)
    }

    /// How many bytes of JSON it is about.
    pub(super) fn n_bytes(&self) -> usize {
        self.content.len() + self.content.len() / 16 + self.calls.iter().map(String::len).sum::<usize>() + 80
    }

    /// Writes JSON text of it, its keys sorted.
    pub(super) fn write(&self, json: &mut String) {
        json.push_str("{\"content\":");
        push_text(&self.content, json);
        if self.is_untrained {
            json.push_str(",\"loss\":false");
        }
        if let Some(name) = self.name {
            json.push_str(",\"name\":");
            push_text(name, json);
        }
        json.push_str(",\"role\":\"");
        json.push_str(self.role.name());
        json.push('"');
        if let Some(call_id) = self.call_id {
            json.push_str(",\"tool_call_id\":");
            push_text(call_id, json);
        }
        if !self.calls.is_empty() {
            json.push_str(",\"tool_calls\":[");
            json.push_str(&self.calls.join(","));
            json.push(']');
        }
        json.push('}');
    }
}

/// A message of our own format.
pub(super) fn read<'o>(message: &'o Object<'_>) -> Option<PlainTurn<'o>> {
    let role = Role::named(get(message, "role").as_text()?)?;
    let keys: &[&str] = match role {
        Role::System | Role::User => &["role", "content"],
        Role::Assistant => &["role", "content", "tool_calls"],
        Role::Tool => &["role", "content", "tool_call_id"],
    };
    if !has_only(message, keys) {
        return None;
    }
    let calls = calls_of(get(message, "tool_calls"))?;
    let content = match get(message, "content") {
        Value::Text(text) => text.as_ref(),
        Value::Null if !calls.is_empty() => "",
        _ => return None,
    };
    Some(PlainTurn::calling(role, content, calls)?.answering(maybe_text(get(message, "tool_call_id"))?, None))
}

/// A message of chat completions: with older names, and keys that say nothing.
pub(super) fn read_chat<'o>(message: &'o Object<'_>) -> Option<PlainTurn<'o>> {
    let role = match get(message, "role").as_text()? {
        "developer" => Role::System,
        "function" => Role::Tool,
        name => Role::named(name)?,
    };
    let mut calls = Vec::new();
    let (mut call_id, mut name) = (None, None);
    for (key, value) in message {
        match key.as_ref() {
            "tool_calls" if calls.is_empty() => calls = calls_of(value)?,
            "function_call" if *value != Value::Null && *get(message, "tool_calls") == Value::Null => {
                calls.push(function_json(value, "")?);
            }
            "tool_call_id" if role == Role::Tool => call_id = maybe_text(value)?,
            "name" if role == Role::Tool => name = maybe_text(value)?,
            "role" | "content" | "tool_call_id" | "name" => {}
            key if *value == Value::Null || (value.says_nothing() && !JUDGED.contains(&key)) => {}
            _ => return None,
        }
    }
    if role != Role::Assistant && !calls.is_empty() {
        return None;
    }
    let content = match get(message, "content") {
        Value::Text(text) => text.as_ref(),
        Value::Null if role == Role::Assistant => "",
        _ => return None,
    };
    Some(PlainTurn::calling(role, content, calls)?.answering(call_id, name))
}

#[allow(clippy::option_option, reason = "the outer one says whether the message is plain")]
fn maybe_text<'o>(value: &'o Value<'_>) -> Option<Option<&'o str>> {
    match value {
        Value::Null => Some(None),
        Value::Text(text) => Some(Some(text.as_ref())),
        _ => None,
    }
}

fn calls_of(value: &Value<'_>) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::List(calls) => calls.iter().map(call).collect(),
        _ => None,
    }
}

/// A call as `{arguments, id?, name}`.
fn call(value: &Value<'_>) -> Option<String> {
    let call = value.as_object()?;
    let function = call.iter().find(|(key, _)| key == "function").map(|(_, function)| function);
    let keys: &[&str] = if function.is_some() { &["id", "type", "function"] } else { &["id", "name", "arguments"] };
    if !has_only(call, keys) || !matches!(get(call, "type"), Value::Null | Value::Text(Cow::Borrowed("function"))) {
        return None;
    }
    let id = match get(call, "id") {
        Value::Null => String::new(),
        Value::Text(text) => text.to_string(),
        Value::Integer(number) => number.to_string(),
        _ => return None,
    };
    match function {
        Some(function) => function_json(function, &id),
        None => call_json(get(call, "name").as_text()?, get(call, "arguments"), &id),
    }
}

/// A call by what stands under `function`.
fn function_json(value: &Value<'_>, id: &str) -> Option<String> {
    let function = value.as_object().filter(|function| has_only(function, &["name", "arguments"]))?;
    call_json(get(function, "name").as_text()?, get(function, "arguments"), id)
}

/// JSON text of a call: its arguments are an object, or JSON text of one.
pub(super) fn call_json(name: &str, arguments: &Value<'_>, id: &str) -> Option<String> {
    match arguments {
        Value::Text(text) => {
            let parsed: Value<'_> = serde_json::from_str(text).ok()?;
            parsed.as_object()?;
            call_of_text(name, text, id)
        }
        object @ Value::Object(_) => {
            let mut text = String::new();
            object.dumps(&mut text)?;
            call_of_text(name, &text, id)
        }
        _ => None,
    }
}

/// The same with JSON text of the arguments; `None` without a name.
pub(super) fn call_of_text(name: &str, arguments: &str, id: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    let mut json = String::with_capacity(arguments.len() + arguments.len() / 8 + name.len() + id.len() + 48);
    json.push_str("{\"arguments\":");
    push_text(arguments, &mut json);
    if !id.is_empty() {
        json.push_str(",\"id\":");
        push_text(id, &mut json);
    }
    json.push_str(",\"name\":");
    push_text(name, &mut json);
    json.push('}');
    Some(json)
}
