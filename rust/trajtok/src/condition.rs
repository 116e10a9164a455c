//! A recorded conversation as it is trained: what is said before it, and a weight for each turn, text by text.
//!
//! The turns are canonical JSON as `negtraj_dagster.schema` writes it, and so is what is made: no text is read or written anew.
//! A turn in which there is more to decide (a loss that is a number, keys out of order) is left to `negtraj_dagster.strategies`.

use std::ops::Range;

use crate::json::{Scanner, Stop};
use crate::json_text::push_text;

/// What a conversation is conditioned with.
#[derive(Debug, Clone, Copy)]
pub struct Conditioning<'a> {
    /// Conditioned turns before the recorded ones: canonical JSON of a list.
    pub context: &'a str,
    /// JSON text of the tools' schemas.
    pub tools: Option<&'a str>,
    /// Whether turns behind the agent's last one stay.
    pub keeps_last_turns: bool,
}

impl Conditioning<'_> {
    /// The conditioned conversation of these turns, without recorded token ids; `None` where a turn has to be looked at.
    #[must_use]
    pub fn apply(&self, turns: &str) -> Option<String> {
        let context = self.context.strip_prefix('[')?.strip_suffix(']')?;
        let mut made = String::with_capacity(turns.len() + context.len() + 64);
        made.push_str("{\"messages\":[");
        made.push_str(context);
        let mut end = made.len();
        let mut scanner = Scanner::new(turns.as_bytes());
        if scanner.peek() != b'[' {
            return None;
        }
        let mut is_plain = true;
        let read = scanner.array(|scanner| {
            let turn = Turn::read(scanner, turns)?;
            if made.len() > "{\"messages\":[".len() {
                made.push(',');
            }
            match turn.and_then(|turn| turn.write(turns, &mut made)) {
                Some(is_agent) if is_agent || self.keeps_last_turns => end = made.len(),
                Some(_) => {}
                None => is_plain = false,
            }
            Ok(())
        });
        if read.is_err() || scanner.fault.is_some() || scanner.at != turns.len() || !is_plain {
            return None;
        }
        made.truncate(end);
        made.push(']');
        if let Some(tools) = self.tools {
            made.push_str(",\"tools\":");
            push_text(tools, &mut made);
        }
        made.push('}');
        Some(made)
    }
}

/// A turn's keys and values, by their places.
struct Turn(Vec<(Range<usize>, Range<usize>)>);

impl Turn {
    /// Passes a turn; `None` where it is not an object in canonical form.
    fn read(scanner: &mut Scanner<'_>, text: &str) -> Result<Option<Self>, Stop> {
        let start = scanner.at;
        if scanner.peek() != b'{' {
            return scanner.skip_value().map(|()| None);
        }
        let mut fields: Vec<(Range<usize>, Range<usize>)> = Vec::with_capacity(4);
        scanner.object(|scanner, key| {
            let value = scanner.at;
            scanner.skip_value()?;
            fields.push((key.at.clone(), value..scanner.at));
            Ok(())
        })?;
        let n_bytes: usize = fields.iter().map(|(key, value)| key.len() + value.len() + "\"\":,".len()).sum();
        let is_sorted = fields.windows(2).all(|pair| text[pair[0].0.clone()] < text[pair[1].0.clone()]);
        Ok((is_sorted && scanner.at - start == n_bytes + 1).then_some(Self(fields)))
    }

    fn get<'a>(&self, text: &'a str, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| &text[key.clone()] == name).map(|(_, value)| &text[value.clone()])
    }

    /// Writes the turn with its weight; says whether it is the agent's.
    fn write(&self, text: &str, made: &mut String) -> Option<bool> {
        let is_agent = self.get(text, "role")? == "\"assistant\"";
        let weight = match self.get(text, "loss") {
            Some("true") => "1.0",
            None if is_agent => "1.0",
            Some("false") | None => "0.0",
            Some(_) => return None,
        };
        made.push('{');
        for (key, value) in &self.0 {
            let key = &text[key.clone()];
            if matches!(key, "loss" | "token_ids") {
                continue;
            }
            if key >= "weight" || key.contains('\\') {
                return None;
            }
            made.extend(["\"", key, "\":", &text[value.clone()], ","]);
        }
        made.extend(["\"weight\":", weight, "}"]);
        Some(is_agent)
    }
}

#[cfg(test)]
mod tests {
    use super::Conditioning;

    const CONTEXT: &str = r#"[{"content":"q","role":"user","weight":0.0}]"#;

    fn apply(turns: &str, keeps_last_turns: bool) -> Option<String> {
        Conditioning { context: CONTEXT, tools: None, keeps_last_turns }.apply(turns)
    }

    #[test]
    fn turns_get_their_weights_and_the_last_ones_go() {
        let turns = r#"[{"content":"a\n","role":"assistant"},{"content":"b","loss":false,"role":"assistant","token_ids":[1]},{"content":"c","role":"user"}]"#;
        let made = r#"{"messages":[{"content":"q","role":"user","weight":0.0},{"content":"a\n","role":"assistant","weight":1.0},{"content":"b","role":"assistant","weight":0.0}"#;
        assert_eq!(apply(turns, false).unwrap(), format!("{made}]}}"));
        assert_eq!(
            apply(turns, true).unwrap(),
            format!("{made},{{\"content\":\"c\",\"role\":\"user\",\"weight\":0.0}}]}}")
        );
        let with_tools = Conditioning { context: "[]", tools: Some("[\"t\"]"), keeps_last_turns: false };
        assert_eq!(with_tools.apply("[]").unwrap(), r#"{"messages":[],"tools":"[\"t\"]"}"#);
    }

    #[test]
    fn what_has_to_be_looked_at_is_left() {
        for turn in [
            r#"{"content":"a","loss":0.5,"role":"assistant"}"#,
            r#"{"content":"a","role":"assistant","x":1}"#,
            r#"{"role":"assistant","content":"a"}"#,
            r#"{"content": "a","role":"assistant"}"#,
            r#"{"content":"a"}"#,
            "1",
        ] {
            assert_eq!(apply(&format!("[{turn}]"), false), None, "{turn}");
        }
        for text in ["", "{}", "[] ", "[", r#"[{"content":"a","role":"user"}"#] {
            assert_eq!(apply(text, false), None, "{text}");
        }
    }
}
