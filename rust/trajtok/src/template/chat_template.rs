//! What a chat template is: how a conversation is written as text.

use minijinja::value::Value;

use super::rendering::Rendering;
use super::settings::read_settings;
use super::targets::EmptyThink;
use crate::conversation::Conversation;
use crate::error::{Error, Reason, Rejection};

/// How a conversation is written as text.
pub trait ChatTemplate: Send + Sync {
    /// The name users write.
    fn name(&self) -> &str;

    /// Every control token that [`ChatTemplate::render`] may write.
    fn control_tokens(&self) -> Vec<&str>;

    /// The control tokens by which an assistant's turn ends.
    fn ends(&self) -> Vec<&str>;

    /// How a rendering becomes a row.
    fn row_rule(&self) -> RowRule {
        RowRule::AsRendered
    }

    /// Writes the conversation, and the start of an assistant turn after it where `add_generation_prompt`; targets are noted
    /// where it is not.
    ///
    /// # Errors
    /// [`Error::Rejected`] where the template does not write such a conversation; [`Error::Template`] where it cannot be used.
    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error>;
}

/// How a rendering becomes a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowRule {
    /// Its tokens; a row without a target is refused, one that is too long goes by [`crate::OverLength`].
    AsRendered,
    /// Cut at the right after `max_tokens`, whatever [`crate::OverLength`] says; one that does not end with the control token
    /// `end` gets it as a target where there is room.
    CutAndEnd {
        /// Its index in [`ChatTemplate::control_tokens`].
        end: usize,
    },
}

/// A template that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct TemplateSource<'a> {
    /// One of [`super::registry::TEMPLATES`]; where there is Jinja, what names it in messages.
    pub name: &'a str,
    /// A Hugging Face chat template's text.
    pub jinja: Option<&'a str>,
    /// What else the template sees: a JSON object.
    pub settings: &'a str,
    /// What happens to an empty `<think></think>`.
    pub empty_think: EmptyThink,
    /// Whether a conversation that ends with an assistant's turn is what a served model is given before it and the answer,
    /// where a Jinja template writes another beginning.
    pub as_served: bool,
}

impl<'a> TemplateSource<'a> {
    /// A native template without settings.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self { name, jinja: None, settings: "{}", empty_think: EmptyThink::Mask, as_served: false }
    }

    /// Whether the template is one of [`super::registry::TEMPLATES`].
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.jinja.is_none()
    }

    /// The settings, all of which have to be among `known`.
    pub(crate) fn settings_among(&self, known: &[&str]) -> Result<Vec<(String, Value)>, Error> {
        let settings = read_settings(self.settings)?;
        match settings.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(settings),
            Some((name, _)) => {
                let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let problem = format!("template {} has no setting {name:?}; expected {expected}", self.name);
                Err(Error::TemplateInput { name: "settings", problem })
            }
        }
    }
}

/// Refuses what a template of role and content alone would drop without a word.
///
/// # Errors
/// [`Error::Rejected`] with `not_rendered`.
pub fn refuse_extras(template: &str, conversation: &Conversation<'_>) -> Result<(), Error> {
    let remedy = "take a template that does, such as the model's own";
    if conversation.tools.is_some() {
        return Err(Rejection::error(Reason::NotRendered, format!("template {template} writes no tools; {remedy}")));
    }
    for (turn, message) in conversation.messages.iter().enumerate() {
        if let Some(what) = message.extra() {
            let detail = format!("messages[{turn}] holds {what}, which template {template} does not write; {remedy}");
            return Err(Rejection::error(Reason::NotRendered, detail));
        }
    }
    Ok(())
}
