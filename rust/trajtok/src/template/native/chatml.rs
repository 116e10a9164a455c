//! Plain ChatML: no default system message, one header line per message, tool answers like any other.

use crate::conversation::{Conversation, WeighedField};
use crate::error::Error;
use crate::template::chat_template::{ChatTemplate, refuse_extras};
use crate::template::rendering::{Rendering, Target, TextPlace};

/// The template.
pub struct ChatMl;

const CONTROLS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];
const IM_START: usize = 0;
const IM_END: usize = 1;

impl ChatMl {
    /// The name users write.
    pub(crate) const NAME: &'static str = "chatml";
}

impl ChatTemplate for ChatMl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn control_tokens(&self) -> Vec<&str> {
        CONTROLS.to_vec()
    }

    fn ends(&self) -> Vec<&str> {
        vec![CONTROLS[IM_END]]
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        refuse_extras(Self::NAME, conversation)?;
        let mut rendering = Rendering::with_room(&conversation.messages, 40, 4);
        for (index, message) in conversation.messages.iter().enumerate() {
            rendering.push_control(CONTROLS[IM_START], IM_START);
            rendering.push_text(message.role.as_str());
            rendering.push_text("\n");
            let start = rendering.text.len();
            rendering.push_text(&message.content);
            let content = TextPlace { field: WeighedField::Content, bytes: start..rendering.text.len(), n_trimmed: 0 };
            rendering.push_control(CONTROLS[IM_END], IM_END);
            let target = Target { message: index, bytes: start..rendering.text.len() };
            rendering.push_turn(target, message, &[content], 0..0);
            rendering.push_text("\n");
        }
        if add_generation_prompt {
            rendering.push_control(CONTROLS[IM_START], IM_START);
            rendering.push_text("assistant\n");
        }
        Ok(rendering)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{check_whole, conversation_json, messages, pieces, trained_text};

    fn render(json: &str, add_generation_prompt: bool) -> Rendering {
        ChatMl.render(&Conversation::parse(json.as_bytes()).unwrap(), add_generation_prompt).unwrap()
    }

    #[test]
    fn content_and_its_end_token_carry_the_weight_and_nothing_else_does() {
        let json = conversation_json(&[("user", "hi", 0.0), ("assistant", "yo", 0.5)]);
        let rendering = render(&json, false);
        assert_eq!(
            pieces(&rendering),
            [
                ("<|im_start|>", true, 0.0),
                ("user\nhi", false, 0.0),
                ("<|im_end|>", true, 0.0),
                ("\n", false, 0.0),
                ("<|im_start|>", true, 0.0),
                ("assistant\n", false, 0.0),
                ("yo", false, 0.5),
                ("<|im_end|>", true, 0.5),
                ("\n", false, 0.0),
            ]
        );
    }

    #[test]
    fn the_generation_prompt_starts_an_assistant_turn() {
        let json = conversation_json(&[("user", "hi", 0.0)]);
        assert_eq!(render(&json, true).text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn an_empty_target_trains_its_end_token() {
        let rendering = render(&conversation_json(&[("assistant", "", 1.0)]), false);
        assert_eq!(&rendering.text[rendering.trained[0].bytes.clone()], "<|im_end|>");
    }

    proptest! {
        #[test]
        fn segments_and_pieces_concatenate_to_the_rendered_text(turns in messages(), prompt: bool) {
            let rendering = render(&conversation_json(&turns), prompt);
            check_whole(&rendering);
        }

        #[test]
        fn trained_pieces_concatenate_to_contents_and_end_tokens(turns in messages()) {
            let rendering = render(&conversation_json(&turns), false);
            let targets = turns.iter().filter(|turn| turn.2 > 0.0);
            let expected: String = targets.flat_map(|turn| [turn.1.as_str(), "<|im_end|>"]).collect();
            prop_assert_eq!(trained_text(&rendering), expected);
        }
    }
}
