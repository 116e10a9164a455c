//! Chat completions messages, the prompt among them.

use super::fields::{
    extra_json, get, has_media, is_evaluation, optional_answer, optional_reward, optional_score, optional_text,
    read_tools, unknown,
};
use super::messages::{self, PlainTurn};
use super::rollout::Read;
use super::value::{Object, Value};

/// Known keys; one that is not may be a misspelled one.
const KEYS: [&str; 23] = [
    "messages",
    "tools",
    "tokenizer",
    "pred",
    "gold",
    "is_evaluation",
    "score",
    "reward",
    "resolved",
    "question_id",
    "source",
    "teacher",
    "subject",
    "session",
    "licence",
    "origin_url",
    "parent",
    "group",
    "instance_id",
    "model",
    "session_id",
    "run_id",
    "license",
];

pub(super) fn read<'o>(record: &'o Object<'_>) -> Option<Read<'o>> {
    // Token ids come with a tokenizer.
    if has_media(record) || *get(record, "tokenizer") != Value::Null || is_evaluation(record)? {
        return None;
    }
    let messages = get(record, "messages").as_list()?.iter();
    let mut turns =
        messages.map(|message| messages::read_chat(message.as_object()?)).collect::<Option<Vec<PlainTurn<'o>>>>()?;
    let first = turns.iter().position(PlainTurn::is_agent)?;
    let unknown_keys = unknown(record, &KEYS).filter(|pair| *pair.1 != Value::Null).map(|pair| pair.0.to_owned());
    let answers = turns.split_off(first);
    let reward = match (optional_reward(record, "reward")?, optional_reward(record, "resolved")?) {
        (Some(reward), Some(resolved)) if reward != resolved => return None,
        (reward, resolved) => reward.or(resolved),
    };
    Some(Read {
        question_id: text(record, &["question_id"])?.unwrap_or_default(),
        source: text(record, &["source"])?.unwrap_or_default(),
        teacher: text(record, &["teacher", "model"])?.unwrap_or_default(),
        turns: answers,
        prompt: turns,
        reward,
        pred: optional_answer(record, "pred")?,
        gold: optional_answer(record, "gold")?,
        score: optional_score(record)?,
        subject: text(record, &["subject"])?,
        session: text(record, &["session", "session_id", "run_id"])?,
        licence: text(record, &["licence", "license"])?,
        origin_url: text(record, &["origin_url"])?,
        parent: text(record, &["parent"])?,
        group: text(record, &["group", "instance_id"])?,
        tools: read_tools(record)?,
        extra: extra_json(record, &KEYS)?,
        unknown_keys: unknown_keys.collect(),
    })
}

#[allow(clippy::option_option, reason = "the outer one says whether the record is plain")]
/// The first text under these names that says something.
fn text(record: &Object<'_>, names: &[&str]) -> Option<Option<String>> {
    let texts = names.iter().map(|name| optional_text(record, name)).collect::<Option<Vec<_>>>()?;
    Some(texts.into_iter().flatten().find(|text| !text.is_empty()))
}
