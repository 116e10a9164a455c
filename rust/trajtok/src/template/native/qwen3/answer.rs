//! What Qwen3's template takes an assistant's message for: reasoning, given apart or found in the content, and what is said.

use crate::conversation::{Message, WeighedField};

/// A part of one of a message's texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// It.
    pub text: &'a str,
    /// Which text it is of.
    pub field: WeighedField,
    /// How many bytes of that text stand before it.
    pub n_before: usize,
}

impl Part<'_> {
    /// Without line breaks at its start.
    pub fn lstrip(self) -> Self {
        let text = self.text.trim_start_matches('\n');
        Self { text, n_before: self.n_before + self.text.len() - text.len(), ..self }
    }

    /// Without line breaks at its end.
    pub fn rstrip(self) -> Self {
        Self { text: self.text.trim_end_matches('\n'), ..self }
    }
}

/// An assistant's message as the template reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// What is thought; may be empty.
    pub reasoning: Part<'a>,
    /// What is said.
    pub content: Part<'a>,
    /// Whether it leaves out other text of the content.
    pub is_cut: bool,
}

impl<'a> Answer<'a> {
    /// Content with `</think>` in it, and no reasoning beside it, is cut: before the first one, behind the last `<think>`
    /// there, is the reasoning; behind the last one is what is said.
    pub fn of(message: &'a Message<'_>) -> Self {
        let content = message.content.as_ref();
        let part = |text, n_before| Part { text, field: WeighedField::Content, n_before };
        if let Some(reasoning) = message.reasoning.as_deref() {
            let reasoning = Part { text: reasoning, field: WeighedField::Reasoning, n_before: 0 };
            return Self { reasoning, content: part(content, 0), is_cut: false };
        }
        let (Some(first), Some(last)) = (content.find(END_THINK), content.rfind(END_THINK)) else {
            return Self { reasoning: part("", 0), content: part(content, 0), is_cut: false };
        };
        let thought = &content[..first];
        let (before, start) = match thought.rfind(THINK) {
            Some(at) => (&thought[..at], at + THINK.len()),
            None => ("", 0),
        };
        let said = last + END_THINK.len();
        Self {
            reasoning: part(&thought[start..], start).rstrip().lstrip(),
            content: part(&content[said..], said).lstrip(),
            is_cut: first != last || before.bytes().any(|byte| byte != b'\n'),
        }
    }
}

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::Role;

    fn read(content: &str) -> (String, String, bool) {
        let message = Message::plain(Role::Assistant, content.into(), 1.0);
        let Answer { reasoning, content: said, is_cut } = Answer::of(&message);
        for part in [reasoning, said] {
            assert!(content[part.n_before..].starts_with(part.text));
        }
        (reasoning.text.to_owned(), said.text.to_owned(), is_cut)
    }

    #[test]
    fn reasoning_is_found_in_the_content() {
        let found = |reasoning: &str, said: &str, is_cut| (reasoning.to_owned(), said.to_owned(), is_cut);
        assert_eq!(read("a <think>b"), found("", "a <think>b", false));
        assert_eq!(read("\n<think>\n\na\n</think>\n\n b\n"), found("a", " b\n", false));
        assert_eq!(read("a</think>b"), found("a", "b", false));
        assert_eq!(read("x<think>a</think>b"), found("a", "b", true));
        assert_eq!(read("<think>a</think>x</think>b"), found("a", "b", true));
        assert_eq!(read("</think>"), found("", "", false));
        assert_eq!(read("</think></think>"), found("", "", true));
        assert_eq!(read("<think>x<think>\n</think>"), found("", "", true));
    }

    #[test]
    fn content_is_not_read_where_reasoning_is_given() {
        let mut message = Message::plain(Role::Assistant, "a</think>b".into(), 1.0);
        message.reasoning = Some("".into());
        let answer = Answer::of(&message);
        assert_eq!((answer.reasoning.text, answer.content.text, answer.is_cut), ("", "a</think>b", false));
    }
}
