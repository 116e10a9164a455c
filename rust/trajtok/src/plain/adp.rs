//! Agent Data Protocol v1: observations and actions.

use std::borrow::Cow;

use super::fields::{extra_json, get, optional_text, unknown};
use super::messages::{PlainTurn, Role, call_json, call_of_text};
use super::rollout::Read;
use super::value::{Object, Value};
use crate::json_text::push_text;

const KEYS: [&str; 3] = ["schema_version", "id", "content"];
const ITEM_KEYS: [&str; 10] = [
    "class_",
    "content",
    "name",
    "source",
    "language",
    "description",
    "function",
    "kwargs",
    "tool_call_id",
    "reasoning_content",
];

pub(super) fn read<'o>(record: &'o Object<'_>) -> Option<Read<'o>> {
    let mut turns: Vec<PlainTurn<'o>> = Vec::new();
    for item in get(record, "content").as_list()? {
        let follows_call = turns.last().is_some_and(|turn| turn.role == Role::Tool || !turn.calls.is_empty());
        turns.push(turn(item.as_object()?, follows_call)?);
    }
    let first = turns.iter().position(PlainTurn::is_agent)?;
    let answers = turns.split_off(first);
    Some(Read {
        source: "adp".to_owned(),
        group: optional_text(record, "id")?,
        extra: extra_json(record, &KEYS)?,
        turns: answers,
        prompt: turns,
        ..Read::default()
    })
}

fn turn<'o>(item: &'o Object<'_>, follows_call: bool) -> Option<PlainTurn<'o>> {
    if unknown(item, &ITEM_KEYS).any(|(_, value)| !value.says_nothing()) {
        return None;
    }
    let call_id = match get(item, "tool_call_id") {
        Value::Null => "",
        value => value.as_text()?,
    };
    let kind = get(item, "class_").as_text()?;
    if kind == "text_observation" {
        return text(item, call_id, follows_call);
    }
    let description = match get(item, "description") {
        Value::Null => "",
        value => value.as_text()?,
    };
    if *get(item, "reasoning_content") != Value::Null {
        return None;
    }
    let call = match kind {
        "message_action" => {
            let content = get(item, "content").as_text()?;
            let whole = if description.is_empty() {
                Cow::Borrowed(content)
            } else {
                Cow::Owned(format!("{description}\n\n{content}"))
            };
            return PlainTurn::said(Role::Assistant, whole);
        }
        "code_action" => {
            let mut arguments = "{\"code\": ".to_owned();
            push_text(get(item, "content").as_text()?, &mut arguments);
            arguments.push('}');
            call_of_text(get(item, "language").as_text()?, &arguments, call_id)?
        }
        "api_action" => {
            let name = get(item, "function").as_text()?;
            match get(item, "kwargs") {
                Value::Null => call_of_text(name, "{}", call_id)?,
                arguments @ Value::Object(_) => call_json(name, arguments, call_id)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    PlainTurn::calling(Role::Assistant, description, vec![call])
}

fn text<'o>(item: &'o Object<'_>, call_id: &'o str, follows_call: bool) -> Option<PlainTurn<'o>> {
    let content = get(item, "content").as_text()?;
    let is_system = get(item, "name").as_text() == Some("system");
    let role = match get(item, "source").as_text() {
        Some("agent" | "assistant") => Role::Assistant,
        Some("user") => Role::User,
        _ if is_system => Role::System,
        _ if follows_call => Role::Tool,
        _ => Role::User,
    };
    let turn = PlainTurn::said(role, content)?;
    Some(if role == Role::Tool { turn.answering(Some(call_id), None) } else { turn })
}
