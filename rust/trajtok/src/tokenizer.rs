//! The pipeline of one row and of a batch: parse, render, encode, mask; refused rows are collected.

use rayon::prelude::*;

use crate::batch::Batch;
use crate::conversation::Conversation;
use crate::encode::{Encoder, TokenId, Tokens};
use crate::error::{Error, Reason, Rejection};
use crate::mask::{LossMask, mask_tokens};
use crate::template::{ChatTemplate, Rendering, SegmentKind, find_template};

/// What happens to a row with more than `max_tokens` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLength {
    /// It is rejected.
    Drop,
    /// It ends with the last target that fits; without one it is rejected.
    CutAtTurn,
}

impl OverLength {
    /// The rule of this name.
    ///
    /// # Errors
    /// [`Error::UnknownOverLength`].
    pub fn parse(name: &str) -> Result<Self, Error> {
        match name {
            "drop" => Ok(Self::Drop),
            "cut_at_turn" => Ok(Self::CutAtTurn),
            _ => Err(Error::UnknownOverLength(name.to_owned())),
        }
    }
}

/// One row: its ids and which of them are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRow {
    /// The token ids of the rendered conversation, or of its beginning if it was cut.
    pub input_ids: Vec<TokenId>,
    /// The trained runs.
    pub mask: LossMask,
    /// What was left out of a conversation that is too long.
    pub cut: Option<Cut>,
}

/// How a conversation was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// How many of its messages the row has, from the first on; the last one is a target.
    pub n_kept: usize,
    /// How many messages it has.
    pub n_messages: usize,
    /// How many tokens all of them would have.
    pub n_tokens: usize,
}

/// Turns conditioned conversations into token rows, with one tokenizer and one template.
pub struct Tokenizer {
    encoder: Box<dyn Encoder>,
    template: &'static dyn ChatTemplate,
    control_ids: Vec<TokenId>,
    max_tokens: usize,
    over_length: OverLength,
}

impl Tokenizer {
    /// The most tokens that a row may have.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Binds an encoder to a template; `max_tokens` bounds a row.
    ///
    /// # Errors
    /// [`Error::UnknownTemplate`], [`Error::MissingControlToken`], [`Error::UnsupportedControlToken`],
    /// [`Error::MaxTokens`].
    pub fn new(
        encoder: Box<dyn Encoder>,
        template: &str,
        max_tokens: i64,
        over_length: OverLength,
    ) -> Result<Self, Error> {
        let template = find_template(template)?;
        let control_ids = template
            .control_tokens()
            .iter()
            .map(|token| find_control(encoder.as_ref(), template.name(), token))
            .collect::<Result<_, _>>()?;
        let max_tokens = usize::try_from(max_tokens).ok().filter(|&max| max > 0).ok_or(Error::MaxTokens(max_tokens))?;
        Ok(Self { encoder, template, control_ids, max_tokens, over_length })
    }

