//! LLaMA-Factory's and ms-swift's conversations of speakers; pairs of answers are not plain.

use super::fields::{extra_json, get, has_media, optional_reward, optional_text, read_tools};
use super::messages::{PlainTurn, Role, call_json, call_of_text};
use super::rollout::Read;
use super::value::{Object, Value};

const KEYS: [&str; 14] = [
    "conversations",
    "messages",
    "kto_tag",
    "label",
    "chosen_messages",
    "rejected_messages",
    "system",
    "tools",
    "chosen",
    "rejected",
    "rejected_response",
    "question_id",
    "id",
    "source",
];
/// Where the sides of a pair stand.
const SIDES: [&str; 5] = ["chosen_messages", "rejected_messages", "chosen", "rejected", "rejected_response"];
const MEDIA_MARKS: [&str; 3] = ["<image>", "<audio>", "<video>"];

pub(super) fn read<'o>(record: &'o Object<'_>) -> Option<Read<'o>> {
    if has_media(record) || SIDES.iter().any(|key| *get(record, key) != Value::Null) {
        return None;
    }
    let is_named = record.iter().any(|(key, _)| key == "conversations");
    let mut turns: Vec<PlainTurn<'o>> = Vec::new();
    for message in get(record, if is_named { "conversations" } else { "messages" }).as_list()? {
        add(&mut turns, message.as_object()?)?;
    }
    let system = optional_text(record, "system")?.filter(|system| !system.is_empty());
    if let Some(system) = system {
        turns.insert(0, PlainTurn::said(Role::System, system)?);
    }
    let first = turns.iter().position(PlainTurn::is_agent)?;
    let answers = turns.split_off(first);
    let named = |name: &str| Some(optional_text(record, name)?.filter(|text| !text.is_empty()));
    let (question_id, id): (Option<String>, Option<String>) = (named("question_id")?, named("id")?);
    let (first_outcome, second_outcome) = (optional_reward(record, "kto_tag")?, optional_reward(record, "label")?);
    Some(Read {
        question_id: question_id.or(id).unwrap_or_default(),
        source: optional_text(record, "source")?.unwrap_or_default(),
        reward: first_outcome.or(second_outcome),
        tools: read_tools(record)?,
        extra: extra_json(record, &KEYS)?,
        turns: answers,
        prompt: turns,
        ..Read::default()
    })
}

/// Adds a message's turn, or its calls to the turn before.
fn add<'o>(turns: &mut Vec<PlainTurn<'o>>, message: &'o Object<'_>) -> Option<()> {
    let is_of_speaker = message.iter().any(|(key, _)| key == "from");
    let (speaker_key, content_key) = if is_of_speaker { ("from", "value") } else { ("role", "content") };
    if message.iter().any(|(key, _)| ![speaker_key, content_key, "loss"].contains(&key.as_ref())) {
        return None;
    }
    let content = get(message, content_key).as_text()?;
    let loss = match get(message, "loss") {
        Value::Null => None,
        Value::Bool(is_trained) => Some(*is_trained),
        _ => return None,
    };
    let role = match get(message, speaker_key).as_text()? {
        "human" | "user" => Role::User,
        "gpt" | "assistant" | "ai" => Role::Assistant,
        "system" => Role::System,
        "observation" | "tool" | "tool_response" => Role::Tool,
        "function_call" | "tool_call" if loss.is_none() => return add_calls(turns, content),
        _ => return None,
    };
    if MEDIA_MARKS.iter().any(|mark| content.contains(mark)) || (role != Role::Assistant && loss == Some(true)) {
        return None;
    }
    let mut turn = PlainTurn::said(role, content)?;
    turn.is_untrained = role == Role::Assistant && loss == Some(false);
    turns.push(turn);
    Some(())
}

fn add_calls(turns: &mut Vec<PlainTurn<'_>>, content: &str) -> Option<()> {
    let parsed: Value<'_> = serde_json::from_str(content).ok()?;
    let calls = match &parsed {
        Value::List(calls) => calls.iter().map(call).collect::<Option<Vec<String>>>()?,
        value => vec![call(value)?],
    };
    match turns.last_mut() {
        Some(turn) if turn.is_agent() && !turn.is_untrained => turn.calls.extend(calls),
        _ if calls.is_empty() => return None,
        _ => turns.push(PlainTurn::calling(Role::Assistant, "", calls)?),
    }
    Some(())
}

fn call(value: &Value<'_>) -> Option<String> {
    let call = value.as_object()?;
    if call.iter().any(|(key, _)| key != "name" && key != "arguments") {
        return None;
    }
    let name = get(call, "name").as_text()?;
    match get(call, "arguments") {
        arguments if arguments.says_nothing() => call_of_text(name, "{}", ""),
        arguments => call_json(name, arguments, ""),
    }
}
