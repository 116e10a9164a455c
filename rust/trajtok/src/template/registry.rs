//! Every template that there is, by name.

use super::chat_template::{ChatTemplate, TemplateSource};
use super::jinja::{JinjaChat, JinjaTemplate};
use super::native::NATIVE;
use crate::encode::Encoder;
use crate::error::Error;

/// The names of the templates that are written natively.
pub static TEMPLATES: &[&str] = &{
    let mut names = [""; NATIVE.len()];
    let mut place = 0;
    while place < NATIVE.len() {
        names[place] = NATIVE[place].0;
        place += 1;
    }
    names
};

/// The template that is asked for, native or Jinja.
///
/// # Errors
/// As [`find_template`] and [`JinjaTemplate::new`].
pub(crate) fn load_template(
    source: &TemplateSource<'_>,
    encoder: &dyn Encoder,
) -> Result<Box<dyn ChatTemplate>, Error> {
    let Some(jinja) = source.jinja else { return find_template(source, encoder) };
    let template = JinjaTemplate::new(jinja, source.name.to_owned())?;
    Ok(Box::new(JinjaChat::new(template, source, encoder.added_tokens())?))
}

/// The native template that is asked for, bound to a tokenizer's added tokens.
///
/// # Errors
/// [`Error::UnknownTemplate`] names the ones that exist; [`Error::TemplateInput`]: settings that it does not know.
pub fn find_template(source: &TemplateSource<'_>, encoder: &dyn Encoder) -> Result<Box<dyn ChatTemplate>, Error> {
    let unknown = || Error::UnknownTemplate { name: source.name.to_owned(), known: TEMPLATES.join(", ") };
    let (_, construct) = NATIVE.iter().find(|(name, _)| *name == source.name).ok_or_else(unknown)?;
    construct(source, encoder)
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
