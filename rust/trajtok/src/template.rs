//! Chat templates: how a conversation is written as text.

use minijinja::value::Value;

use crate::chatml::ChatMl;
use crate::conversation::Conversation;
use crate::encode::Encoder;
use crate::error::{Error, Reason, Rejection};
use crate::jinja::{JinjaTemplate, read_settings};
use crate::jinja_chat::JinjaChat;
use crate::llama2::Llama2;
use crate::llama3::Llama3;
use crate::mistral::Mistral;
use crate::nat_exact::NatExact;
use crate::qwen3::Qwen3;
use crate::rendering::Rendering;
use crate::targets::EmptyThink;
use crate::zephyr::Zephyr;

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
    /// One of [`TEMPLATES`]; where there is Jinja, what names it in messages.
    pub name: &'a str,
    /// A Hugging Face chat template's text.
    pub jinja: Option<&'a str>,
    /// What else the template sees: a JSON object.
    pub settings: &'a str,
    /// What happens to an empty `<think></think>`.
    pub empty_think: EmptyThink,
}

impl<'a> TemplateSource<'a> {
    /// A native template without settings.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self { name, jinja: None, settings: "{}", empty_think: EmptyThink::Mask }
    }

    /// Whether the template is one of [`TEMPLATES`].
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

    pub(crate) fn load(&self, encoder: &dyn Encoder) -> Result<Box<dyn ChatTemplate>, Error> {
        let Some(jinja) = self.jinja else { return find_template(self, encoder) };
        let template = JinjaTemplate::new(jinja, self.name.to_owned())?;
        Ok(Box::new(JinjaChat::new(template, self.settings, self.empty_think, encoder.added_tokens())?))
    }
}

/// The names of the templates that are written natively: a new one is a new entry here and in [`find_template`].
pub static TEMPLATES: &[&str] = &["chatml", "llama2", "llama3", "mistral", "nat_exact", "qwen3", "zephyr"];

/// The native template that is asked for, bound to a tokenizer's added tokens.
///
/// # Errors
/// [`Error::UnknownTemplate`] names the ones that exist; [`Error::TemplateInput`]: settings that it does not know.
pub fn find_template(source: &TemplateSource<'_>, encoder: &dyn Encoder) -> Result<Box<dyn ChatTemplate>, Error> {
    let template: Box<dyn ChatTemplate> = match source.name {
        "chatml" => Box::new(ChatMl),
        "llama2" => Box::new(Llama2::new(encoder)),
        "llama3" => Box::new(Llama3::new(encoder)),
        "mistral" => Box::new(Mistral::new(encoder)),
        "nat_exact" => Box::new(NatExact),
        "qwen3" => return Ok(Box::new(Qwen3::new(source, encoder)?)),
        "zephyr" => Box::new(Zephyr::new(encoder)),
        _ => return Err(Error::UnknownTemplate { name: source.name.to_owned(), known: TEMPLATES.join(", ") }),
    };
    source.settings_among(&[])?;
    Ok(template)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::encoder_with;

    fn found(source: &TemplateSource<'_>) -> Result<Box<dyn ChatTemplate>, String> {
        find_template(source, &encoder_with(&[])).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_template_is_answered_with_the_known_ones() {
        let message = found(&TemplateSource::named("chatlm")).err().unwrap();
        assert_eq!(message, format!("template \"chatlm\" is unknown; expected one of: {}", TEMPLATES.join(", ")));
    }

    #[test]
    fn every_name_finds_its_template() {
        for name in TEMPLATES {
            assert_eq!(found(&TemplateSource::named(name)).unwrap().name(), *name);
        }
    }

    #[test]
    fn a_setting_that_a_template_does_not_know_is_named_with_those_that_it_knows() {
        for name in TEMPLATES {
            let source = TemplateSource { settings: r#"{"bos_token":"<s>"}"#, ..TemplateSource::named(name) };
            let known = if *name == "qwen3" { "enable_thinking" } else { "none" };
            let expected = format!("settings: template {name} has no setting \"bos_token\"; expected {known}");
            assert_eq!(found(&source).err(), Some(expected));
        }
    }
}
