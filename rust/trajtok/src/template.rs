//! Chat templates: how a conversation is written, and which stretches of the text are trained.

use std::ops::Range;

use crate::conversation::Conversation;
use crate::error::Error;

/// What a stretch of the rendered text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// The template's control token of this index in [`ChatTemplate::control_tokens`].
    Control(usize),
    /// Ordinary text: never holds a control token, whatever it says.
    Text,
}

/// A stretch of the rendered text. Offsets are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it is.
    pub kind: SegmentKind,
    /// Where it lies.
    pub bytes: Range<usize>,
}

/// A stretch that is trained: a message's content and the control token that ends it. Offsets are bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedBytes {
    /// Where it lies.
    pub bytes: Range<usize>,
    /// Its loss weight, above 0.
    pub weight: f64,
}

/// A stretch of the rendered text with one kind and one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Piece<'a> {
    /// The text.
    pub text: &'a str,
    /// Whether it is a control token.
    pub is_control: bool,
    /// Its loss weight; 0 is context.
    pub weight: f64,
}

/// A conversation as text. The segments touch, in order, from byte 0 to the end, and none is empty; two text segments
/// never touch each other; the trained stretches are in order and do not overlap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rendering {
    /// The rendered text.
    pub text: String,
    /// What its stretches are.
    pub segments: Vec<Segment>,
    /// Which stretches are trained.
    pub trained: Vec<TrainedBytes>,
}

impl Rendering {
    fn push_control(&mut self, controls: &[&str], index: usize) {
        let start = self.text.len();
        self.text.push_str(controls[index]);
        self.segments.push(Segment { kind: SegmentKind::Control(index), bytes: start..self.text.len() });
    }

    /// An empty one with room for what most templates write.
    fn with_room(conversation: &Conversation<'_>) -> Self {
        let n_messages = conversation.messages.len();
        let n_bytes: usize = conversation.messages.iter().map(|message| message.content.len()).sum();
        Self {
            text: String::with_capacity(n_bytes + (n_messages + 1) * BYTES_AROUND),
            segments: Vec::with_capacity(n_messages * 4 + 2),
            trained: Vec::with_capacity(n_messages),
        }
    }

    /// Text joins the text before it, so that what lies between two controls is encoded as one.
    fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let start = self.text.len();
        self.text.push_str(text);
        match self.segments.last_mut() {
            Some(last) if last.kind == SegmentKind::Text => last.bytes.end = self.text.len(),
            _ => self.segments.push(Segment { kind: SegmentKind::Text, bytes: start..self.text.len() }),
        }
    }

    /// The rendered text cut where its kind or its weight changes.
    #[must_use]
    pub fn pieces(&self) -> Vec<Piece<'_>> {
        let mut pieces = Vec::with_capacity(self.segments.len() + self.trained.len());
        for Segment { kind, bytes } in &self.segments {
            let mut start = bytes.start;
            while start < bytes.end {
                let (end, weight) = self.stretch(start, bytes.end);
                pieces.push(Piece { text: &self.text[start..end], is_control: *kind != SegmentKind::Text, weight });
                start = end;
            }
        }
        pieces
    }

    /// Where the weight at byte `start` ends, `limit` at the latest, and the weight.
    fn stretch(&self, start: usize, limit: usize) -> (usize, f64) {
        match self.trained.iter().find(|span| span.bytes.end > start) {
            Some(span) if span.bytes.start <= start => (span.bytes.end.min(limit), span.weight),
            Some(span) => (span.bytes.start.min(limit), 0.0),
            None => (limit, 0.0),
        }
    }
}

/// What a template writes around a message, about.
const BYTES_AROUND: usize = 40;

/// How a conversation is written as text.
pub trait ChatTemplate: Send + Sync {
    /// The name users write.
    fn name(&self) -> &'static str;

    /// Every control token that [`ChatTemplate::render`] writes.
    fn control_tokens(&self) -> &'static [&'static str];

    /// Writes the conversation, and the start of an assistant turn after it where `add_generation_prompt`.
    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Rendering;
}

/// The registry: a new template is a new entry here and a golden file.
pub static TEMPLATES: &[&dyn ChatTemplate] = &[&ChatMl];

