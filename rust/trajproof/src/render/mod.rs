//! The native templates once more, plainly: the whole text is written, and nothing is noted while it is.

mod plain;
mod qwen3;

use std::borrow::Cow;

use crate::conversation::{Conversation, Message};

/// What a template writes for the beginnings of one conversation.
pub trait Texts {
    /// Of the first `n_messages`, with the generation prompt behind them where `is_prompt`; `None` where it cannot be told.
    fn text(&self, n_messages: usize, is_prompt: bool) -> Option<Cow<'_, str>>;
}

/// The texts of a native template.
#[derive(Debug)]
pub struct NativeTexts<'a> {
    /// The template.
    pub template: Template,
    /// The conversation.
    pub conversation: &'a Conversation<'a>,
}

impl Texts for NativeTexts<'_> {
    fn text(&self, n_messages: usize, is_prompt: bool) -> Option<Cow<'_, str>> {
        let messages = self.conversation.messages.get(..n_messages)?;
        let n_bytes: usize = messages.iter().map(|message| message.content.len() + 64).sum();
        let mut text = String::with_capacity(n_bytes + 256);
        self.template.write(messages, self.conversation.tools.as_deref(), is_prompt, &mut text)?;
        Some(Cow::Owned(text))
    }
}

/// Texts that someone else wrote: what is not among them cannot be told.
#[derive(Debug, Default)]
pub struct GivenTexts {
    texts: Vec<(usize, bool, String)>,
}

impl GivenTexts {
    /// By the number of messages, and whether the generation prompt stands behind them.
    #[must_use]
    pub fn new(texts: Vec<(usize, bool, String)>) -> Self {
        Self { texts }
    }
}

impl Texts for GivenTexts {
    fn text(&self, n_messages: usize, is_prompt: bool) -> Option<Cow<'_, str>> {
        let found = self.texts.iter().find(|(n, prompts, _)| (*n, *prompts) == (n_messages, is_prompt));
        found.map(|(_, _, text)| Cow::Borrowed(text.as_str()))
    }
}

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
    fn write(self, messages: &[Message<'_>], tools: Option<&str>, is_prompt: bool, text: &mut String) -> Option<()> {
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
