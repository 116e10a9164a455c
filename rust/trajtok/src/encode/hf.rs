//! Hugging Face's `tokenizers` as an encoder.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use tokenizers::tokenizer::{
    Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token, normalizer::Range as In,
};
use tokenizers::{AddedToken, ModelWrapper, Tokenizer as HfTokenizer};

use super::encoder::Encoder;
use super::tokens::{TokenId, Tokens};
use super::unknown::{find_unknown, unknown_id};
use crate::error::Error;

/// The `tokenizers` crate, run past its added vocabulary.
///
/// It takes Hugging Face's own steps (normalizer, pre-tokenizer, model) and leaves out the ones that look for added
/// tokens, truncate, pad or post-process. So added tokens can be matched by no text, whichever their flags.
pub struct HfEncoder {
    tokenizer: HfTokenizer,
    added: HashMap<TokenId, AddedToken>,
    ids: HashMap<String, TokenId>,
    /// Whether the id of each place is an added token's.
    is_added: Vec<bool>,
    /// What the model gives where it has no token.
    unknown: Option<TokenId>,
    origin: String,
    /// Why a faster encoder could not be used.
    pub(super) note: Option<String>,
}

impl HfEncoder {
    /// Reads a tokenizer.json.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`] where it is missing or malformed; [`Error::UnsupportedTokenizer`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let json = std::fs::read(path)
            .map_err(|error| Error::TokenizerFile { path: origin.clone(), problem: error.to_string() })?;
        Self::from_json(&json, origin)
    }

    /// Reads the bytes of a tokenizer.json; `origin` names them in messages.
    ///
    /// # Errors
    /// As [`HfEncoder::from_file`].
    pub fn from_json(json: &[u8], origin: String) -> Result<Self, Error> {
        let tokenizer = HfTokenizer::from_bytes(json)
            .map_err(|error| Error::TokenizerFile { path: origin.clone(), problem: error.to_string() })?;
        // The ids that Hugging Face gives: where a file's `added_tokens` disagree with its model, the model's hold.
        let mut added = HashMap::new();
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            added.insert(token_id(id, &origin)?, token);
        }
        let ids = added.iter().map(|(id, token)| (token.content.clone(), *id)).collect();
        let mut is_added = vec![false; added.keys().filter_map(|id| usize::try_from(id + 1).ok()).max().unwrap_or(0)];
        for id in added.keys().filter_map(|id| usize::try_from(*id).ok()) {
            is_added[id] = true;
        }
        let unknown = unknown_id(&tokenizer, json);
        let encoder = Self { tokenizer, added, ids, is_added, unknown, origin, note: None };
        encoder.check_supported()?;
        Ok(encoder)
    }

    fn check_supported(&self) -> Result<(), Error> {
        let unsupported = |problem, remedy| Error::UnsupportedTokenizer { path: self.origin.clone(), problem, remedy };
        if let ModelWrapper::BPE(bpe) = self.tokenizer.get_model()
            && let Some(dropout) = bpe.dropout
            && dropout > 0.0
        {
            let remedy = "Set model.dropout to null: with dropout the ids are random";
            return Err(unsupported(format!("model.dropout is {dropout}"), remedy));
        }
        // Ordinary text holds these (GPT-NeoX's runs of spaces): without matching, its ids would not be the model's.
        let is_blank = |text: &str| text.chars().all(|char| char.is_whitespace() || char == '▁');
        if let Some((id, token)) = self.added.iter().filter(|(_, t)| is_blank(&t.content)).min_by_key(|(id, _)| **id) {
            let remedy = "Such tokens are part of ordinary text and are not supported yet; choose another tokenizer";
            return Err(unsupported(format!("the added token {:?} (id {id}) is white space", token.content), remedy));
        }
        Ok(())
    }

    /// Hugging Face's steps for one stretch between added tokens.
    fn pre_tokenize(&self, text: &str, is_first: bool) -> tokenizers::Result<PreTokenizedString> {
        let mut stretches = if is_first { PreTokenizedString::from(text) } else { hide_first_byte(text)? };
        if let Some(normalizer) = self.tokenizer.get_normalizer() {
            stretches.normalize(|stretch| normalizer.normalize(stretch))?;
        }
        if let Some(pre_tokenizer) = self.tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut stretches)?;
        }
        self.tokenizer.get_model().tokenize_in_pretokenized(&mut stretches, None)?;
        Ok(stretches)
    }
}

