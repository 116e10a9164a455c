//! A conversation as text: which stretches are control tokens, and which are trained.

use std::ops::Range;

use crate::conversation::{Message, WeighedField};

/// What a stretch of the rendered text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// The template's control token of this index in [`crate::ChatTemplate::control_tokens`].
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

/// A stretch that is trained with one weight. Offsets are bytes.
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

/// A turn that is trained, wholly or in part: all that the model writes in it, its end token included. Offsets are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Which message.
    pub message: usize,
    /// Where it lies.
    pub bytes: Range<usize>,
}

/// Where a text of a message stands. Offsets are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextPlace {
    /// Which text.
    pub field: WeighedField,
    /// Where it stands in the rendering.
    pub bytes: Range<usize>,
    /// How many of its first bytes the template left out.
    pub n_trimmed: usize,
}

/// A conversation as text. The segments touch, in order, from byte 0 to the end, and none is empty; two text segments
/// touch each other at restarts alone; the trained stretches are in order and do not overlap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rendering {
    /// The rendered text.
    pub text: String,
    /// What its stretches are.
    pub segments: Vec<Segment>,
    /// Which turns are trained.
    pub targets: Vec<Target>,
    /// Which stretches of them are, with which weight.
    pub trained: Vec<TrainedBytes>,
    /// Turns whose tokens are given, whether they are trained or not: in order, not overlapping.
    pub given: Vec<Target>,
    /// Bytes from which text is tokenized as at a conversation's start, apart from the text before.
    pub restarts: Vec<usize>,
}

impl Rendering {
    /// Writes the control token of this text and index.
    pub(crate) fn push_control(&mut self, text: &str, index: usize) {
        let start = self.text.len();
        self.text.push_str(text);
        self.segments.push(Segment { kind: SegmentKind::Control(index), bytes: start..self.text.len() });
    }

    /// An empty one with room for what a template writes: the contents, and so many bytes and segments per message.
    pub(crate) fn with_room(messages: &[Message<'_>], bytes_around: usize, segments_each: usize) -> Self {
        let n_messages = messages.len();
        let n_bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        Self {
            text: String::with_capacity(n_bytes + (n_messages + 1) * bytes_around),
            segments: Vec::with_capacity(n_messages * segments_each + 2),
            targets: Vec::with_capacity(n_messages),
            trained: Vec::with_capacity(n_messages),
            given: Vec::new(),
            restarts: Vec::new(),
        }
    }

    /// What is pushed next is tokenized as at a conversation's start.
    pub(crate) fn restart(&mut self) {
        self.restarts.push(self.text.len());
    }

    /// Text joins the text before it, so that what lies between two controls is encoded as one.
    pub(crate) fn push_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let start = self.text.len();
        self.text.push_str(text);
        match self.segments.last_mut() {
            Some(last) if last.kind == SegmentKind::Text && self.restarts.last() != Some(&start) => {
                last.bytes.end = self.text.len();
            }
            _ => self.segments.push(Segment { kind: SegmentKind::Text, bytes: start..self.text.len() }),
        }
    }

    /// Notes an assistant's turn: whether it is trained, and whether its tokens are given.
    pub(crate) fn push_turn(
        &mut self,
        turn: Target,
        message: &Message<'_>,
        places: &[TextPlace],
        context: Range<usize>,
    ) {
        if !message.token_ids.is_empty() {
            self.given.push(turn.clone());
        }
        if message.is_trained() {
            self.push_target(turn, message, places, context);
        }
    }

    /// Notes a turn that is trained. A trained character's weight is the message's, or that of the range that holds it.
    ///
    /// `places`: where its texts stand, for ranges with weights of their own; `context`: bytes of it that are not trained.
    pub(crate) fn push_target(
        &mut self,
        target: Target,
        message: &Message<'_>,
        places: &[TextPlace],
        context: Range<usize>,
    ) {
        // Where the ids are given, which of them stand for an empty `<think></think>` is not known.
        if message.ranges.is_empty() && (context.is_empty() || !message.token_ids.is_empty()) {
            self.trained.push(TrainedBytes { bytes: target.bytes.clone(), weight: message.weight });
            self.targets.push(target);
            return;
        }
        let mut own: Vec<(Range<usize>, f64)> = vec![(context, 0.0)];
        for range in &message.ranges {
            let text = match range.field {
                WeighedField::Content => message.content.as_ref(),
                WeighedField::Reasoning => message.reasoning.as_deref().unwrap_or(""),
            };
            let byte_of = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
            let (start, end) = (byte_of(range.start), byte_of(range.end));
            for TextPlace { bytes, n_trimmed, .. } in places.iter().filter(|place| place.field == range.field) {
                let at = |byte: usize| (bytes.start + byte.saturating_sub(*n_trimmed)).min(bytes.end);
                own.push((at(start)..at(end), range.weight));
            }
        }
        self.trained.extend(weigh(&target.bytes, message.weight, own));
        self.targets.push(target);
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

/// The trained stretches of `bytes`: `weight`, but where `own` says otherwise.
fn weigh(bytes: &Range<usize>, weight: f64, mut own: Vec<(Range<usize>, f64)>) -> Vec<TrainedBytes> {
    own.retain(|(stretch, _)| !stretch.is_empty());
    own.sort_by_key(|(stretch, _)| stretch.start);
    let (mut stretches, mut at) = (Vec::with_capacity(2 * own.len() + 1), bytes.start);
    for (stretch, own_weight) in own {
        stretches.push((at..stretch.start.min(bytes.end), weight));
        stretches.push((stretch.start.max(at)..stretch.end.min(bytes.end), own_weight));
        at = at.max(stretch.end);
    }
    stretches.push((at..bytes.end, weight));
    let mut trained: Vec<TrainedBytes> = Vec::with_capacity(stretches.len());
    for (bytes, weight) in stretches.into_iter().filter(|(bytes, weight)| !bytes.is_empty() && *weight > 0.0) {
        match trained.last_mut() {
            #[allow(clippy::float_cmp, reason = "equal weights make one stretch")]
            Some(last) if last.bytes.end == bytes.start && last.weight == weight => last.bytes.end = bytes.end,
            _ => trained.push(TrainedBytes { bytes, weight }),
        }
    }
    trained
}
