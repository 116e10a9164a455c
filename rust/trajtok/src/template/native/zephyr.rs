//! Zephyr's chat format: `<|user|>`, a line break, the content and `</s>`.

use crate::conversation::{Conversation, Role};
use crate::encode::Encoder;
use crate::error::{Error, Reason, Rejection};
use crate::template::chat_template::{ChatTemplate, refuse_extras};
use crate::template::native::wording::{Controls, Wording};
use crate::template::rendering::Rendering;

/// The template.
pub struct Zephyr {
    system: Wording,
    user: Wording,
    assistant: Wording,
    end: Wording,
    controls: Controls,
}

impl Zephyr {
    /// The name users write.
    pub(crate) const NAME: &'static str = "zephyr";

    /// Binds it to a tokenizer's added tokens.
    pub fn new(encoder: &dyn Encoder) -> Self {
        let controls = Controls::new(&["</s>"], &["<|system|>", "<|user|>", "<|assistant|>"], encoder);
        Self {
            system: controls.cut("<|system|>\n"),
            user: controls.cut("<|user|>\n"),
            assistant: controls.cut("<|assistant|>\n"),
            end: controls.cut("</s>"),
            controls,
        }
    }
}

impl ChatTemplate for Zephyr {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn ends(&self) -> Vec<&str> {
        vec!["</s>"]
    }

    fn control_tokens(&self) -> Vec<&str> {
        self.controls.texts()
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        refuse_extras(self.name(), conversation)?;
        let mut rendering = Rendering::with_room(&conversation.messages, 24, 3);
        for (index, message) in conversation.messages.iter().enumerate() {
            rendering.push_wording(match message.role {
                Role::System => &self.system,
                Role::User => &self.user,
                Role::Assistant => &self.assistant,
                Role::Tool => return Err(refuse_tool(index)),
            });
            rendering.push_said(index, message, 0..message.content.len(), None, &self.end);
            rendering.push_text("\n");
        }
        if add_generation_prompt {
            rendering.push_wording(&self.assistant);
        }
        Ok(rendering)
    }
}

/// The published template has no such role: it would write a tool's answer as a system message.
fn refuse_tool(index: usize) -> Error {
    let detail = format!(
        "messages[{index}] is a tool's answer, which template zephyr would write as a system message; take a template that \
         has tools, such as the model's own"
    );
    Rejection::error(Reason::NotRendered, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{alternating, check_whole, conversation_json, encoder_with, pieces, trained_text};

    fn render(tokens: &[&'static str], json: &str, add_generation_prompt: bool) -> Result<Rendering, Error> {
        Zephyr::new(&encoder_with(tokens)).render(&Conversation::parse(json.as_bytes()).unwrap(), add_generation_prompt)
    }

    #[test]
    fn content_and_its_end_token_carry_the_weight() {
        let json = conversation_json(&[("user", "q", 0.0), ("assistant", " a", 0.5)]);
        let expected = [
            ("<|user|>\nq", false, 0.0),
            ("</s>", true, 0.0),
            ("\n<|assistant|>\n", false, 0.0),
            (" a", false, 0.5),
            ("</s>", true, 0.5),
            ("\n", false, 0.0),
        ];
        assert_eq!(pieces(&render(&[], &json, false).unwrap()), expected);
    }

    #[test]
    fn roles_are_control_tokens_where_the_tokenizer_has_them() {
        let json = conversation_json(&[("system", "<|user|>", 0.0)]);
        let rendering = render(&["</s>", "<|system|>", "<|user|>", "<|assistant|>"], &json, true).unwrap();
        let expected = [
            ("<|system|>", true, 0.0),
            ("\n<|user|>", false, 0.0),
            ("</s>", true, 0.0),
            ("\n", false, 0.0),
            ("<|assistant|>", true, 0.0),
            ("\n", false, 0.0),
        ];
        assert_eq!(pieces(&rendering), expected);
    }

    #[test]
    fn a_tools_answer_is_refused() {
        let problem = render(&[], &conversation_json(&[("tool", "a", 0.0)]), false).unwrap_err().to_string();
        assert!(problem.starts_with("not_rendered: messages[0] is a tool's answer"), "{problem}");
    }

    proptest! {
        #[test]
        fn renderings_are_whole_and_targets_are_what_is_said(turns in alternating(), prompt: bool) {
            let rendering = render(&[], &conversation_json(&turns), prompt).unwrap();
            check_whole(&rendering);
            let targets = turns.iter().filter(|turn| turn.2 > 0.0);
            let expected: String = targets.flat_map(|turn| [turn.1.as_str(), "</s>"]).collect();
            prop_assert_eq!(trained_text(&rendering), expected);
        }
    }
}
