//! Chat templates written natively, each with the text of the published one, and the table of their names.

mod alternation;
mod chatml;
mod llama2;
mod llama3;
mod mistral;
mod nat_exact;
mod qwen3;
mod wording;
mod zephyr;

use self::chatml::ChatMl;
use self::llama2::Llama2;
use self::llama3::Llama3;
use self::mistral::Mistral;
use self::nat_exact::NatExact;
use self::qwen3::Qwen3;
use self::zephyr::Zephyr;
use crate::encode::Encoder;
use crate::error::Error;
use crate::template::chat_template::{ChatTemplate, TemplateSource};

/// A template bound to what is asked for and to a tokenizer's added tokens.
pub(super) type Constructor = fn(&TemplateSource<'_>, &dyn Encoder) -> Result<Box<dyn ChatTemplate>, Error>;

/// The native templates by name. A new one is a file beside this and its lines here.
pub(super) const NATIVE: &[(&str, Constructor)] = &[
    (ChatMl::NAME, |source, _| without_settings(source, ChatMl)),
    (Llama2::NAME, |source, encoder| without_settings(source, Llama2::new(encoder))),
    (Llama3::NAME, |source, encoder| without_settings(source, Llama3::new(encoder))),
    (Mistral::NAME, |source, encoder| without_settings(source, Mistral::new(encoder))),
    (NatExact::NAME, |source, _| without_settings(source, NatExact)),
    (Qwen3::NAME, |source, encoder| Ok(Box::new(Qwen3::new(source, encoder)?))),
    (Zephyr::NAME, |source, encoder| without_settings(source, Zephyr::new(encoder))),
];

fn without_settings(
    source: &TemplateSource<'_>,
    template: impl ChatTemplate + 'static,
) -> Result<Box<dyn ChatTemplate>, Error> {
    source.settings_among(&[])?;
    Ok(Box::new(template))
}
