//! The proof of a row: one walk over its tokens, from target to target.

use crate::conversation::{Conversation, Message};
use crate::python_text::{is_space, strip};
use crate::reader::Reader;
use crate::render::Template;
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

/// Proves rows of one tokenizer and template.
#[derive(Debug)]
pub struct Proof {
    reader: Reader,
    template: Template,
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
    /// Binds a reader to a template.
    #[must_use]
    pub fn new(reader: Reader, template: Template, masks_empty_think: bool) -> Self {
        Self { reader, template, masks_empty_think }
    }

    /// How many turns of the row are trained, once all are proved; `None` where it does not vouch for the row.
    ///
    /// `n_kept` is how many messages a row has that lacks the end of its conversation.
    #[must_use]
    pub fn prove(
        &self,
        row: Row<'_>,
        conversation: &Conversation<'_>,
        n_kept: usize,
        served: &mut dyn Served,
    ) -> Option<usize> {
        let messages = conversation.messages.get(..n_kept)?;
        let n_trained: usize = row.spans.iter().map(|span| span.end.saturating_sub(span.start)).sum();
        if (row.n_tokens, row.n_trained) != (row.ids.len(), n_trained) || messages.iter().any(Message::is_beyond) {
            return None;
        }
        let tools = conversation.tools.as_deref();
        let whole = self.render(messages, tools, false)?;
        let targets = self.find_targets(row.ids, messages, tools, &whole, served)?;
        let first = targets.first()?.start;
        let (mut at_token, mut at_byte) = (0, 0);
        let mut spans = row.spans;
        if spans.iter().any(|span| span.start < first || span.end > row.ids.len()) {
            return None;
        }
        for (index, target) in targets.iter().enumerate() {
            let following = targets.get(index + 1).map_or(row.ids.len(), |next| next.start);
            let (span, rest) = spans.split_first()?;
            spans = rest;
            if !(target.start <= span.start && span.start < following)
                || rest.first().is_some_and(|next| next.start < following)
                || !self.reader.reads(row.ids.get(at_token..target.start)?, whole.get(at_byte..target.prompt_bytes)?)
            {
                return None;
            }
            (at_token, at_byte) = self.prove_target(row.ids, *span, target, messages, tools, &whole)?;
        }
        let is_read = spans.is_empty() && self.reader.reads(row.ids.get(at_token..)?, whole.get(at_byte..)?);
        is_read.then_some(targets.len())
    }

    fn render(&self, messages: &[Message<'_>], tools: Option<&str>, is_prompt: bool) -> Option<String> {
        let n_bytes: usize = messages.iter().map(|message| message.content.len() + 64).sum();
        let mut text = String::with_capacity(n_bytes + 256);
        self.template.write(messages, tools, is_prompt, &mut text)?;
        Some(text)
    }

    /// Where every trained turn starts: behind the text and the tokens that a served model is given there.
    ///
    /// A prompt's pieces that an earlier prompt has, too, were compared with the row there.
    fn find_targets(
        &self,
        ids: &[u32],
        messages: &[Message<'_>],
        tools: Option<&str>,
        whole: &str,
        served: &mut dyn Served,
    ) -> Option<Vec<Target>> {
        let mut targets = Vec::new();
        let mut before = Prompt { text: String::new(), pieces: Vec::new() };
        let mut ends: Vec<usize> = Vec::new(); // by piece of the prompt before: the row's token behind it
        let mut piece_ids = Vec::new();
        for (message, _) in messages.iter().enumerate().filter(|(_, message)| message.weight > 0.0) {
            let prompt = served.prompt(message)?;
            if self.render(&messages[..message], tools, true)? != prompt.text || !whole.starts_with(&prompt.text) {
                return None;
            }
            let n_equal = prompt.pieces.iter().zip(&before.pieces).take_while(|(piece, other)| piece == other).count();
            ends.truncate(n_equal);
            let mut at_byte = ends.len().checked_sub(1).map_or(0, |last| prompt.pieces[last].bytes.end);
            for (index, piece) in prompt.pieces.iter().enumerate().skip(n_equal) {
                let start = ends.last().copied().unwrap_or(0);
                piece_ids.clear();
                served.piece_ids(index, &mut piece_ids)?;
                if piece.bytes.start != at_byte || !ids.get(start..)?.starts_with(&piece_ids) {
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
    fn prove_target(
        &self,
        ids: &[u32],
        span: Span,
        target: &Target,
        messages: &[Message<'_>],
        tools: Option<&str>,
        whole: &str,
    ) -> Option<(usize, usize)> {
        let (message, own) = (&messages[target.message], OwnTexts::of(&messages[target.message])?);
        let (prompt, end) = (whole.get(..target.prompt_bytes)?, span.end);
        let end_token = self.reader.added(*ids.get(end.checked_sub(1)?)?)?;
        let alone = self.render(&messages[..=target.message], tools, false)?;
        let stop = alone.rfind(end_token)? + end_token.len();
        let text = alone.get(prompt.len()..stop)?;
        let is_alike = alone.starts_with(prompt) && whole.starts_with(alone.get(..stop)?);
        let is_all = strip(&alone[stop..]).is_empty() && own.are_in(text);
        if !is_alike || !is_all || may_be_foreign(text, &messages[..target.message], &own) {
            return None;
        }
        let masks = self.masks_empty_think && message.reasoning.is_none();
        let think = if masks { empty_think(prompt, text) } else { "" };
        let is_whole = self.reader.reads(ids.get(target.start..end)?, text);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::float_cmp,
            reason = "the batch's column holds this very value"
        )]
        let is_weighted = span.weight == message.weight as f32;
        (is_whole && is_weighted && self.is_think(ids.get(target.start..span.start)?, think)).then_some((end, stop))
    }

    /// Whether the tokens before the trained ones are the empty think, or so much of it that only white space is left of it: a
    /// token on both sides of the border is trained.
    fn is_think(&self, ids: &[u32], think: &str) -> bool {
        if !think.is_empty() && !self.reader.is_exact() {
            return false;
        }
        let n_blank = think.len() - think.trim_end_matches(is_space).len();
        ids.is_empty() && strip(think).is_empty()
            || (0..=n_blank)
                .filter_map(|n| think.get(..think.len() - n))
                .any(|beginning| !beginning.is_empty() && self.reader.reads(ids, beginning))
    }
}
