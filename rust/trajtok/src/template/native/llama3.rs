//! Llama 3's chat format: a header of control tokens and the role, the stripped content, `<|eot_id|>`.

use crate::conversation::{Conversation, Role};
use crate::encode::Encoder;
use crate::error::Error;
use crate::template::chat_template::{ChatTemplate, refuse_extras};
use crate::template::marks::inner;
use crate::template::native::wording::{Controls, Wording};
use crate::template::rendering::Rendering;
use crate::template::targets::check_prompt;

/// The template.
pub struct Llama3 {
    begin: Wording,
    system: Wording,
    user: Wording,
    assistant: Wording,
    tool: Wording,
    end: Wording,
    controls: Controls,
}

const CONTROLS: [&str; 4] = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"];

impl Llama3 {
    /// The name users write.
    pub(crate) const NAME: &'static str = "llama3";

    /// Binds it to a tokenizer's added tokens.
    pub fn new(encoder: &dyn Encoder) -> Self {
        let controls = Controls::new(&CONTROLS, &[], encoder);
        Self {
            begin: controls.cut("<|begin_of_text|>"),
            system: controls.cut("<|start_header_id|>system<|end_header_id|>\n\n"),
            user: controls.cut("<|start_header_id|>user<|end_header_id|>\n\n"),
            assistant: controls.cut("<|start_header_id|>assistant<|end_header_id|>\n\n"),
            tool: controls.cut("<|start_header_id|>tool<|end_header_id|>\n\n"),
            end: controls.cut("<|eot_id|>"),
            controls,
        }
    }
}

impl ChatTemplate for Llama3 {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn ends(&self) -> Vec<&str> {
        vec!["<|eot_id|>"]
    }

    fn control_tokens(&self) -> Vec<&str> {
        self.controls.texts()
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        refuse_extras(self.name(), conversation)?;
        let mut rendering = Rendering::with_room(&conversation.messages, 60, 5);
        for (index, message) in conversation.messages.iter().enumerate() {
            if index == 0 {
                rendering.push_wording(&self.begin);
            }
            rendering.push_wording(match message.role {
                Role::System => &self.system,
                Role::User => &self.user,
                Role::Assistant => &self.assistant,
                Role::Tool => &self.tool,
            });
            rendering.push_said(index, message, inner(&message.content), None, &self.end);
        }
        if add_generation_prompt {
            rendering.push_wording(&self.assistant);
        } else if rendering.targets.first().is_some_and(|target| target.message == 0) {
            // Without a message there is no <|begin_of_text|>: a served model is given the header alone.
            check_prompt(0, &rendering.text, &self.assistant.text())?;
        }
        Ok(rendering)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{check_whole, conversation_json, encoder_with, messages, pieces, trained_text};

    fn render(json: &str, add_generation_prompt: bool) -> Result<Rendering, Error> {
        Llama3::new(&encoder_with(&[])).render(&Conversation::parse(json.as_bytes()).unwrap(), add_generation_prompt)
    }

    #[test]
    fn stripped_content_and_its_end_token_carry_the_weight() {
        let rendering =
            render(&conversation_json(&[("user", " q\n", 0.0), ("assistant", "\u{1f}a ", 0.5)]), false).unwrap();
        let expected = [
            ("<|begin_of_text|>", true, 0.0),
            ("<|start_header_id|>", true, 0.0),
            ("user", false, 0.0),
            ("<|end_header_id|>", true, 0.0),
            ("\n\nq", false, 0.0),
            ("<|eot_id|>", true, 0.0),
            ("<|start_header_id|>", true, 0.0),
            ("assistant", false, 0.0),
            ("<|end_header_id|>", true, 0.0),
            ("\n\n", false, 0.0),
            ("a", false, 0.5),
            ("<|eot_id|>", true, 0.5),
        ];
        assert_eq!(pieces(&rendering), expected);
    }

    #[test]
    fn weights_of_characters_follow_the_stripped_text() {
        let json = r#"{"messages":[{"role":"user","content":"q","weight":0},{"role":"assistant","content":" abc ",
            "weight":0,"ranges":[{"field":"content","start":0,"end":3,"weight":1}]}]}"#;
        assert_eq!(trained_text(&render(json, false).unwrap()), "ab");
    }

    #[test]
    fn no_message_has_no_begin_and_a_first_turn_that_is_trained_would_have_one() {
        let prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n";
        assert_eq!(render(r#"{"messages":[]}"#, true).unwrap().text, prompt);
        let problem = render(&conversation_json(&[("assistant", "a", 1.0)]), false).unwrap_err().to_string();
        assert!(problem.starts_with("prompt_differs: messages[0]"), "{problem}");
        assert!(render(&conversation_json(&[("assistant", "a", 0.0)]), false).is_ok());
    }

    proptest! {
        #[test]
        fn renderings_are_whole_and_targets_are_what_is_said(turns in messages(), prompt: bool) {
            let turns: Vec<_> = [("user", "q".to_owned(), 0.0)].into_iter().chain(turns).collect();
            let rendering = render(&conversation_json(&turns), prompt).unwrap();
            check_whole(&rendering);
            let targets = turns.iter().filter(|turn| turn.2 > 0.0);
            let expected: String = targets.flat_map(|turn| [&turn.1[inner(&turn.1)], "<|eot_id|>"]).collect();
            prop_assert_eq!(trained_text(&rendering), expected);
        }
    }
}
