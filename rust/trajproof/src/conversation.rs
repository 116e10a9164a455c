//! A conditioned conversation, read anew: nothing of what made the row decides what it says.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// A conditioned conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation<'a> {
    /// Its messages, in order.
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
    /// JSON text of the tools' schemas.
    #[serde(default)]
    pub tools: Option<String>,
    /// Names what made token ids that came with a turn.
    #[serde(default)]
    pub tokenizer: Option<IgnoredAny>,
}

/// One message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message<'a> {
    /// Who speaks.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// What is said.
    #[serde(borrow)]
    pub content: Cow<'a, str>,
    /// The loss weight of its tokens.
    pub weight: f64,
    /// What the agent thought before; null is no text, and refused.
    #[serde(default, deserialize_with = "text")]
    pub reasoning: Option<String>,
    /// The calls that the agent made.
    #[serde(default)]
    pub tool_calls: Vec<Call>,
    /// The call that a tool's message answers.
    #[serde(default)]
    pub tool_call_id: Option<IgnoredAny>,
    /// The tool's name.
    #[serde(default)]
    pub name: Option<IgnoredAny>,
    /// Weights of stretches of characters; not looked at here.
    #[serde(default)]
    pub ranges: Option<IgnoredAny>,
    /// Recorded ids; not looked at here.
    #[serde(default)]
    pub token_ids: Option<IgnoredAny>,
}

/// One call of a tool.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// JSON text of an object.
    pub arguments: String,
    /// The call's own name.
    #[serde(default)]
    pub id: Option<IgnoredAny>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl Message<'_> {
    /// Whether it has what this crate does not look at.
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        self.ranges.is_some() || self.token_ids.is_some()
    }
}
