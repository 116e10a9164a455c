//! The proof of a row: one walk over its tokens, from target to target.

use crate::conversation::{Conversation, Message};
use crate::python_text::{is_space, strip};
use crate::reader::Reader;
use crate::render::Texts;
use crate::served::{Prompt, Served};
use crate::texts::{OwnTexts, empty_think, may_be_foreign};

/// Trained tokens, half open, and their weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// The first token.
    pub start: usize,
    /// The token behind the last.
    pub end: usize,
    /// The loss weight.
    pub weight: f32,
}

/// A token row as it would be published.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Its tokens.
    pub ids: &'a [u32],
    /// Those that are trained.
    pub spans: &'a [Span],
    /// How many tokens it says it has.
    pub n_tokens: usize,
    /// How many of them it says are trained.
    pub n_trained: usize,
}

/// Proves rows of one tokenizer.
#[derive(Debug)]
pub struct Proof {
    reader: Reader,
    /// Whether an empty `<think></think>` before an answer without reasoning is context.
    masks_empty_think: bool,
}

/// A trained turn of a row.
struct Target {
    message: usize,
    /// Bytes of its prompt, with which the row's text begins.
    prompt_bytes: usize,
    /// The row's token behind the prompt.
    start: usize,
}

impl Proof {
    /// Proves what this reader can read.
    #[must_use]
    pub fn new(reader: Reader, masks_empty_think: bool) -> Self {
        Self { reader, masks_empty_think }
    }

    /// How many turns of the row are trained, once all are proved; `None` where it does not vouch for the row.
    ///
    /// `n_kept` is how many messages a row has that lacks the end of its conversation; `texts` and `served` are of this
    /// conversation.
    #[must_use]
    pub fn prove(
        &self,
        row: Row<'_>,
        conversation: &Conversation<'_>,
        n_kept: usize,
        texts: &dyn Texts,
        served: &mut dyn Served,
    ) -> Option<usize> {
        let messages = conversation.messages.get(..n_kept)?;
        let n_trained: usize = row.spans.iter().map(|span| span.end.saturating_sub(span.start)).sum();
        if (row.n_tokens, row.n_trained) != (row.ids.len(), n_trained) || messages.iter().any(Message::is_beyond) {
            return None;
        }
        let whole = texts.text(n_kept, false)?;
        let walk = Walk { proof: self, ids: row.ids, messages, whole: &whole, texts };
        let targets = walk.find_targets(served)?;
        let first = targets.first()?.start;
        if row.spans.iter().any(|span| span.start < first || span.end > row.ids.len()) {
            return None;
        }
        let (mut at_token, mut at_byte) = (0, 0);
        let mut spans = row.spans;
        for (index, target) in targets.iter().enumerate() {
            let following = targets.get(index + 1).map_or(row.ids.len(), |next| next.start);
            let (span, rest) = spans.split_first()?;
            spans = rest;
            let is_alone = (target.start..following).contains(&span.start)
                && rest.first().is_none_or(|next| next.start >= following);
            let context = (row.ids.get(at_token..target.start)?, whole.get(at_byte..target.prompt_bytes)?);
            if !is_alone || !self.reader.reads(context.0, context.1) {
                return None;
            }
            (at_token, at_byte) = walk.prove_target(*span, target)?;
        }
        let is_read = spans.is_empty() && self.reader.reads(row.ids.get(at_token..)?, whole.get(at_byte..)?);
        is_read.then_some(targets.len())
    }

    /// Whether the tokens before the trained ones are the empty think, or its beginning with only white space missing: a token
    /// that lies on both sides of the border is trained.
    fn is_think(&self, ids: &[u32], think: &str) -> bool {
        if !think.is_empty() && !self.reader.is_exact() {
            return false;
        }
        let n_blank = think.len() - think.trim_end_matches(is_space).len();
        (ids.is_empty() && strip(think).is_empty())
            || (0..=n_blank)
                .filter_map(|n| think.get(..think.len() - n))
                .any(|beginning| !beginning.is_empty() && self.reader.reads(ids, beginning))
    }
}

/// One row and its conversation.
struct Walk<'a> {
    proof: &'a Proof,
    ids: &'a [u32],
    messages: &'a [Message<'a>],
    whole: &'a str,
    texts: &'a dyn Texts,
}

impl Walk<'_> {
    /// Where every trained turn starts: behind the text and the tokens that a served model is given there.
    ///
    /// A prompt's pieces that an earlier prompt has, too, were compared with the row there.
    fn find_targets(&self, served: &mut dyn Served) -> Option<Vec<Target>> {
        let mut targets = Vec::new();
        let mut before = Prompt { text: String::new(), pieces: Vec::new() };
        let mut ends: Vec<usize> = Vec::new(); // by piece of the prompt before: the row's token behind it
        let mut piece_ids = Vec::new();
        for (message, _) in self.messages.iter().enumerate().filter(|(_, message)| message.weight > 0.0) {
            let prompt = served.prompt(message)?;
            if self.texts.text(message, true)? != prompt.text || !self.whole.starts_with(&prompt.text) {
                return None;
            }
            // Both prompts begin the same whole, so that pieces at one place are one text.
            let n_equal = prompt.pieces.iter().zip(&before.pieces).take_while(|(piece, other)| piece == other).count();
            ends.truncate(n_equal);
            let mut at_byte = ends.len().checked_sub(1).map_or(0, |last| prompt.pieces[last].bytes.end);
            for (index, piece) in prompt.pieces.iter().enumerate().skip(n_equal) {
                let start = ends.last().copied().unwrap_or(0);
                piece_ids.clear();
                served.piece_ids(index, &mut piece_ids)?;
                if piece.bytes.start != at_byte || !self.ids.get(start..)?.starts_with(&piece_ids) {
                    return None;
                }
                at_byte = piece.bytes.end;
                ends.push(start + piece_ids.len());
            }
            if at_byte != prompt.text.len() {
                return None;
            }
            targets.push(Target { message, prompt_bytes: prompt.text.len(), start: ends.last().copied().unwrap_or(0) });
            before = prompt;
        }
        Some(targets)
    }

    /// Where the turn ends, in tokens and in bytes of the whole.
    fn prove_target(&self, span: Span, target: &Target) -> Option<(usize, usize)> {
        let (ids, reader, end) = (self.ids, &self.proof.reader, span.end);
        let message = &self.messages[target.message];
        let (prompt, own) = (self.whole.get(..target.prompt_bytes)?, OwnTexts::of(message)?);
        let end_token = reader.added(*ids.get(end.checked_sub(1)?)?)?;
        let alone = self.texts.text(target.message + 1, false)?;
        let stop = alone.rfind(end_token)? + end_token.len();
        let text = alone.get(prompt.len()..stop)?;
        let is_alike = alone.starts_with(prompt) && self.whole.starts_with(alone.get(..stop)?);
        let is_all = strip(&alone[stop..]).is_empty() && own.are_in(text);
        if !is_alike || !is_all || may_be_foreign(text, &self.messages[..target.message], &own) {
            return None;
        }
        let masks = self.proof.masks_empty_think && message.reasoning.is_none();
        let think = if masks { empty_think(prompt, text) } else { "" };
        let is_whole = reader.reads(ids.get(target.start..end)?, text);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::float_cmp,
            reason = "the batch's column holds this very value"
        )]
        let is_weighted = span.weight == message.weight as f32;
        let is_think = self.proof.is_think(ids.get(target.start..span.start)?, think);
        (is_whole && is_weighted && is_think).then_some((end, stop))
    }
}
