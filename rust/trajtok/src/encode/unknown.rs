//! Text that a vocabulary has no token for: Hugging Face gives its unknown token there, or leaves the text out.

use std::ops::Range;

use serde::Deserialize;
use tokenizers::{ModelWrapper, Tokenizer as HfTokenizer};

use crate::encode::encoder::Encoder;
use crate::encode::tokens::{TokenId, Tokens};
use crate::error::{Error, Reason, Rejection};

#[derive(Deserialize)]
struct File {
    model: Unigram,
}

#[derive(Deserialize)]
struct Unigram {
    unk_id: Option<TokenId>,
}

/// The id that a model gives for what it has no token for.
pub fn unknown_id(tokenizer: &HfTokenizer, json: &[u8]) -> Option<TokenId> {
    let token = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::Unigram(_) => return serde_json::from_slice::<File>(json).ok()?.model.unk_id,
    };
    token.and_then(|token| tokenizer.token_to_id(&token)).and_then(|id| TokenId::try_from(id).ok())
}

/// The first bytes of a text at byte `start` that the unknown token stands for, or no token at all; white space may be left out.
pub fn find_unknown(
    text: &str,
    start: usize,
    tokens: &Tokens,
    from: usize,
    unknown: Option<TokenId>,
) -> Option<Range<usize>> {
    let mut at = 0;
    for (id, bytes) in tokens.ids().iter().zip(tokens.offsets()).skip(from) {
        let bytes = bytes.start.saturating_sub(start).min(text.len())..bytes.end.saturating_sub(start).min(text.len());
        if Some(*id) == unknown {
            return Some(bytes);
        }
        if is_text(text, at..bytes.start) {
            return Some(at..bytes.start);
        }
        at = at.max(bytes.end);
    }
    is_text(text, at..text.len()).then_some(at..text.len())
}

fn is_text(text: &str, bytes: Range<usize>) -> bool {
    text.get(bytes).is_some_and(|left_out| !left_out.trim().is_empty())
}

/// Checks that tokens stand for every byte of a text, before it is encoded.
///
/// # Errors
/// [`Error::Rejected`] with `no_token`.
pub fn check_no_byte_is_lost(encoder: &dyn Encoder, text: &str, start: usize) -> Result<(), Error> {
    let Some(at) = encoder.find_lost(text) else { return Ok(()) };
    let detail = format!(
        "no token stands for the byte 0x{:02x} at byte {} of the rendered conversation: it would be lost",
        text.as_bytes()[at],
        start + at,
    );
    Err(Rejection::error(Reason::NoToken, detail))
}

/// Checks the same of a text's tokens, from the `from`th on. A token that the text names itself is no unknown one.
///
/// # Errors
/// [`Error::Rejected`] with `no_token`.
pub fn check_no_text_is_unknown(
    encoder: &dyn Encoder,
    text: &str,
    start: usize,
    tokens: &Tokens,
    from: usize,
) -> Result<(), Error> {
    let Some(bytes) = encoder.find_unknown(text, start, tokens, from) else { return Ok(()) };
    let lost = text.get(bytes).unwrap_or(text);
    if encoder.control_id(lost).is_some() {
        return Ok(());
    }
    Err(Rejection::error(Reason::NoToken, format!("the vocabulary has no token for {lost:?}: it would be lost")))
}

/// A vocabulary without an unknown token refuses a text that it has none for: the row's fault, not the batch's.
///
/// `tokenizers` says so in words alone: "Missing [UNK] token", "Encountered an unknown token but `unk_id` is missing".
pub fn no_token(error: Error) -> Error {
    let said = error.to_string();
    match error {
        Error::Encode { .. } if said.contains("UNK") || said.contains("unk_id") => {
            Rejection::error(Reason::NoToken, said)
        }
        other => other,
    }
}