    /// The name of the encoder that runs.
    #[must_use]
    pub fn encoder(&self) -> &'static str {
        self.encoder.name()
    }

    /// Why a faster encoder could not be used, if one could not.
    #[must_use]
    pub fn encoder_note(&self) -> Option<&str> {
        self.encoder.note()
    }

    /// The template's control tokens and their ids.
    pub fn control_tokens(&self) -> impl Iterator<Item = (&'static str, TokenId)> {
        self.template.control_tokens().iter().copied().zip(self.control_ids.iter().copied())
    }

    /// Tokenizes rows in parallel. Every row is in the batch or among its rejected, both in input order.
    ///
    /// # Errors
    /// What concerns more than one row: [`Error::UnequalLengths`], [`Error::Encode`], [`Error::BatchTooLarge`].
    pub fn encode<K, C>(&self, keys: &[K], conversations: &[C]) -> Result<Batch, Error>
    where
        K: AsRef<str>,
        C: AsRef<[u8]> + Sync,
    {
        if keys.len() != conversations.len() {
            return Err(Error::UnequalLengths { n_keys: keys.len(), n_conversations: conversations.len() });
        }
        let rows: Vec<Result<TokenRow, Error>> = conversations
            .par_iter()
            .map_init(Tokens::default, |tokens, conversation| self.encode_into(conversation.as_ref(), tokens))
            .collect();
        Batch::collect(keys, rows)
    }

    /// Tokenizes one conditioned conversation, given as JSON text.
    ///
    /// # Errors
    /// [`Error::Rejected`], reasons tried in this order: `invalid_conversation`, `invalid_weight`, `nothing_trained`,
    /// `no_token`, `control_token_in_content`, `over_length`. [`Error::Encode`] where the tokenizer cannot go on.
    pub fn encode_row(&self, conversation: &[u8]) -> Result<TokenRow, Error> {
        self.encode_into(conversation, &mut Tokens::default())
    }

    fn encode_into(&self, conversation: &[u8], tokens: &mut Tokens) -> Result<TokenRow, Error> {
        self.encode_conversation(&Conversation::parse(conversation)?, tokens)
    }

    /// Tokenizes one conditioned conversation; `tokens` lends its room.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_row`], whose first two reasons cannot come up.
    pub fn encode_conversation(&self, conversation: &Conversation<'_>, tokens: &mut Tokens) -> Result<TokenRow, Error> {
        let rendering = self.template.render(conversation, false);
        if rendering.trained.is_empty() {
            return Err(Rejection::error(Reason::NothingTrained, "no message has a weight above 0"));
        }
        self.encode_rendering(&rendering, tokens)?;
        if tokens.ids().len() > self.max_tokens {
            return match self.over_length {
                OverLength::Drop => Err(self.over_length_error(tokens.ids().len(), "")),
                OverLength::CutAtTurn => self.encode_cut(conversation, &rendering, tokens),
            };
        }
        Self::finish_row(&rendering, tokens, None)
    }

    /// Encodes the longest beginning that ends with a target and has at most `max_tokens` tokens.
    ///
    /// It is rendered anew, so that the row is what this shorter conversation gives.
    fn encode_cut(
        &self,
        conversation: &Conversation<'_>,
        whole: &Rendering,
        tokens: &mut Tokens,
    ) -> Result<TokenRow, Error> {
        let (n_messages, n_tokens) = (conversation.messages.len(), tokens.ids().len());
        // No target that ends behind this byte fits: control tokens keep what is before them apart from what follows, so
        // the shorter conversation has the same tokens up to its last control token.
        let too_far = tokens.offsets()[self.max_tokens].end;
        let targets =
            (0..).zip(&conversation.messages).filter(|(_, message)| message.is_trained()).map(|(index, _)| index);
        let near: Vec<usize> =
            targets.zip(&whole.trained).filter(|(_, span)| span.bytes.end <= too_far).map(|(index, _)| index).collect();
        for &last in near.iter().rev() {
            let shorter = Conversation { messages: conversation.messages[..=last].to_vec() };
            let rendering = self.template.render(&shorter, false);
            self.encode_rendering(&rendering, tokens)?;
            if tokens.ids().len() <= self.max_tokens {
                return Self::finish_row(&rendering, tokens, Some(Cut { n_kept: last + 1, n_messages, n_tokens }));
            }
        }
        Err(self.over_length_error(n_tokens, ", and no row that ends with a target fits"))
    }

    fn finish_row(rendering: &Rendering, tokens: &Tokens, cut: Option<Cut>) -> Result<TokenRow, Error> {
        let mask = mask_tokens(tokens, &rendering.trained);
        if mask.runs.is_empty() {
            return Err(Rejection::error(Reason::NothingTrained, "no token covers any trained text"));
        }
        Ok(TokenRow { input_ids: tokens.ids().to_vec(), mask, cut })
    }

    fn over_length_error(&self, n_tokens: usize, remark: &str) -> Error {
        Rejection::error(Reason::OverLength, format!("{n_tokens} tokens, max_tokens is {}{remark}", self.max_tokens))
    }

    /// Writes a conversation by the template.
    ///
    /// # Errors
    /// [`Error::Rejected`] with `invalid_conversation` or `invalid_weight`.
    pub fn render(&self, conversation: &[u8], add_generation_prompt: bool) -> Result<Rendering, Error> {
        Ok(self.template.render(&Conversation::parse(conversation)?, add_generation_prompt))
    }

    /// The ids that a served model is given before it answers this conversation. `max_tokens` does not apply.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_row`], without `nothing_trained` and `over_length`.
    pub fn prompt_ids(&self, conversation: &[u8]) -> Result<Vec<TokenId>, Error> {
        let mut tokens = Tokens::default();
        self.encode_rendering(&self.render(conversation, true)?, &mut tokens)?;
        Ok(tokens.into_ids())
    }

    /// The ids of ordinary text as it stands at the start of a conversation: whatever it says, no added token is matched.
    ///
    /// # Errors
    /// [`Error::Encode`] where the tokenizer has no tokens for the text; [`Error::Rejected`] where its own vocabulary holds
    /// an added token that the text becomes.
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let mut ids = Vec::new();
        self.encoder.encode_ids(text, &mut ids)?;
        if let Some(id) = self.encoder.find_added(&ids).map(|at| ids[at]) {
            let token = self.encoder.added_token(id).unwrap_or_default();
            return Err(Rejection::error(Reason::ControlTokenInContent, format!("text becomes {token:?} (id {id})")));
        }
        Ok(ids)
    }

    fn encode_rendering(&self, rendering: &Rendering, tokens: &mut Tokens) -> Result<(), Error> {
        tokens.clear();
        for segment in &rendering.segments {
            match segment.kind {
                SegmentKind::Control(index) => tokens.push(self.control_ids[index], segment.bytes.clone()),
                SegmentKind::Text => {
                    let from = tokens.ids().len();
                    let text = &rendering.text[segment.bytes.clone()];
                    self.check_no_byte_is_lost(text, segment.bytes.start)?;
                    self.encoder.encode_text(text, segment.bytes.start, tokens)?;
                    self.check_text_tokens(tokens, from)?;
                }
            }
        }
        Ok(())
    }

    fn check_no_byte_is_lost(&self, text: &str, start: usize) -> Result<(), Error> {
        let Some(at) = self.encoder.find_lost(text) else { return Ok(()) };
        let detail = format!(
            "no token stands for the byte 0x{:02x} at byte {} of the rendered conversation: it would be lost",
            text.as_bytes()[at],
            start + at,
        );
        Err(Rejection::error(Reason::NoToken, detail))
    }

    /// Text may still become an added token where the model's own vocabulary holds it (Unigram, `ignore_merges`).
    fn check_text_tokens(&self, tokens: &Tokens, from: usize) -> Result<(), Error> {
        let Some(at) = self.encoder.find_added(&tokens.ids()[from..]).map(|index| from + index) else { return Ok(()) };
        let (id, bytes) = (tokens.ids()[at], &tokens.offsets()[at]);
        let detail = format!(
            "the text at bytes {} to {} of the rendered conversation becomes the added token {:?} (id {id})",
            bytes.start,
            bytes.end,
            self.encoder.added_token(id).unwrap_or_default(),
        );
        Err(Rejection::error(Reason::ControlTokenInContent, detail))
    }
}

fn find_control(encoder: &dyn Encoder, template: &'static str, token: &'static str) -> Result<TokenId, Error> {
    let path = || encoder.origin().to_owned();
    let id = encoder.control_id(token).ok_or_else(|| Error::MissingControlToken { template, token, path: path() })?;
    match encoder.unsupported_flag(token) {
        Some(flag) => Err(Error::UnsupportedControlToken { template, token, path: path(), flag }),
        None => Ok(id),
    }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
