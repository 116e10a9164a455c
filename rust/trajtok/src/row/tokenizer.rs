//! The pipeline of one row and of a batch: parse, render, encode, mask; refused rows are collected.

use std::ops::Range;

use rayon::prelude::*;

use crate::conversation::{Conversation, Message};
use crate::encode::{Encoder, TokenId, Tokens};
use crate::encode::{check_no_byte_is_lost, check_no_text_is_unknown, no_token};
use crate::error::{Error, Reason, Rejection};
use crate::row::batch::Batch;
use crate::row::mask::{TrainedTokens, mask_tokens};
use crate::row::token_row::{Cut, OverLength, TokenRow};
use crate::template::{ChatTemplate, RowRule, TemplateSource, load_template};
use crate::template::{Rendering, Segment, SegmentKind, Target};

/// A control token that the template may write.
struct Control {
    text: String,
    id: TokenId,
    /// The flag by which Hugging Face would tokenize the text around it unlike we do.
    flag: Option<&'static str>,
}

/// Turns conditioned conversations into token rows, with one tokenizer and one template.
pub struct Tokenizer {
    encoder: Box<dyn Encoder>,
    template: Box<dyn ChatTemplate>,
    controls: Vec<Control>,
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
        Self::with_template(encoder, &TemplateSource::named(template), max_tokens, over_length)
    }

    /// Binds an encoder to any template.
    ///
    /// # Errors
    /// As [`Tokenizer::new`]; [`Error::Template`] and [`Error::TemplateInput`].
    pub fn with_template(
        encoder: Box<dyn Encoder>,
        source: &TemplateSource<'_>,
        max_tokens: i64,
        over_length: OverLength,
    ) -> Result<Self, Error> {
        let template = load_template(source, encoder.as_ref())?;
        let controls = template.control_tokens();
        let controls = controls.iter().map(|token| find_control(encoder.as_ref(), template.name(), token));
        let controls: Vec<Control> = controls.collect::<Result<_, _>>()?;
        // A native template writes all of its control tokens; any other, those that come up.
        if source.is_native()
            && let Some(Control { text, flag: Some(flag), .. }) = controls.iter().find(|control| control.flag.is_some())
        {
            return Err(unsupported_control(encoder.as_ref(), template.name(), text, flag));
        }
        let max_tokens = usize::try_from(max_tokens).ok().filter(|&max| max > 0).ok_or(Error::MaxTokens(max_tokens))?;
        Ok(Self { encoder, template, controls, max_tokens, over_length })
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

    /// The control tokens by which an assistant's turn ends.
    #[must_use]
    pub fn end_of_turn(&self) -> Vec<&str> {
        self.template.ends()
    }

    /// The control tokens that the template may write, and their ids.
    pub fn control_tokens(&self) -> impl Iterator<Item = (&str, TokenId)> {
        self.controls.iter().map(|control| (control.text.as_str(), control.id))
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
    /// [`Error::Rejected`], reasons tried in this order: `invalid_conversation`, `invalid_weight`, `nothing_trained`, those of
    /// the template, `no_token`, `control_token_in_content`, `over_length`. [`Error::Encode`] where the tokenizer cannot go on.
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
        if let RowRule::CutAndEnd { end } = self.template.row_rule() {
            return self.encode_and_end(conversation, tokens, end);
        }
        if !conversation.messages.iter().any(Message::is_trained) {
            return Err(Rejection::error(Reason::NothingTrained, "no message has a weight above 0"));
        }
        let rendering = self.template.render(conversation, false)?;
        if rendering.trained.is_empty() {
            return Err(Rejection::error(
                Reason::NothingTrained,
                "nothing is left of its targets that has a weight above 0",
            ));
        }
        let n_drifted = self.encode_rendering(&rendering, &conversation.messages, tokens)?;
        if tokens.ids().len() > self.max_tokens {
            return match self.over_length {
                OverLength::Drop => Err(self.over_length_error(tokens.ids().len(), "")),
                OverLength::CutAtTurn => self.encode_cut(conversation, &rendering, tokens),
            };
        }
        Self::finish_row(&rendering, tokens, None, n_drifted)
    }

    /// Encodes by [`RowRule::CutAndEnd`].
    fn encode_and_end(
        &self,
        conversation: &Conversation<'_>,
        tokens: &mut Tokens,
        end: usize,
    ) -> Result<TokenRow, Error> {
        let rendering = self.template.render(conversation, false)?;
        let n_drifted = self.encode_rendering(&rendering, &conversation.messages, tokens)?;
        let (n_tokens, n_messages) = (tokens.ids().len(), conversation.messages.len());
        tokens.truncate(self.max_tokens);
        let mut mask = mask_tokens(tokens, &rendering.trained);
        let mut input_ids = tokens.ids().to_vec();
        let end_id = self.controls[end].id;
        if input_ids.last() != Some(&end_id) && input_ids.len() < self.max_tokens {
            input_ids.push(end_id);
            mask.runs.push(TrainedTokens { tokens: input_ids.len() - 1..input_ids.len(), weight: 1.0 });
        }
        if mask.runs.is_empty() {
            return Err(Rejection::error(Reason::NothingTrained, "its targets lie behind the last token that fits"));
        }
        let n_kept = rendering
            .targets
            .iter()
            .filter(|target| tokens.offsets().last().is_some_and(|last| target.bytes.end <= last.end));
        let n_kept = n_kept.map(|target| target.message + 1).next_back().unwrap_or(0);
        let cut = (n_tokens > self.max_tokens).then_some(Cut { n_kept, n_messages, n_tokens });
        Ok(TokenRow { input_ids, mask, cut, n_drifted })
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
        let near = whole.targets.iter().filter(|target| target.bytes.end <= too_far).map(|target| target.message);
        for last in near.rev() {
            let rendering = self.template.render(&conversation.beginning(last + 1), false)?;
            let n_drifted = self.encode_rendering(&rendering, &conversation.messages, tokens)?;
            if tokens.ids().len() <= self.max_tokens && !rendering.trained.is_empty() {
                let cut = Some(Cut { n_kept: last + 1, n_messages, n_tokens });
                return Self::finish_row(&rendering, tokens, cut, n_drifted);
            }
        }
        Err(self.over_length_error(n_tokens, ", and no row that ends with a target fits"))
    }

    fn finish_row(
        rendering: &Rendering,
        tokens: &Tokens,
        cut: Option<Cut>,
        n_drifted: usize,
    ) -> Result<TokenRow, Error> {
        let mask = mask_tokens(tokens, &rendering.trained);
        if mask.runs.is_empty() {
            return Err(Rejection::error(Reason::NothingTrained, "no token covers any trained text"));
        }
        Ok(TokenRow { input_ids: tokens.ids().to_vec(), mask, cut, n_drifted })
    }

    fn over_length_error(&self, n_tokens: usize, remark: &str) -> Error {
        Rejection::error(Reason::OverLength, format!("{n_tokens} tokens, max_tokens is {}{remark}", self.max_tokens))
    }

    /// Writes a conversation by the template.
    ///
    /// # Errors
    /// [`Error::Rejected`] with `invalid_conversation` or `invalid_weight`.
    pub fn render(&self, conversation: &[u8], add_generation_prompt: bool) -> Result<Rendering, Error> {
        self.template.render(&Conversation::parse(conversation)?, add_generation_prompt)
    }

    /// The ids that a served model is given before it answers this conversation. `max_tokens` does not apply.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_row`], without `nothing_trained` and `over_length`.
    pub fn prompt_ids(&self, conversation: &[u8]) -> Result<Vec<TokenId>, Error> {
        let (mut tokens, conversation) = (Tokens::default(), Conversation::parse(conversation)?);
        let rendering = self.template.render(&conversation, true)?;
        self.encode_rendering(&rendering, &conversation.messages, &mut tokens)?;
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

    /// Encodes a rendering; how many turns were given as other ids than the tokenizer makes of them.
    fn encode_rendering(
        &self,
        rendering: &Rendering,
        messages: &[Message<'_>],
        tokens: &mut Tokens,
    ) -> Result<usize, Error> {
        tokens.clear();
        let (mut at, mut n_drifted) = (0, 0);
        for turn in &rendering.given {
            self.encode_stretch(rendering, at..turn.bytes.start, tokens)?;
            n_drifted += usize::from(self.push_given(rendering, turn, &messages[turn.message].token_ids, tokens)?);
            at = turn.bytes.end;
        }
        self.encode_stretch(rendering, at..rendering.text.len(), tokens)?;
        Ok(n_drifted)
    }

    /// Pushes a turn's given ids, and its end token where they lack it. Whether they are other ids than its text's.
    fn push_given(
        &self,
        rendering: &Rendering,
        turn: &Target,
        given: &[TokenId],
        tokens: &mut Tokens,
    ) -> Result<bool, Error> {
        let from = tokens.ids().len();
        self.encode_stretch(rendering, turn.bytes.clone(), tokens)?;
        let mut ids = given.to_vec();
        // Its last token ends the turn: a model that was cut off, or a record without it, lacks it.
        let end = tokens.ids()[from..].last().copied();
        if ids.last().copied() != end {
            ids.extend(end);
        }
        let has_drifted = tokens.ids()[from..] != ids;
        let controls = |ids: &[TokenId]| -> Vec<TokenId> {
            ids.iter().copied().filter(|id| self.encoder.added_token(*id).is_some()).collect()
        };
        if controls(&ids) != controls(&tokens.ids()[from..]) {
            if rendering.targets.iter().all(|target| target.message != turn.message) {
                return Ok(false); // the context is tokenized anew
            }
            let detail =
                format!("messages[{}]: its token_ids hold other control tokens than the template writes", turn.message);
            return Err(Rejection::error(Reason::ControlTokenInContent, detail));
        }
        tokens.truncate(from);
        for id in ids {
            tokens.push(id, turn.bytes.clone());
        }
        Ok(has_drifted)
    }

    /// Encodes a stretch of a rendering: control tokens as they are, text between them.
    fn encode_stretch(&self, rendering: &Rendering, stretch: Range<usize>, tokens: &mut Tokens) -> Result<(), Error> {
        for Segment { kind, bytes } in &rendering.segments {
            let bytes = bytes.start.max(stretch.start)..bytes.end.min(stretch.end);
            if !bytes.is_empty() {
                self.encode_piece(rendering, *kind, bytes, tokens)?;
            }
        }
        Ok(())
    }

    fn encode_piece(
        &self,
        rendering: &Rendering,
        kind: SegmentKind,
        bytes: Range<usize>,
        tokens: &mut Tokens,
    ) -> Result<(), Error> {
        match kind {
            SegmentKind::Control(index) => tokens.push(self.control(index)?, bytes),
            SegmentKind::Text => self.encode_segment(rendering, bytes, tokens)?,
        }
        Ok(())
    }

    /// The text that a served model is given before a message of this conversation.
    ///
    /// # Errors
    /// As [`Tokenizer::render`].
    pub fn render_prompt(&self, conversation: &Conversation<'_>, n_before: usize) -> Result<Rendering, Error> {
        self.template.render(&conversation.beginning(n_before), true)
    }

    /// Appends the ids of one segment of a rendering.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_row`], for what a text can be rejected for.
    pub fn segment_ids(&self, rendering: &Rendering, segment: usize, tokens: &mut Tokens) -> Result<(), Error> {
        let Segment { kind, bytes } = &rendering.segments[segment];
        self.encode_piece(rendering, *kind, bytes.clone(), tokens)
    }

    fn control(&self, index: usize) -> Result<TokenId, Error> {
        match &self.controls[index] {
            Control { id, flag: None, .. } => Ok(*id),
            Control { text, flag: Some(flag), .. } => {
                Err(unsupported_control(self.encoder.as_ref(), self.template.name(), text, flag))
            }
        }
    }

    fn encode_segment(&self, rendering: &Rendering, bytes: Range<usize>, tokens: &mut Tokens) -> Result<(), Error> {
        let (from, text) = (tokens.ids().len(), &rendering.text[bytes.clone()]);
        check_no_byte_is_lost(self.encoder.as_ref(), text, bytes.start)?;
        let is_restart = rendering.restarts.contains(&bytes.start);
        let at = if is_restart { 0 } else { bytes.start };
        self.encoder.encode_text(text, at, tokens).map_err(no_token)?;
        check_no_text_is_unknown(self.encoder.as_ref(), text, at, tokens, from)?;
        if is_restart {
            tokens.shift(from, bytes.start);
        }
        self.check_text_tokens(tokens, from)
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

fn find_control(encoder: &dyn Encoder, template: &str, token: &str) -> Result<Control, Error> {
    let (template, text) = (template.to_owned(), token.to_owned());
    match encoder.control_id(token) {
        Some(id) => Ok(Control { text, id, flag: encoder.unsupported_flag(token) }),
        None => Err(Error::MissingControlToken { template, token: text, path: encoder.origin().to_owned() }),
    }
}

fn unsupported_control(encoder: &dyn Encoder, template: &str, token: &str, flag: &'static str) -> Error {
    let (template, token) = (template.to_owned(), token.to_owned());
    Error::UnsupportedControlToken { template, token, path: encoder.origin().to_owned(), flag }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
