//! Encoders: text into token ids, with no text ever becoming an added token.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use tokenizers::tokenizer::{
    Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token, normalizer::Range as In,
};
use tokenizers::{AddedToken, ModelWrapper, Tokenizer as HfTokenizer};

use crate::error::Error;
use crate::native::NativeEncoder;
use crate::unknown::{find_unknown, unknown_id};

/// A token's id, as the batch stores it.
pub type TokenId = i32;

/// Token ids and, in parallel, the bytes of the rendered text that each token covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<TokenId>,
    offsets: Vec<Range<usize>>,
}

impl Tokens {
    /// Takes all tokens out and keeps the room.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.offsets.clear();
    }

    /// Adds one token.
    #[inline]
    pub fn push(&mut self, id: TokenId, bytes: Range<usize>) {
        self.ids.push(id);
        self.offsets.push(bytes);
    }

    /// Adds tokens that cover the text from byte `at` on, one after the other, and says where the last one ends.
    #[inline]
    pub(crate) fn push_adjoining(&mut self, ids: &[u32], lengths: &[u16], mut at: usize) -> usize {
        self.ids.extend(ids.iter().map(|id| id.cast_signed()));
        self.offsets.extend(ids.iter().map(|&id| {
            let start = at;
            at += lengths.get(id as usize).map_or(0, |length| usize::from(*length));
            start..at
        }));
        at
    }

    /// Moves all tokens but the first `n` by so many bytes.
    pub(crate) fn shift(&mut self, n: usize, n_bytes: usize) {
        for bytes in &mut self.offsets[n..] {
            *bytes = bytes.start + n_bytes..bytes.end + n_bytes;
        }
    }

    /// Takes out all but the first `n` tokens.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.ids.truncate(n);
        self.offsets.truncate(n);
    }

    /// The ids.
    #[must_use]
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// The ids, owned.
    #[must_use]
    pub fn into_ids(self) -> Vec<TokenId> {
        self.ids
    }

    /// What each token covers, in bytes of the rendered text.
    #[must_use]
    pub fn offsets(&self) -> &[Range<usize>] {
        &self.offsets
    }
}

/// Turns text into ids. An implementation gives Hugging Face's ids or refuses the tokenizer when it is made.
pub trait Encoder: Send + Sync {
    /// The implementation's name, for reports.
    fn name(&self) -> &'static str;

    /// The tokenizer file, for messages.
    fn origin(&self) -> &str;

    /// Appends the tokens of a text that begins at byte `start` of the rendered text. No added token is matched.
    ///
    /// `text` is not empty. Offsets are bytes of the rendered text. Of tokens that hold a part of a character, each covers its
    /// part or the whole character: the mask is the same.
    ///
    /// # Errors
    /// [`Error::Encode`] where the tokenizer has no tokens for the text.
    fn encode_text(&self, text: &str, start: usize, tokens: &mut Tokens) -> Result<(), Error>;

    /// Appends the ids of a text at the start of a conversation, without saying what they cover.
    ///
    /// # Errors
    /// As [`Encoder::encode_text`].
    fn encode_ids(&self, text: &str, ids: &mut Vec<TokenId>) -> Result<(), Error> {
        if text.is_empty() {
            return Ok(());
        }
        let mut tokens = Tokens::default();
        self.encode_text(text, 0, &mut tokens)?;
        ids.extend_from_slice(tokens.ids());
        Ok(())
    }

    /// Why a faster encoder could not be used.
    fn note(&self) -> Option<&str> {
        None
    }

    /// The id of an added token, by its text.
    fn control_id(&self, token: &str) -> Option<TokenId>;

    /// The text of an added token, by its id.
    fn added_token(&self, id: TokenId) -> Option<&str>;

    /// All added tokens, and which of them the file calls special.
    fn added_tokens(&self) -> Vec<(String, bool)>;

    /// The first of these ids, if any, that is an added token's: asked of all that text gives.
    fn find_added(&self, ids: &[TokenId]) -> Option<usize> {
        ids.iter().position(|&id| self.added_token(id).is_some())
    }

    /// The first byte of a text, if any, that no token stands for: Hugging Face leaves it out, or gives an unknown token.
    fn find_lost(&self, _text: &str) -> Option<usize> {
        None
    }

    /// The first bytes of a text at byte `start`, if any, for which its tokens, from the `from`th on, hold the unknown token or none.
    fn find_unknown(&self, _text: &str, _start: usize, _tokens: &Tokens, _from: usize) -> Option<Range<usize>> {
        None
    }

    /// The flag, if any, by which Hugging Face would tokenize the text around this added token unlike the text alone.
    fn unsupported_flag(&self, token: &str) -> Option<&'static str>;
}

/// The fastest encoder that gives Hugging Face's ids for this tokenizer.json: [`NativeEncoder`] where it covers the file
/// and agrees with Hugging Face's on every probe, else [`HfEncoder`], whose note says why.
///
/// # Errors
/// As [`HfEncoder::from_file`].
pub fn load_encoder(path: &Path) -> Result<Box<dyn Encoder>, Error> {
    let origin = path.display().to_string();
    let json = std::fs::read(path)
        .map_err(|error| Error::TokenizerFile { path: origin.clone(), problem: error.to_string() })?;
    let hf = HfEncoder::from_json(&json, origin)?;
    Ok(match NativeEncoder::new(&json, hf) {
        Ok(native) => Box::new(native),
        Err(refused) => {
            let (mut hf, why) = *refused;
            hf.note = Some(why);
            Box::new(hf)
        }
    })
}

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
    note: Option<String>,
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
#[path = "encode_tests.rs"]
mod tests;
