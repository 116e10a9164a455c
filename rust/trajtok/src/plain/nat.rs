//! NAT's trajectory files.

use super::fields::{get, has_only, optional_answer, optional_reward, optional_text, scalar_json};
use super::messages::{PlainTurn, Role};
use super::rollout::Read;
use super::value::{Object, Value};

pub(super) fn read<'o>(record: &'o Object<'_>) -> Option<Read<'o>> {
    if record.iter().any(|(key, _)| matches!(key.as_ref(), "items" | "reward" | "pred" | "gt")) {
        return None;
    }
    let nothing = Vec::new();
    let info = match get(record, "info") {
        Value::Null => &nothing,
        info => info.as_object()?,
    };
    let turns = get(record, "conversations").as_list()?.iter().map(turn).collect::<Option<Vec<PlainTurn<'o>>>>()?;
    if turns.first().is_some_and(|turn| !turn.is_agent()) {
        return None;
    }
    let has_gold = info.iter().any(|(key, _)| key == "gt");
    Some(Read {
        question_id: optional_text(record, "id")??,
        source: optional_text(record, "source")?.unwrap_or_default(),
        turns,
        reward: optional_reward(info, "reward")?,
        pred: optional_answer(info, "pred")?,
        gold: if has_gold { Some(scalar_json(get(info, "gt"))?) } else { None },
        ..Read::default()
    })
}

fn turn<'o>(value: &'o Value<'_>) -> Option<PlainTurn<'o>> {
    let turn = value.as_object().filter(|turn| has_only(turn, &["role", "content", "loss"]))?;
    let role = match get(turn, "role").as_text()? {
        "assistant" | "gpt" | "ai" => Role::Assistant,
        "user" | "human" => Role::User,
        "system" => Role::System,
        _ => return None,
    };
    let is_agent = role == Role::Assistant;
    let is_untrained = match get(turn, "loss") {
        Value::Null => false,
        Value::Bool(true) if !is_agent => return None,
        Value::Bool(is_trained) => is_agent && !is_trained,
        _ => return None,
    };
    let mut said = PlainTurn::said(role, get(turn, "content").as_text()?)?;
    said.is_untrained = is_untrained;
    Some(said)
}
