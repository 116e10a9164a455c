//! Messages of a record, borrowed from its bytes: no JSON tree is built.

use std::borrow::Cow;

use crate::conversation::Role;
use crate::json::{Scanner, Stop, Text, as_utf8, judge_end};

/// Where a record keeps its messages. Each field lists the keys that are looked for; other keys are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Keys of the record under which the list of messages stands.
    pub messages: Vec<String>,
    /// Keys of a message: who speaks.
    pub role: Vec<String>,
    /// Keys of a message: what is said.
    pub content: Vec<String>,
    /// Keys of a message: its loss weight, a number or a boolean; may be missing or null.
    pub weight: Vec<String>,
    /// What the roles are called.
    pub roles: Vec<(String, Role)>,
}

impl Default for Shape {
    fn default() -> Self {
        let keys = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect();
        let roles = [
            ("system", Role::System),
            ("user", Role::User),
            ("human", Role::User),
            ("assistant", Role::Assistant),
            ("gpt", Role::Assistant),
            ("tool", Role::Tool),
        ];
        Self {
            messages: keys(&["messages", "conversations", "items"]),
            role: keys(&["role", "from"]),
            content: keys(&["content", "value"]),
            weight: keys(&["weight", "loss"]),
            roles: roles.map(|(name, role)| (name.to_owned(), role)).to_vec(),
        }
    }
}

/// One message of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordMessage<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said; borrowed unless it holds an escape sequence.
    pub content: Cow<'a, str>,
    /// The loss weight, if the record gives one: true is 1, false is 0.
    pub weight: Option<f64>,
}

impl Shape {
    /// Reads the messages of a record, as strictly as [`crate::RecordReader`] judges it.
    ///
    /// `record` is one JSON object, without blanks around it. The messages are appended to `messages`, which is as it was
    /// if the record is refused.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the record.
    pub fn read<'a>(&self, record: &'a [u8], messages: &mut Vec<RecordMessage<'a>>) -> Result<(), String> {
        let n_before = messages.len();
        let text = as_utf8(record)?;
        let mut parser = Parser { shape: self, text, messages, has_list: false };
        let mut scanner = Scanner::new(record);
        if parser.record(&mut scanner).is_ok() {
            judge_end(&mut scanner, record);
            if !parser.has_list {
                scanner.note(format!("found no list of messages; expected one under {}", one_of(&self.messages)));
            }
        }
        match scanner.fault {
            None => Ok(()),
            Some(fault) => {
                messages.truncate(n_before);
                Err(fault)
            }
        }
    }
}

struct Parser<'a, 'm, 's> {
    shape: &'s Shape,
    text: &'a str,
    messages: &'m mut Vec<RecordMessage<'a>>,
    has_list: bool,
}

/// A message as far as it was read.
#[derive(Default)]
struct Draft<'a> {
    role: Option<Role>,
    content: Option<Cow<'a, str>>,
    weight: Option<f64>,
}

