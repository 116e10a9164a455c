//! Llama 2's chat format: `<s>[INST] … [/INST] … </s>`, the system message inside of the first user message.

use crate::conversation::{Conversation, Role};
use crate::encode::Encoder;
use crate::error::Error;
use crate::template::chat_template::ChatTemplate;
use crate::template::marks::inner;
use crate::template::native::alternation::n_before_turns;
use crate::template::native::wording::{Controls, Wording};
use crate::template::python_text::is_space;
use crate::template::rendering::Rendering;

/// The template.
pub struct Llama2 {
    user: Wording,
    system: Wording,
    end_system: Wording,
    behind_system: Wording,
    end_user: Wording,
    assistant: Wording,
    end: Wording,
    controls: Controls,
}

impl Llama2 {
    /// The name users write.
    pub(crate) const NAME: &'static str = "llama2";

    /// Binds it to a tokenizer's added tokens.
    pub fn new(encoder: &dyn Encoder) -> Self {
        let controls = Controls::new(&["<s>", "</s>"], &["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"], encoder);
        Self {
            user: controls.cut("<s>[INST] "),
            system: controls.cut("<<SYS>>\n"),
            end_system: controls.cut("\n<</SYS>>"),
            behind_system: controls.cut("\n\n"),
            end_user: controls.cut(" [/INST]"),
            assistant: controls.cut(" "),
            end: controls.cut(" </s>"),
            controls,
        }
    }

    /// The first user message with the system message in it. Only the two together are stripped, so that white space at
    /// their border stays.
    fn push_with_system(&self, rendering: &mut Rendering, system: &str, user: &str) {
        rendering.push_wording(&self.system);
        rendering.push_text(system);
        rendering.push_wording(&self.end_system);
        let user = user.trim_end_matches(is_space);
        if !user.is_empty() {
            rendering.push_wording(&self.behind_system);
            rendering.push_text(user);
        }
    }
}

impl ChatTemplate for Llama2 {
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
        for (index, message) in conversation.messages.iter().enumerate().skip(n_before) {
            let stripped = inner(&message.content);
            if message.role == Role::Assistant {
                rendering.push_said(index, message, stripped, Some(&self.assistant), &self.end);
                continue;
            }
            rendering.push_wording(&self.user);
            if n_before == 1 && index == 1 {
                self.push_with_system(&mut rendering, &conversation.messages[0].content, &message.content);
            } else {
                rendering.push_text(&message.content[stripped]);
            }
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

    fn template(tokens: &[&'static str]) -> Llama2 {
        Llama2::new(&encoder_with(tokens))
    }

    fn render(template: &Llama2, turns: &[(&str, &str, f64)]) -> Rendering {
        template.render(&Conversation::parse(conversation_json(turns).as_bytes()).unwrap(), false).unwrap()
    }

    #[test]
    fn an_answer_is_trained_from_its_space_to_its_end_token() {
        let rendering = render(&template(&[]), &[("user", " q\n", 0.0), ("assistant", "a ", 0.5), ("user", "r", 0.0)]);
        let expected = [
            ("<s>", true, 0.0),
            ("[INST] q [/INST]", false, 0.0),
            (" a ", false, 0.5),
            ("</s>", true, 0.5),
            ("<s>", true, 0.0),
            ("[INST] r [/INST]", false, 0.0),
        ];
        assert_eq!(pieces(&rendering), expected);
    }

    #[test]
    fn the_system_message_stands_in_the_first_user_message_and_the_two_are_stripped_together() {
        let text = |system, user| render(&template(&[]), &[("system", system, 0.0), ("user", user, 0.0)]).text;
        assert_eq!(text(" s ", " q "), "<s>[INST] <<SYS>>\n s \n<</SYS>>\n\n q [/INST]");
        assert_eq!(text("s", " \n"), "<s>[INST] <<SYS>>\ns\n<</SYS>> [/INST]");
    }

    #[test]
    fn brackets_are_control_tokens_where_the_tokenizer_has_them() {
        let tokens = ["<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"];
        let rendering = render(&template(&tokens), &[("system", "[INST]", 0.0), ("user", "<s>", 0.0)]);
        let controls: Vec<_> = pieces(&rendering).into_iter().filter(|piece| piece.1).map(|piece| piece.0).collect();
        assert_eq!(controls, ["<s>", "[INST]", "<<SYS>>", "<</SYS>>", "[/INST]"]);
    }

    proptest! {
        #[test]
        fn renderings_are_whole_and_targets_are_what_is_said(turns in alternating()) {
            let json = conversation_json(&turns);
            let rendering = template(&[]).render(&Conversation::parse(json.as_bytes()).unwrap(), false).unwrap();
            check_whole(&rendering);
            let targets = turns.iter().filter(|turn| turn.2 > 0.0);
            let expected: String = targets.flat_map(|turn| [" ", &turn.1[inner(&turn.1)], " </s>"]).collect();
            prop_assert_eq!(trained_text(&rendering), expected);
        }
    }
}