/// The text behind one byte that yields no token: pre-tokenizers that treat the start of a conversation apart
/// (Metaspace, `prepend_scheme` first) see that this is not one.
fn hide_first_byte(text: &str) -> tokenizers::Result<PreTokenizedString> {
    let mut stretches = PreTokenizedString::from(format!("\0{text}"));
    stretches.split(|_, whole| {
        let hidden = whole.slice(In::Original(..1)).ok_or("the first byte cannot be cut off")?;
        let shown = whole.slice(In::Original(1..)).ok_or("the text cannot be cut off")?;
        Ok::<[(NormalizedString, Option<Vec<Token>>); 2], tokenizers::Error>([(hidden, Some(vec![])), (shown, None)])
    })?;
    Ok(stretches)
}

fn token_id(id: u32, origin: &str) -> Result<TokenId, Error> {
    TokenId::try_from(id).map_err(|_| Error::UnsupportedTokenizer {
        path: origin.to_owned(),
        problem: format!("token id {id} does not fit 32 signed bits"),
        remedy: "Choose another tokenizer",
    })
}

impl Encoder for HfEncoder {
    fn name(&self) -> &'static str {
        "tokenizers"
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    fn encode_text(&self, text: &str, start: usize, tokens: &mut Tokens) -> Result<(), Error> {
        let is_first = start == 0;
        let encoding = self
            .pre_tokenize(text, is_first)
            .and_then(|stretches| stretches.into_encoding(None, 0, OffsetType::Byte))
            .map_err(|error| Error::Encode {
                path: self.origin.clone(),
                start,
                n_bytes: text.len(),
                problem: error.to_string(),
            })?;
        let n_hidden = usize::from(!is_first);
        // A token that a normalizer made from nothing may carry no place in the text: it is kept inside of it.
        let place = |byte: usize| start + byte.saturating_sub(n_hidden).min(text.len());
        for (&id, &(first, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            tokens.push(token_id(id, &self.origin)?, place(first)..place(end));
        }
        Ok(())
    }

    fn control_id(&self, token: &str) -> Option<TokenId> {
        self.ids.get(token).copied()
    }

    fn added_token(&self, id: TokenId) -> Option<&str> {
        self.added.get(&id).map(|token| token.content.as_str())
    }

    fn added_tokens(&self) -> Vec<(String, bool)> {
        let mut ids: Vec<TokenId> = self.added.keys().copied().collect();
        ids.sort_unstable();
        ids.iter().map(|id| &self.added[id]).map(|token| (token.content.clone(), token.special)).collect()
    }

    fn find_added(&self, ids: &[TokenId]) -> Option<usize> {
        let is_added = |id: &TokenId| usize::try_from(*id).is_ok_and(|id| self.is_added.get(id).is_some_and(|is| *is));
        ids.iter().position(is_added)
    }

    fn find_unknown(&self, text: &str, start: usize, tokens: &Tokens, from: usize) -> Option<Range<usize>> {
        find_unknown(text, start, tokens, from, self.unknown)
    }

    fn unsupported_flag(&self, token: &str) -> Option<&'static str> {
        let token = self.added.get(self.ids.get(token)?)?;
        match token {
            AddedToken { lstrip: true, .. } => Some("lstrip"),
            AddedToken { rstrip: true, .. } => Some("rstrip"),
            AddedToken { single_word: true, .. } => Some("single_word"),
            // Hugging Face normalizes the text together with such a token, before it cuts the token out.
            AddedToken { normalized: true, .. } if self.tokenizer.get_normalizer().is_some() => Some("normalized"),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "hf_tests.rs"]
mod tests;
