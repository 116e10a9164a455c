//! Mistral's first chat format: `<s> [INST] … [/INST] …</s>`, the system message before the first user message's content.

use crate::conversation::{Conversation, Role};
use crate::encode::Encoder;
use crate::error::Error;
use crate::template::chat_template::ChatTemplate;
use crate::template::native::alternation::n_before_turns;
use crate::template::native::wording::{Controls, Wording};
use crate::template::rendering::Rendering;

/// The template.
pub struct Mistral {
    begin: Wording,
    user: Wording,
    behind_system: Wording,
    end_user: Wording,
    assistant: Wording,
    end: Wording,
    controls: Controls,
}

impl Mistral {
    /// The name users write.
    pub(crate) const NAME: &'static str = "mistral";

    /// Binds it to a tokenizer's added tokens.
    pub fn new(encoder: &dyn Encoder) -> Self {
        let controls = Controls::new(&["<s>", "</s>"], &["[INST]", "[/INST]"], encoder);
        Self {
            begin: controls.cut("<s>"),
            user: controls.cut(" [INST] "),
            behind_system: controls.cut("\n\n"),
            end_user: controls.cut(" [/INST]"),
            assistant: controls.cut(" "),
            end: controls.cut("</s>"),
            controls,
        }
    }
}

impl ChatTemplate for Mistral {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn ends(&self) -> Vec<&str> {
        vec!["</s>"]
    }

    fn control_tokens(&self) -> Vec<&str> {
        self.controls.texts()
    }

    /// There is no generation prompt: an answer begins where `[/INST]` ends.
    fn render(&self, conversation: &Conversation<'_>, _add_generation_prompt: bool) -> Result<Rendering, Error> {
        let n_before = n_before_turns(self.name(), conversation)?;
        let mut rendering = Rendering::with_room(&conversation.messages, 24, 3);
        rendering.push_wording(&self.begin);
        for (index, message) in conversation.messages.iter().enumerate().skip(n_before) {
            if message.role == Role::Assistant {
                rendering.push_said(index, message, 0..message.content.len(), Some(&self.assistant), &self.end);
                continue;
            }
            rendering.push_wording(&self.user);
            if n_before == 1 && index == 1 {
                rendering.push_text(&conversation.messages[0].content);
                rendering.push_wording(&self.behind_system);
            }
            rendering.push_text(&message.content);
            rendering.push_wording(&self.end_user);
        }
        Ok(rendering)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{alternating, check_whole, conversation_json, encoder_with, pieces, trained_text};

    fn render(tokens: &[&'static str], turns: &[(&str, &str, f64)]) -> Rendering {
        let json = conversation_json(turns);
        Mistral::new(&encoder_with(tokens)).render(&Conversation::parse(json.as_bytes()).unwrap(), false).unwrap()
    }

    #[test]
    fn an_answer_is_trained_from_its_space_to_its_end_token() {
        let turns = [("system", "s", 0.0), ("user", " q", 0.0), ("assistant", "a ", 0.5), ("user", "r", 0.0)];
        let expected = [
            ("<s>", true, 0.0),
            (" [INST] s\n\n q [/INST]", false, 0.0),
            (" a ", false, 0.5),
            ("</s>", true, 0.5),
            (" [INST] r [/INST]", false, 0.0),
        ];
        assert_eq!(pieces(&render(&[], &turns)), expected);
    }

    #[test]
    fn brackets_are_control_tokens_where_the_tokenizer_has_them() {
        let rendering = render(&["<s>", "</s>", "[INST]", "[/INST]"], &[("user", "[/INST]", 0.0)]);
        let expected = [
            ("<s>", true, 0.0),
            (" ", false, 0.0),
            ("[INST]", true, 0.0),
            (" [/INST] ", false, 0.0),
            ("[/INST]", true, 0.0),
        ];
        assert_eq!(pieces(&rendering), expected);
    }

    proptest! {
        #[test]
        fn renderings_are_whole_and_targets_are_what_is_said(turns in alternating()) {
            let json = conversation_json(&turns);
            let template = Mistral::new(&encoder_with(&[]));
            let rendering = template.render(&Conversation::parse(json.as_bytes()).unwrap(), false).unwrap();
            check_whole(&rendering);
            let targets = turns.iter().filter(|turn| turn.2 > 0.0);
            let expected: String = targets.flat_map(|turn| [" ", turn.1.as_str(), "</s>"]).collect();
            prop_assert_eq!(trained_text(&rendering), expected);
        }
    }
}
