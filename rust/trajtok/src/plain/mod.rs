//! Plain records: rollouts in which nothing has to be judged, as most are, read to what `negtraj_dagster.rollouts` reads them to.
//!
//! A record is read here only where its keys, roles and types leave one way to read it. Any other, the bad ones above all, is
//! left to the readers in Python, which know what is wrong with it; so is one with a name or a value that may be a secret's.

mod fields;
mod gather;
mod messages;
mod nat;
mod negtraj;
mod openai;
mod rollout;
mod value;

pub use rollout::PlainRollout;

use value::Value;

/// A layout whose plain records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// NAT's trajectory files.
    Nat,
    /// The project's own format.
    Negtraj,
    /// Chat completions messages.
    OpenAi,
}

impl Layout {
    /// A layout by its name; `None` for one of which no record is plain.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "nat" => Some(Self::Nat),
            "negtraj" => Some(Self::Negtraj),
            "openai" => Some(Self::OpenAi),
            _ => None,
        }
    }
}

/// How records become rollouts.
#[derive(Debug, Clone, Copy)]
pub struct PlainReader<'a> {
    /// Their layout.
    pub layout: Layout,
    /// Whose rollouts they are.
    pub task: &'a str,
    /// Whether the question is the recorded prompt, and its id that prompt's hash.
    pub has_recorded_questions: bool,
    /// Whether secrets are looked for.
    pub is_redacted: bool,
}

impl PlainReader<'_> {
    /// The rollout of a record's bytes; `None` where it is not plain.
    #[must_use]
    pub fn read(&self, record: &[u8]) -> Option<PlainRollout> {
        let value: Value<'_> = serde_json::from_slice(record).ok()?;
        let fields = value.as_object()?;
        let texts = if self.is_redacted { Some(gather::texts_of(&value)?) } else { None };
        let read = match self.layout {
            Layout::Nat => nat::read(fields)?,
            Layout::Negtraj => negtraj::read(fields)?,
            Layout::OpenAi => openai::read(fields)?,
        };
        let read = if self.has_recorded_questions { read.with_recorded_question()? } else { read };
        Some(read.finish(self.task, texts))
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, PlainReader};

    fn read(layout: Layout, record: &str) -> Option<String> {
        let reader = PlainReader { layout, task: "t", has_recorded_questions: false, is_redacted: true };
        reader.read(record.as_bytes()).map(|rollout| rollout.turns)
    }

    #[test]
    fn plain_turns_are_canonical() {
        let record = r#"{"id": "q", "conversations": [{"content": "a\u00e9\n", "role": "assistant", "loss": false},
            {"role": "user", "content": "b", "loss": false}], "info": {"reward": true, "acc": 0.5}}"#;
        let turns = r#"[{"content":"aé\n","loss":false,"role":"assistant"},{"content":"b","role":"user"}]"#;
        assert_eq!(read(Layout::Nat, record).as_deref(), Some(turns));
        let record = r#"{"messages": [{"role": "user", "content": "b"}, {"role": "assistant", "content": null,
            "tool_calls": [{"id": 7, "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]}]}"#;
        let turns =
            r#"[{"content":"","role":"assistant","tool_calls":[{"arguments":"{\"a\": 1}","id":"7","name":"f"}]}]"#;
        assert_eq!(read(Layout::OpenAi, record).as_deref(), Some(turns));
    }

    #[test]
    fn what_has_to_be_judged_is_left() {
        let turn = r#"[{"role": "assistant", "content": "a"}]"#;
        for rest in [
            r#""id": "q", "id": "q""#,
            r#""id": 0.5"#,
            r#""id": "q", "reward": true"#,
            r#""id": "q", "api_key": "x""#,
            r#""id": "q", "info": {"reward": 2}"#,
            r#""id": "q", "n": 1e999"#,
            r#""id": "\ud800""#,
        ] {
            assert_eq!(read(Layout::Nat, &format!("{{\"conversations\": {turn}, {rest}}}")), None, "{rest}");
        }
        for record in [
            r#"{"question_id": "q", "messages": [{"role": "user", "content": "a"}]}"#,
            r#"{"question_id": "q", "messages": [{"role": "assistant", "content": "<think>x</think>y"}]}"#,
            r#"{"question_id": "q", "messages": [{"role": "assistant", "content": "a", "more": 1}]}"#,
            "[]",
            "{} {}",
        ] {
            assert_eq!(read(Layout::Negtraj, record), None, "{record}");
        }
    }
}
