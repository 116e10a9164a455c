//! The paper's own rows (arXiv 2402.11651, its published code): Llama 2's text, tokenized stretch by stretch.
//!
//! What the template `llama2` and the paper's code differ in: a trained answer is tokenized apart from what precedes it, the
//! last message ends without a mark, and a row that does not end with the end token gets one, which is trained. Rows are cut
//! at the right, and rows without an answer are rows too. The rules are tested against a plain reference.

use crate::conversation::{Conversation, Message, Role};
use crate::error::{Error, Reason, Rejection};
use crate::template::chat_template::{ChatTemplate, RowRule, refuse_extras};
use crate::template::rendering::{Rendering, Target};

/// The template.
pub struct NatExact;

const CONTROLS: [&str; 2] = ["<s>", "</s>"];
const BOS: usize = 0;
const EOS: usize = 1;

/// What is written with the message that follows.
#[derive(Clone, Copy)]
enum Separator {
    None,
    Start,
    Space,
    AfterAnswer,
    AfterContextAnswer,
}

impl Separator {
    fn write(self, rendering: &mut Rendering) {
        match self {
            Self::None => {}
            Self::Space => rendering.push_text(" "),
            Self::Start | Self::AfterAnswer => rendering.push_control(CONTROLS[BOS], BOS),
            Self::AfterContextAnswer => {
                rendering.push_text(" ");
                rendering.push_control(CONTROLS[EOS], EOS);
                rendering.push_control(CONTROLS[BOS], BOS);
            }
        }
    }
}

impl NatExact {
    /// The name users write.
    pub(crate) const NAME: &'static str = "nat_exact";
}

impl ChatTemplate for NatExact {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn control_tokens(&self) -> Vec<&str> {
        CONTROLS.to_vec()
    }

    fn ends(&self) -> Vec<&str> {
        vec![CONTROLS[EOS]]
    }

    fn row_rule(&self) -> RowRule {
        RowRule::CutAndEnd { end: EOS }
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        refuse_extras(Self::NAME, conversation)?;
        let mut rendering = Rendering::with_room(&conversation.messages, 24, 3);
        let mut separator = Separator::Start;
        for (index, message) in conversation.messages.iter().enumerate() {
            check_role(index, message)?;
            separator.write(&mut rendering);
            separator = write_message(&mut rendering, index, message);
        }
        if add_generation_prompt {
            separator.write(&mut rendering);
            rendering.push_text("[/INST]");
        }
        Ok(rendering)
    }
}

fn write_message(rendering: &mut Rendering, index: usize, message: &Message<'_>) -> Separator {
    let tag = if message.role == Role::User { "[INST]" } else { "[/INST]" };
    rendering.push_text(tag);
    if message.content.is_empty() {
        return Separator::None;
    }
    if !message.is_trained() {
        rendering.push_text(" ");
        rendering.push_text(&message.content);
        return if message.role == Role::User { Separator::Space } else { Separator::AfterContextAnswer };
    }
    rendering.restart();
    let start = rendering.text.len();
    rendering.push_text(" ");
    rendering.push_text(&message.content);
    rendering.push_text(" ");
    rendering.push_control(CONTROLS[EOS], EOS);
    let target = Target { message: index, bytes: start..rendering.text.len() };
    rendering.push_target(target, message, &[], 0..0);
    Separator::AfterAnswer
}

fn check_role(index: usize, message: &Message<'_>) -> Result<(), Error> {
    let expected = if index.is_multiple_of(2) { Role::User } else { Role::Assistant };
    let problem = if message.role != expected {
        format!(
            "is the {}'s, expected the {}'s: user and assistant take turns",
            message.role.as_str(),
            expected.as_str()
        )
    } else if index == 0 && message.content.is_empty() {
        "has no text".to_owned()
    } else if !message.ranges.is_empty() || !message.token_ids.is_empty() {
        "has weights for some characters or given token ids, which the paper's rows do not".to_owned()
    } else {
        return Ok(());
    };
    Err(Rejection::error(Reason::TemplateRefuses, format!("template {}: messages[{index}] {problem}", NatExact::NAME)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::conversation_json;

    fn written(turns: &[(&str, &str, f64)]) -> String {
        let json = conversation_json(turns);
        let rendering = NatExact.render(&Conversation::parse(json.as_bytes()).unwrap(), false).unwrap();
        let mark = |piece: &crate::template::rendering::Piece<'_>| {
            if piece.weight > 0.0 { format!("⟦{}⟧", piece.text) } else { piece.text.to_owned() }
        };
        rendering.pieces().iter().map(mark).collect::<String>().replace("⟧⟦", "")
    }

    #[test]
    fn answers_are_trained_from_their_space_to_their_end_token() {
        let turns = [
            ("user", "i", 0.0),
            ("assistant", "ok", 0.0),
            ("user", "q", 0.0),
            ("assistant", "a", 1.0),
            ("user", "o", 0.0),
        ];
        assert_eq!(written(&turns), "<s>[INST] i [/INST] ok </s><s>[INST] q [/INST]⟦ a </s>⟧<s>[INST] o");
    }

    #[test]
    fn a_message_without_text_is_its_tag_alone() {
        assert_eq!(
            written(&[("user", "q", 0.0), ("assistant", "", 1.0), ("user", "", 0.0)]),
            "<s>[INST] q [/INST][INST]"
        );
    }

    #[test]
    fn roles_that_do_not_take_turns_are_refused() {
        let json = conversation_json(&[("user", "a", 0.0), ("user", "b", 0.0)]);
        let refused = NatExact.render(&Conversation::parse(json.as_bytes()).unwrap(), false).unwrap_err().to_string();
        let expected = "template_refuses: template nat_exact: messages[1] is the user's, expected the assistant's: user and \
                        assistant take turns";
        assert_eq!(refused, expected);
    }
}