impl<'a> Parser<'a, '_, '_> {
    fn record(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Stop> {
        if scanner.peek() != b'{' {
            return scanner.skip_value();
        }
        scanner.object(|scanner, key| {
            if !self.is_one_of(key, &self.shape.messages) {
                return scanner.skip_value();
            }
            if self.has_list {
                scanner
                    .note(format!("found two lists of messages; expected one under {}", one_of(&self.shape.messages)));
            }
            self.has_list = true;
            self.list(scanner)
        })
    }

    fn list(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Stop> {
        if scanner.peek() != b'[' {
            return refuse(scanner, "messages", "a list");
        }
        scanner.array(|scanner| self.message(scanner))
    }

    fn message(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Stop> {
        if scanner.peek() != b'{' {
            return refuse(scanner, "a message", "an object");
        }
        let mut draft = Draft::default();
        scanner.object(|scanner, key| self.field(scanner, key, &mut draft))?;
        match draft {
            Draft { role: Some(role), content: Some(content), weight } => {
                self.messages.push(RecordMessage { role, content, weight });
            }
            Draft { role: None, .. } => self.miss(scanner, "role", &self.shape.role),
            Draft { content: None, .. } => self.miss(scanner, "content", &self.shape.content),
        }
        Ok(())
    }

    fn field(&self, scanner: &mut Scanner<'a>, key: &Text, draft: &mut Draft<'a>) -> Result<(), Stop> {
        if self.is_one_of(key, &self.shape.content) {
            if draft.content.is_some() {
                scanner.note(twice("content", &self.shape.content));
            }
            draft.content = Some(self.content(scanner)?);
        } else if self.is_one_of(key, &self.shape.role) {
            if draft.role.is_some() {
                scanner.note(twice("role", &self.shape.role));
            }
            draft.role = Some(self.role(scanner)?);
        } else if self.is_one_of(key, &self.shape.weight) {
            if draft.weight.is_some() {
                scanner.note(twice("weight", &self.shape.weight));
            }
            draft.weight = self.weight(scanner)?;
        } else {
            scanner.skip_value()?;
        }
        Ok(())
    }

    fn content(&self, scanner: &mut Scanner<'a>) -> Result<Cow<'a, str>, Stop> {
        if scanner.peek() != b'"' {
            refuse(scanner, "content", "a string")?;
            return Ok(Cow::Borrowed(""));
        }
        Ok(scanner.string()?.read(self.text))
    }

    fn role(&self, scanner: &mut Scanner<'a>) -> Result<Role, Stop> {
        if scanner.peek() != b'"' {
            refuse(scanner, "role", "a string")?;
            return Ok(Role::User);
        }
        let name = scanner.string()?.read(self.text);
        let known = self.shape.roles.iter().find(|(known, _)| *known == name);
        if known.is_none() {
            let names: Vec<String> = self.shape.roles.iter().map(|(name, _)| name.clone()).collect();
            scanner.note(format!("role {name:?} is unknown; expected one of {}", one_of(&names)));
        }
        Ok(known.map_or(Role::User, |&(_, role)| role))
    }

    fn weight(&self, scanner: &mut Scanner<'a>) -> Result<Option<f64>, Stop> {
        match scanner.peek() {
            b't' => scanner.skip_value().map(|()| Some(1.0)),
            b'f' => scanner.skip_value().map(|()| Some(0.0)),
            b'n' => scanner.skip_value().map(|()| None),
            b'-' | b'0'..=b'9' => {
                let start = scanner.at;
                scanner.skip_value()?;
                Ok(self.text.get(start..scanner.at).and_then(|number| number.parse().ok()))
            }
            _ => refuse(scanner, "weight", "a number, a boolean or null").map(|()| None),
        }
    }

    fn is_one_of(&self, key: &Text, known: &[String]) -> bool {
        if key.has_escape {
            return known.iter().any(|known| *known == key.read(self.text));
        }
        let raw = &self.text.as_bytes()[key.at.clone()];
        known.iter().any(|known| known.as_bytes() == raw)
    }

    fn miss(&self, scanner: &mut Scanner<'a>, what: &str, keys: &[String]) {
        let n = self.messages.len();
        scanner.note(format!(
            "a message before byte {} (after {n} good ones) has no {what}; expected it under {}",
            scanner.at,
            one_of(keys)
        ));
    }
}

/// Notes that a value is of the wrong kind, and passes it.
fn refuse(scanner: &mut Scanner<'_>, what: &str, expected: &str) -> Result<(), Stop> {
    scanner.note(format!("{what} at byte {} is something else; expected {expected}", scanner.at));
    scanner.skip_value()
}

fn twice(what: &str, keys: &[String]) -> String {
    format!("a message has two keys for its {what}; expected one of {}", one_of(keys))
}

fn one_of(keys: &[String]) -> String {
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(record: &str) -> Result<Vec<RecordMessage<'_>>, String> {
        let mut messages = Vec::new();
        Shape::default().read(record.as_bytes(), &mut messages).map(|()| messages)
    }

    #[test]
    fn messages_are_found_under_each_known_key() {
        for record in [
            r#"{"id":1,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b\n","weight":0.5}]}"#,
            r#"{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b\n","loss":0.5}],"id":{"a":[1]}}"#,
            r#"{"items":[{"x":0,"content":"a","role":"user","loss":null},{"weight":5e-1,"r\u006fle":"assistant","content":"b\u000a"}]}"#,
        ] {
            let messages = read(record).unwrap();
            assert!(matches!(messages[0].content, Cow::Borrowed("a")), "{record}");
            assert_eq!((messages[0].role, messages[0].weight), (Role::User, None));
            assert_eq!((messages[1].role, &*messages[1].content), (Role::Assistant, "b\n"));
            assert_eq!(messages[1].weight, Some(0.5));
        }
        let booleans =
            r#"{"messages":[{"role":"tool","content":"","loss":true},{"role":"system","content":"","loss":false}]}"#;
        assert_eq!(
            read(booleans).unwrap().iter().map(|message| message.weight).collect::<Vec<_>>(),
            [Some(1.0), Some(0.0)]
        );
    }

    #[test]
    fn what_does_not_have_the_shape_is_refused() {
        for (record, finding) in [
            ("[]", "found an array"),
            ("{}", "no list of messages; expected one under messages, conversations, items"),
            (r#"{"messages":{}}"#, "expected a list"),
            (r#"{"messages":[1]}"#, "expected an object"),
            (r#"{"messages":[],"items":[]}"#, "two lists"),
            (r#"{"messages":[{"role":"user"}]}"#, "has no content; expected it under content, value"),
            (r#"{"messages":[{"content":""}]}"#, "has no role"),
            (r#"{"messages":[{"role":"critic","content":""}]}"#, "role \"critic\" is unknown"),
            (r#"{"messages":[{"role":"user","content":null}]}"#, "expected a string"),
            (r#"{"messages":[{"role":"user","content":"","value":""}]}"#, "two keys for its content"),
            (r#"{"messages":[{"role":"user","content":"","loss":"1"}]}"#, "expected a number, a boolean or null"),
            (r#"{"messages":[{"role":"user","content":""}]"#, "the text ends"),
            (r#"{"messages":[{"role":"user","content":"\ud800"}]}"#, "lone surrogate"),
            (r#"{"messages":[],"a":{"b":1,"b":1}}"#, "stands twice"),
        ] {
            let fault = read(record).unwrap_err();
            assert!(fault.contains(finding), "{record}: {fault}");
        }
    }

    #[test]
    fn a_refused_record_leaves_no_messages() {
        let mut messages = Vec::new();
        let record = br#"{"messages":[{"role":"user","content":"a"},{}]}"#;
        assert!(Shape::default().read(record, &mut messages).is_err());
        assert!(messages.is_empty());
    }
}
