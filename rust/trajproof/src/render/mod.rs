//! The native templates once more, plainly: the whole text is written, and nothing is noted while it is.

mod plain;
mod qwen3;

use crate::conversation::Message;

/// A template's text for a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// `chatml`.
    ChatMl,
    /// `llama2`.
    Llama2,
    /// `llama3`.
    Llama3,
    /// `mistral`.
    Mistral,
    /// `qwen3`; whether it is asked to think.
    Qwen3 {
        /// `enable_thinking`.
        thinks: bool,
    },
    /// `zephyr`.
    Zephyr,
}

impl Template {
    /// A native template by its name; `None` for one that this crate does not write.
    #[must_use]
    pub fn named(name: &str, thinks: bool) -> Option<Self> {
        Some(match name {
            "chatml" => Self::ChatMl,
            "llama2" => Self::Llama2,
            "llama3" => Self::Llama3,
            "mistral" => Self::Mistral,
            "qwen3" => Self::Qwen3 { thinks },
            "zephyr" => Self::Zephyr,
            _ => return None,
        })
    }

    /// Writes the text into an empty `text`; `None` where this crate cannot tell it.
    pub(crate) fn write(
        self,
        messages: &[Message<'_>],
        tools: Option<&str>,
        is_prompt: bool,
        text: &mut String,
    ) -> Option<()> {
        match self {
            Self::ChatMl => plain::chatml(messages, is_prompt, text),
            Self::Llama2 => plain::llama2(messages, text),
            Self::Llama3 => plain::llama3(messages, is_prompt, text),
            Self::Mistral => plain::mistral(messages, text),
            Self::Qwen3 { thinks } => {
                return qwen3::write(messages, tools, is_prompt.then_some(thinks), text);
            }
            Self::Zephyr => plain::zephyr(messages, is_prompt, text),
        }
        Some(())
    }
}
