//! What a trained turn's text must hold, and must not hold.

use crate::conversation::Message;
use crate::json::Json;
use crate::python_text::{escape, is_space, strip};

/// Shorter texts stand in others by chance.
const MIN_FOREIGN_CHARS: usize = 12;

/// All that a turn says.
pub(crate) struct OwnTexts<'a> {
    content: &'a str,
    reasoning: &'a str,
    names: Vec<&'a str>,
    arguments: Vec<Json>,
}

impl<'a> OwnTexts<'a> {
    /// Of a turn; `None` where the arguments of a call cannot be read here.
    pub(crate) fn of(message: &'a Message<'_>) -> Option<Self> {
        let arguments: Option<Vec<Json>> = message.tool_calls.iter().map(|call| Json::parse(&call.arguments)).collect();
        Some(Self {
            content: &message.content,
            reasoning: message.reasoning.as_deref().unwrap_or(""),
            names: message.tool_calls.iter().map(|call| call.name.as_str()).collect(),
            arguments: arguments?,
        })
    }

    fn all(&self) -> Vec<&str> {
        let mut texts = vec![self.content, self.reasoning];
        texts.extend(&self.names);
        self.arguments.iter().for_each(|json| json.texts(&mut texts));
        texts
    }

    /// Whether a target holds all of them, as they stand or as JSON has them; white space at their ends is a template's to drop.
    pub(crate) fn are_in(&self, target: &str) -> bool {
        self.all().iter().map(|text| strip(text)).all(|text| target.contains(text) || target.contains(&escape(text)))
    }

    fn hold(&self, text: &str) -> bool {
        self.all().join("\n").contains(text)
    }
}

/// Whether a target may hold what an earlier message says, and not the turn itself.
pub(crate) fn may_be_foreign(target: &str, earlier: &[Message<'_>], own: &OwnTexts<'_>) -> bool {
    earlier.iter().map(|message| strip(&message.content)).any(|text| {
        text.len() <= target.len()
            && text.chars().nth(MIN_FOREIGN_CHARS - 1).is_some()
            && target.contains(text)
            && !own.hold(text)
    })
}

/// The empty `<think></think>` that a target begins with, or the rest of one that its prompt opens; "" for none.
pub(crate) fn empty_think<'a>(prompt: &str, target: &'a str) -> &'a str {
    let mut rest = target.trim_start_matches(is_space);
    if !prompt.trim_end_matches(is_space).ends_with("<think>") {
        let Some(inner) = rest.strip_prefix("<think>") else {
            return "";
        };
        rest = inner.trim_start_matches(is_space);
    }
    let Some(behind) = rest.strip_prefix("</think>") else {
        return "";
    };
    &target[..target.len() - behind.trim_start_matches('\n').len()]
}

#[cfg(test)]
mod tests {
    use super::empty_think;

    #[test]
    fn an_empty_think_is_told_with_the_lines_behind_it() {
        assert_eq!(empty_think("assistant\n", "<think>\n\n</think>\n\nyes"), "<think>\n\n</think>\n\n");
        assert_eq!(empty_think("assistant\n<think>\n", "\n</think>\n\n yes"), "\n</think>\n\n");
        assert_eq!(empty_think("assistant\n", "<think>\nhm\n</think>\n\nyes"), "");
        assert_eq!(empty_think("assistant\n", "yes</think>"), "");
    }
}
