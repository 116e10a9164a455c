//! The project's own format.

use super::fields::{
    get, has_only, is_evaluation, optional_answer, optional_reward, optional_score, optional_text, read_tools,
};
use super::messages::{self, PlainTurn};
use super::rollout::Read;
use super::value::{Object, Value};

/// All keys but `tokenizer`, which token ids come with.
const KEYS: [&str; 17] = [
    "question_id",
    "messages",
    "source",
    "teacher",
    "reward",
    "pred",
    "gold",
    "subject",
    "session",
    "licence",
    "origin_url",
    "is_evaluation",
    "tools",
    "prompt",
    "score",
    "parent",
    "group",
];

pub(super) fn read<'o>(record: &'o Object<'_>) -> Option<Read<'o>> {
    if !has_only(record, &KEYS) || is_evaluation(record)? {
        return None;
    }
    let prompt = match get(record, "prompt") {
        Value::Null => Vec::new(),
        prompt => turns(prompt)?,
    };
    let turns = turns(get(record, "messages"))?;
    let question_id = optional_text(record, "question_id")?;
    if turns.first().is_some_and(|turn| !turn.is_agent()) || (question_id.is_none() && prompt.is_empty()) {
        return None;
    }
    Some(Read {
        question_id: question_id.unwrap_or_default(),
        source: optional_text(record, "source")?.unwrap_or_default(),
        teacher: optional_text(record, "teacher")?.unwrap_or_default(),
        turns,
        prompt,
        reward: optional_reward(record, "reward")?,
        pred: optional_answer(record, "pred")?,
        gold: optional_answer(record, "gold")?,
        score: optional_score(record)?,
        subject: optional_text(record, "subject")?,
        session: optional_text(record, "session")?,
        licence: optional_text(record, "licence")?,
        origin_url: optional_text(record, "origin_url")?,
        parent: optional_text(record, "parent")?,
        group: optional_text(record, "group")?,
        tools: read_tools(record)?,
        ..Read::default()
    })
}

fn turns<'o>(value: &'o Value<'_>) -> Option<Vec<PlainTurn<'o>>> {
    value.as_list()?.iter().map(|message| messages::read(message.as_object()?)).collect()
}
