//! A rollout's columns and its keys.

use super::messages::PlainTurn;
use crate::digest::digest_of;
use crate::json_text::push_text;

/// Characters of a recorded question's id.
const ID_CHARS: usize = 16;

/// What a layout reads of a record.
#[derive(Debug, Default)]
pub(super) struct Read<'a> {
    pub(super) question_id: String,
    pub(super) source: String,
    pub(super) teacher: String,
    pub(super) turns: Vec<PlainTurn<'a>>,
    pub(super) prompt: Vec<PlainTurn<'a>>,
    pub(super) reward: Option<bool>,
    pub(super) pred: Option<String>,
    pub(super) gold: Option<String>,
    pub(super) score: Option<f64>,
    pub(super) subject: Option<String>,
    pub(super) session: Option<String>,
    pub(super) licence: Option<String>,
    pub(super) origin_url: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) group: Option<String>,
    pub(super) tools: Option<String>,
    pub(super) extra: Option<String>,
    pub(super) unknown_keys: Vec<String>,
}

/// A rollout as `raw_rollouts` keeps it.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "named as the columns of `negtraj_dagster.conversations`")]
pub struct PlainRollout {
    pub base_key: String,
    pub rollout_key: String,
    pub question_id: String,
    pub source: String,
    pub teacher: String,
    pub reward: Option<bool>,
    pub pred: Option<String>,
    pub gold: Option<String>,
    pub score: Option<f64>,
    pub subject: Option<String>,
    pub session: Option<String>,
    pub licence: Option<String>,
    pub origin_url: Option<String>,
    pub parent: Option<String>,
    pub question_group: Option<String>,
    /// Canonical JSON text.
    pub turns: String,
    /// Canonical JSON text.
    pub prompt: Option<String>,
    pub tools: Option<String>,
    /// Canonical JSON text.
    pub extra: Option<String>,
    /// Keys that are not null and that the layout does not know, where one may be a known one misspelled.
    pub unknown_keys: Vec<String>,
}

impl Read<'_> {
    /// With the question's id that its prompt gives it; `None` where that asks nothing.
    pub(super) fn with_recorded_question(mut self) -> Option<Self> {
        if !self.prompt.iter().any(PlainTurn::asks) {
            return None;
        }
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        self.group = named(self.group.take()).or_else(|| named(Some(self.question_id.clone())));
        let mut asked = format!("[{},", list_json(&self.prompt));
        match &self.tools {
            Some(tools) => push_text(tools, &mut asked),
            None => asked.push_str("null"),
        }
        asked.push(']');
        self.question_id = digest_of(["recorded question", self.group.as_deref().unwrap_or(""), &asked]);
        self.question_id.truncate(ID_CHARS);
        Some(self)
    }

    /// The columns.
    pub(super) fn finish(self, task: &str) -> PlainRollout {
        let turns = list_json(&self.turns);
        let prompt = (!self.prompt.is_empty()).then(|| list_json(&self.prompt));
        let mut parts = vec![task, &self.question_id, &self.source, &turns];
        let extras: Vec<(&str, &String)> = [("prompt", &prompt), ("tools", &self.tools)]
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?)))
            .collect();
        let mut extra = String::new();
        if !extras.is_empty() {
            for (name, text) in extras {
                extra.push(if extra.is_empty() { '{' } else { ',' });
                push_text(name, &mut extra);
                extra.push(':');
                push_text(text, &mut extra);
            }
            extra.push('}');
            parts.push(&extra);
        }
        let base_key = digest_of(&parts);
        PlainRollout {
            rollout_key: digest_of(["rollout", &base_key, "0"]),
            base_key,
            question_id: self.question_id,
            source: self.source,
            teacher: self.teacher,
            reward: self.reward,
            pred: self.pred,
            gold: self.gold,
            score: self.score,
            subject: self.subject,
            session: self.session,
            licence: self.licence,
            origin_url: self.origin_url,
            parent: self.parent,
            question_group: self.group,
            turns,
            prompt,
            tools: self.tools,
            extra: self.extra,
            unknown_keys: self.unknown_keys,
        }
    }
}

fn list_json(turns: &[PlainTurn<'_>]) -> String {
    let mut json = String::with_capacity(turns.iter().map(PlainTurn::n_bytes).sum());
    json.push('[');
    for (index, turn) in turns.iter().enumerate() {
        json.push_str(if index > 0 { "," } else { "" });
        turn.write(&mut json);
    }
    json.push(']');
    json
}
