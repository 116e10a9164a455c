//! What turns text into token ids, with no text ever becoming an added token.

use std::ops::Range;

use super::tokens::{TokenId, Tokens};
use crate::error::Error;

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