/// The template of this name.
///
/// # Errors
/// [`Error::UnknownTemplate`] names the ones that exist.
pub fn find_template(name: &str) -> Result<&'static dyn ChatTemplate, Error> {
    TEMPLATES.iter().copied().find(|template| template.name() == name).ok_or_else(|| Error::UnknownTemplate {
        name: name.to_owned(),
        known: TEMPLATES.iter().map(|template| template.name()).collect::<Vec<_>>().join(", "),
    })
}

/// Plain ChatML: no default system message, one header line per message, tool answers like any other.
pub struct ChatMl;

const IM_START: usize = 0;
const IM_END: usize = 1;

impl ChatTemplate for ChatMl {
    fn name(&self) -> &'static str {
        "chatml"
    }

    fn control_tokens(&self) -> &'static [&'static str] {
        &["<|im_start|>", "<|im_end|>"]
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Rendering {
        let controls = self.control_tokens();
        let mut rendering = Rendering::with_room(conversation);
        for message in &conversation.messages {
            rendering.push_control(controls, IM_START);
            rendering.push_text(message.role.as_str());
            rendering.push_text("\n");
            let start = rendering.text.len();
            rendering.push_text(&message.content);
            rendering.push_control(controls, IM_END);
            if message.is_trained() {
                let bytes = start..rendering.text.len();
                rendering.trained.push(TrainedBytes { bytes, weight: message.weight });
            }
            rendering.push_text("\n");
        }
        if add_generation_prompt {
            rendering.push_control(controls, IM_START);
            rendering.push_text("assistant\n");
        }
        rendering
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture::{conversation_json, messages};

    fn render(json: &str, add_generation_prompt: bool) -> Rendering {
        ChatMl.render(&Conversation::parse(json.as_bytes()).unwrap(), add_generation_prompt)
    }

    #[test]
    fn content_and_its_end_token_carry_the_weight_and_nothing_else_does() {
        let json = conversation_json(&[("user", "hi", 0.0), ("assistant", "yo", 0.5)]);
        let rendering = render(&json, false);
        let pieces: Vec<_> = rendering.pieces().iter().map(|p| (p.text, p.is_control, p.weight)).collect();
        assert_eq!(
            pieces,
            [
                ("<|im_start|>", true, 0.0),
                ("user\nhi", false, 0.0),
                ("<|im_end|>", true, 0.0),
                ("\n", false, 0.0),
                ("<|im_start|>", true, 0.0),
                ("assistant\n", false, 0.0),
                ("yo", false, 0.5),
                ("<|im_end|>", true, 0.5),
                ("\n", false, 0.0),
            ]
        );
    }

    #[test]
    fn the_generation_prompt_starts_an_assistant_turn() {
        let json = conversation_json(&[("user", "hi", 0.0)]);
        assert_eq!(render(&json, true).text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn an_empty_target_trains_its_end_token() {
        let rendering = render(&conversation_json(&[("assistant", "", 1.0)]), false);
        assert_eq!(&rendering.text[rendering.trained[0].bytes.clone()], "<|im_end|>");
    }

    #[test]
    fn an_unknown_template_is_answered_with_the_known_ones() {
        let message = find_template("chatlm").err().unwrap().to_string();
        assert_eq!(message, "template \"chatlm\" is unknown; expected one of: chatml");
    }

    proptest! {
        #[test]
        fn segments_and_pieces_concatenate_to_the_rendered_text(turns in messages(), prompt: bool) {
            let rendering = render(&conversation_json(&turns), prompt);
            let mut end = 0;
            for segment in &rendering.segments {
                prop_assert_eq!(segment.bytes.start, end);
                prop_assert!(segment.bytes.end > end);
                end = segment.bytes.end;
            }
            prop_assert_eq!(end, rendering.text.len());
            prop_assert_eq!(rendering.pieces().iter().map(|p| p.text).collect::<String>(), rendering.text.as_str());
            prop_assert!(rendering.segments.windows(2).all(|pair| pair.iter().any(|s| s.kind != SegmentKind::Text)));
        }

        #[test]
        fn trained_pieces_concatenate_to_contents_and_end_tokens(turns in messages()) {
            let rendering = render(&conversation_json(&turns), false);
            let trained: String = rendering.pieces().iter().filter(|p| p.weight > 0.0).map(|p| p.text).collect();
            let targets = turns.iter().filter(|turn| turn.2 > 0.0);
            let expected: String = targets.flat_map(|turn| [turn.1.as_str(), "<|im_end|>"]).collect();
            prop_assert_eq!(trained, expected);
        }
    }
}
