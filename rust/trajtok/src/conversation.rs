//! The input: a conditioned conversation, read from JSON text and checked.

use std::borrow::Cow;

use serde::Deserialize;

use crate::encode::TokenId;
use crate::error::{Error, Reason, Rejection};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The user, or whatever plays one.
    User,
    /// The model: the only role that is ever trained.
    Assistant,
    /// A tool's answer.
    Tool,
}

impl Role {
    /// The name as templates write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// A call of a tool, as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall<'a> {
    /// The tool.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// JSON text, verbatim.
    #[serde(borrow)]
    pub arguments: Cow<'a, str>,
    /// What the answer refers to.
    #[serde(borrow, default)]
    pub id: Option<Cow<'a, str>>,
}

/// A text of a message in which single characters may be weighed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeighedField {
    /// What is said.
    Content,
    /// What is thought before.
    Reasoning,
}

/// Characters of a message with a loss weight of their own: half open, in code points.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightRange {
    /// Which text.
    pub field: WeighedField,
    /// The first character.
    pub start: usize,
    /// The character after the last one.
    pub end: usize,
    /// 0 is context.
    pub weight: f64,
}

/// One message. `weight` 0 is context; above 0 it is a target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(borrow)]
    pub content: Cow<'a, str>,
    /// The loss weight of every token of what the model writes in this turn, the end token included.
    pub weight: f64,
    /// What the model thought before it spoke (assistant only).
    #[serde(borrow, default)]
    pub reasoning: Option<Cow<'a, str>>,
    /// The tools that the model called (assistant only).
    #[serde(borrow, default)]
    pub tool_calls: Vec<ToolCall<'a>>,
    /// The call that is answered (tool only).
    #[serde(borrow, default)]
    pub tool_call_id: Option<Cow<'a, str>>,
    /// The tool that answers (tool only).
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Stretches with weights of their own, in order (assistant only).
    #[serde(default)]
    pub ranges: Vec<WeightRange>,
    /// The ids that the recorded model emitted in this turn (assistant only): they stand for its text, as they are.
    #[serde(default)]
    pub token_ids: Vec<TokenId>,
}

impl<'a> Message<'a> {
    /// A message of plain text.
    #[must_use]
    pub fn plain(role: Role, content: Cow<'a, str>, weight: f64) -> Self {
        let (reasoning, tool_call_id, name) = (None, None, None);
        let (tool_calls, ranges, token_ids) = (Vec::new(), Vec::new(), Vec::new());
        Self { role, content, weight, reasoning, tool_calls, tool_call_id, name, ranges, token_ids }
    }

    /// Whether any of it is a target.
    #[must_use]
    pub fn is_trained(&self) -> bool {
        self.weight > 0.0 || self.ranges.iter().any(|range| range.weight > 0.0)
    }

    /// What it holds beside role and content, for templates that write no more than these.
    #[must_use]
    pub fn extra(&self) -> Option<&'static str> {
        match self {
            Self { reasoning: Some(_), .. } => Some("reasoning"),
            Self { tool_calls, .. } if !tool_calls.is_empty() => Some("tool calls"),
            _ => None,
        }
    }

    fn text_of(&self, field: WeighedField) -> &str {
        match field {
            WeighedField::Content => &self.content,
            WeighedField::Reasoning => self.reasoning.as_deref().unwrap_or(""),
        }
    }
}

/// A conversation as it is trained.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation<'a> {
    /// The messages, in order.
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
    /// The schemas of the tools that the model may call: JSON text of an array, verbatim.
    #[serde(borrow, default)]
    pub tools: Option<Cow<'a, str>>,
    /// Names the tokenizer that made the `token_ids`. Not read here: whoever hands the conversation over compares it.
    #[serde(borrow, default)]
    pub tokenizer: Option<Cow<'a, str>>,
}

impl<'a> Conversation<'a> {
    /// Reads and checks one conversation.
    ///
    /// # Errors
    /// [`Error::Rejected`] with `invalid_conversation` or `invalid_weight`.
    pub fn parse(json: &'a [u8]) -> Result<Self, Error> {
        let conversation: Self = serde_json::from_slice(json)
            .map_err(|error| Rejection::error(Reason::InvalidConversation, error.to_string()))?;
        conversation.check()?;
        Ok(conversation)
    }

    /// Checks every message.
    ///
    /// # Errors
    /// [`Error::Rejected`] with `invalid_conversation` or `invalid_weight`.
    pub fn check(&self) -> Result<(), Error> {
        self.messages.iter().enumerate().try_for_each(|(turn, message)| {
            check_keys(turn, message)?;
            check_weight(turn, message)?;
            check_ranges(turn, message)
        })
    }

    /// Its first messages.
    #[must_use]
    pub fn beginning(&self, n_messages: usize) -> Self {
        let messages = self.messages[..n_messages].to_vec();
        Self { messages, tools: self.tools.clone(), tokenizer: self.tokenizer.clone() }
    }
}

