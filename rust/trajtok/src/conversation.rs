//! The input: a conditioned conversation, read from JSON text and checked.

use std::borrow::Cow;

use serde::Deserialize;

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

/// One message. `weight` 0 is context; above 0 it is a target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(borrow)]
    pub content: Cow<'a, str>,
    /// The loss weight of every token of the content and of its end token.
    pub weight: f64,
}

impl Message<'_> {
    /// Whether the message is a target.
    #[must_use]
    pub fn is_trained(&self) -> bool {
        self.weight > 0.0
    }
}

/// A conversation as it is trained.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation<'a> {
    /// The messages, in order.
    #[serde(borrow)]
    pub messages: Vec<Message<'a>>,
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

    /// Checks every message's weight.
    ///
    /// # Errors
    /// [`Error::Rejected`] with `invalid_weight`.
    pub fn check(&self) -> Result<(), Error> {
        self.messages.iter().enumerate().try_for_each(|(turn, message)| check_weight(turn, message))
    }
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
