//! Plain records: rollouts in which nothing has to be judged, as most are, read to what `negtraj_dagster.rollouts` reads them to.
//!
//! A record is read here only where its keys, roles and types leave one way to read it. Any other, the bad ones above all, is
//! left to the readers in Python, which know what is wrong with it; so is one with a name or a value that may be a secret's.

mod adp;
mod fields;
mod gather;
mod llamafactory;
mod messages;
mod nat;
mod negtraj;
mod openai;
mod rollout;
mod value;

pub use rollout::PlainRollout;

use value::{Object, Value};

/// A layout whose plain records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// NAT's trajectory files.
    Nat,
    /// The project's own format.
    Negtraj,
    /// Chat completions messages.
    OpenAi,
    /// Agent Data Protocol v1.
    Adp,
    /// LLaMA-Factory's and ms-swift's fine-tuning data.
    LlamaFactory,
}

impl Layout {
    /// A layout by its name; `None` for one of which no record is plain.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "nat" => Some(Self::Nat),
            "negtraj" => Some(Self::Negtraj),
            "openai" => Some(Self::OpenAi),
            "adp" => Some(Self::Adp),
            "llamafactory" => Some(Self::LlamaFactory),
            _ => None,
        }
    }
}

/// How records become rollouts.
#[derive(Debug, Clone, Copy)]
pub struct PlainReader<'a> {
    /// Their layout; `None` where no record is plain.
    pub layout: Option<Layout>,
    /// Whose rollouts they are.
    pub task: &'a str,
    /// Whether the question is the recorded prompt, and its id that prompt's hash.
    pub has_recorded_questions: bool,
    /// Whether secrets are looked for.
    pub is_redacted: bool,
    /// Whether a document is a whole file, of one object or of many; no rollout of it is plain.
    pub is_file: bool,
}

/// What there is to see in a document without judging anything.
#[derive(Debug, Default)]
pub struct Seen {
    /// Its rollout, if it is plain.
    pub rollout: Option<PlainRollout>,
    /// All its texts, a line each, where secrets are looked for in them; `None` where a name or a text has to be looked at.
    pub texts: Option<String>,
}

impl PlainReader<'_> {
    /// Looks at a document's bytes. Of one that is not proper JSON beyond doubt nothing is seen.
    #[must_use]
    pub fn look_at(&self, document: &[u8]) -> Seen {
        if self.is_file {
            return Seen {
                texts: if self.is_redacted { gather::texts_of_file(document) } else { None },
                ..Seen::default()
            };
        }
        if self.layout.is_none() && !self.is_redacted {
            return Seen::default();
        }
        let Ok(value) = serde_json::from_slice::<Value<'_>>(document) else { return Seen::default() };
        let Some(fields) = value.as_object() else { return Seen::default() };
        let texts = if self.is_redacted { gather::texts_of(&value) } else { None };
        let rollout = if self.is_redacted && texts.is_none() { None } else { self.rollout(fields) };
        Seen { rollout, texts }
    }

    fn rollout(&self, fields: &Object<'_>) -> Option<PlainRollout> {
        let read = match self.layout? {
            Layout::Nat => nat::read(fields)?,
            Layout::Negtraj => negtraj::read(fields)?,
            Layout::OpenAi => openai::read(fields)?,
            Layout::Adp => adp::read(fields)?,
            Layout::LlamaFactory => llamafactory::read(fields)?,
        };
        let read = if self.has_recorded_questions { read.with_recorded_question()? } else { read };
        Some(read.finish(self.task))
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, PlainReader};

    fn read(layout: Layout, record: &str) -> Option<String> {
        let layout = Some(layout);
        let reader =
            PlainReader { layout, task: "t", has_recorded_questions: false, is_redacted: true, is_file: false };
        reader.look_at(record.as_bytes()).rollout.map(|rollout| rollout.turns)
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

    #[test]
    fn texts_of_files_stand_between_their_names() {
        let reader =
            PlainReader { layout: None, task: "t", has_recorded_questions: false, is_redacted: true, is_file: true };
        let texts = |file: &str| reader.look_at(file.as_bytes()).texts;
        let expected = Some("objects\na\nb\nc\n7\nbeside");
        assert_eq!(texts(r#"{"a": "b", "c": "7"}"#).as_deref(), expected);
        assert_eq!(texts("[{\"a\": \"b\"}, {\"c\": \"7\"}]").as_deref(), expected);
        assert_eq!(texts("{\"a\": \"b\"}\r\n\n {\"c\": \"7\"}\n").as_deref(), expected);
        for file in ["", "[1]", "7", "{\"a\": 1}\n[]", "{\"a\": 1, \"a\": 1}", "{\"a\": 1} {}", "{\"my_token\": \"b\"}"]
        {
            assert_eq!(texts(file), None, "{file}");
        }
    }
}