fn check_keys(turn: usize, message: &Message<'_>) -> Result<(), Error> {
    let Message { role, reasoning, tool_calls, tool_call_id, name, ranges, token_ids, .. } = message;
    if !ranges.is_empty() && !token_ids.is_empty() {
        let problem = format!("messages[{turn}] has both ranges and token_ids; expected one of them");
        return Err(Rejection::error(Reason::InvalidConversation, problem));
    }
    let key = match role {
        Role::Assistant if tool_call_id.is_some() => "tool_call_id",
        Role::Assistant if name.is_some() => "name",
        Role::Assistant => return Ok(()),
        _ if reasoning.is_some() => "reasoning",
        _ if !tool_calls.is_empty() => "tool_calls",
        _ if !ranges.is_empty() => "ranges",
        _ if !token_ids.is_empty() => "token_ids",
        Role::Tool => return Ok(()),
        _ if tool_call_id.is_some() => "tool_call_id",
        _ if name.is_some() => "name",
        _ => return Ok(()),
    };
    let problem = format!("messages[{turn}] ({}) has the key {key:?}, which its role does not have", role.as_str());
    Err(Rejection::error(Reason::InvalidConversation, problem))
}

fn check_ranges(turn: usize, message: &Message<'_>) -> Result<(), Error> {
    let refuse = |range: &WeightRange, problem: &str| {
        let WeightRange { start, end, weight, .. } = range;
        let detail = format!("messages[{turn}] has the range {start} to {end} of weight {weight}: {problem}");
        Err(Rejection::error(Reason::InvalidWeight, detail))
    };
    for (index, range) in message.ranges.iter().enumerate() {
        if range.start >= range.end || range.end > message.text_of(range.field).chars().count() {
            return refuse(range, "it is empty or ends behind its text");
        }
        if range.weight != 0.0 && !is_positive_in_f32(range.weight) {
            return refuse(range, "expected 0 or a positive number that a 32-bit float holds");
        }
        let before = index.checked_sub(1).map(|index| message.ranges[index]);
        if before.is_some_and(|before| (before.field, before.end) > (range.field, range.start)) {
            return refuse(range, "it overlaps the one before it, or stands before it; order them by field and start");
        }
    }
    Ok(())
}

fn check_weight(turn: usize, message: &Message<'_>) -> Result<(), Error> {
    let (weight, role) = (message.weight, message.role.as_str());
    let problem = if weight == 0.0 {
        return Ok(());
    } else if !is_positive_in_f32(weight) {
        "expected 0 or a positive number that a 32-bit float holds"
    } else if message.role == Role::Assistant {
        return Ok(());
    } else {
        "only assistant messages are trained; expected 0"
    };
    Err(Rejection::error(Reason::InvalidWeight, format!("messages[{turn}] ({role}) has weight {weight}: {problem}")))
}

/// Whether the weight stays positive and finite in the batch's column, which is `f32`.
fn is_positive_in_f32(weight: f64) -> bool {
    #[allow(clippy::cast_possible_truncation, reason = "the outcome of the truncation is what is asked")]
    let stored = weight as f32;
    stored.is_finite() && stored > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(json: &str) -> Reason {
        match Conversation::parse(json.as_bytes()) {
            Err(Error::Rejected(rejection)) => rejection.reason,
            other => panic!("expected a rejection, found {other:?}"),
        }
    }

    fn message(role: &str, weight: &str) -> String {
        format!(r#"{{"messages":[{{"role":"{role}","content":"a","weight":{weight}}}]}}"#)
    }

    #[test]
    fn every_role_is_read_and_only_the_assistant_is_trained() {
        for role in ["system", "user", "tool"] {
            assert!(Conversation::parse(message(role, "0.0").as_bytes()).is_ok());
            assert_eq!(reason(&message(role, "0.5")), Reason::InvalidWeight);
        }
        let json = message("assistant", "0.5");
        assert!(Conversation::parse(json.as_bytes()).unwrap().messages[0].is_trained());
    }

    #[test]
    fn a_weight_outside_of_a_positive_f32_is_refused() {
        for weight in ["-1", "1e300", "1e-60"] {
            assert_eq!(reason(&message("assistant", weight)), Reason::InvalidWeight, "{weight}");
        }
    }

    #[test]
    fn a_negative_weight_is_refused_on_context_too() {
        assert_eq!(reason(&message("user", "-1")), Reason::InvalidWeight);
    }

    #[test]
    fn what_is_not_a_conditioned_conversation_is_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"messages":[]} {}"#,
            r#"{"messages":[],"tools":[]}"#,
            r#"{"messages":[{"role":"user","content":"a","weight":0,"reasoning":"b"}]}"#,
            r#"{"messages":[{"role":"user","content":"a","weight":0,"name":"b"}]}"#,
            r#"{"messages":[{"role":"assistant","content":"a","weight":1,"tool_call_id":"b"}]}"#,
            r#"{"messages":[{"role":"assistant","content":"a","weight":1,"tool_calls":[{"name":"b"}]}]}"#,
            r#"{"messages":[],"messages":[]}"#,
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"user","content":"a","weight":null}]}"#,
            r#"{"messages":[{"role":"user","content":"a","weight":NaN}]}"#,
            r#"{"messages":[{"role":"user","content":"a","weight":1e999}]}"#,
            r#"{"messages":[{"role":"critic","content":"a","weight":0}]}"#,
            r#"{"messages":[{"role":"user","content":null,"weight":0}]}"#,
            r#"{"messages":[{"role":"user","content":"a","weight":0,"loss":true}]}"#,
            r#"{"messages":[{"role":"user","content":"\ud800","weight":0}]}"#,
        ] {
            assert_eq!(reason(json), Reason::InvalidConversation, "{json}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused() {
        let json = b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\",\"weight\":0}]}";
        assert!(matches!(Conversation::parse(json), Err(Error::Rejected(_))));
    }
}
