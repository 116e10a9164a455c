//! What native templates write of their own: fixed texts, cut once per tokenizer into control tokens and ordinary text.

use std::ops::Range;

use crate::conversation::{Message, WeighedField};
use crate::encode::Encoder;
use crate::template::rendering::{Rendering, SegmentKind, Target, TextPlace};

/// The control tokens that a native template may write.
pub struct Controls(Vec<&'static str>);

impl Controls {
    /// All of `required`; of `optional`, those that the tokenizer has as added tokens. The others are text.
    pub fn new(required: &[&'static str], optional: &[&'static str], encoder: &dyn Encoder) -> Self {
        let optional = optional.iter().filter(|token| encoder.control_id(token).is_some());
        Self(required.iter().chain(optional).copied().collect())
    }

    /// Their texts, by index.
    pub fn texts(&self) -> Vec<&str> {
        self.0.clone()
    }

    /// Cuts a fixed text as Hugging Face does: at the first control token in it, of several the longest, and so on.
    pub fn cut(&self, text: &'static str) -> Wording {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((at, index)) = self.first_in(rest) {
            let control = self.0[index];
            parts.extend((at > 0).then(|| (SegmentKind::Text, &rest[..at])));
            parts.push((SegmentKind::Control(index), control));
            rest = &rest[at + control.len()..];
        }
        parts.extend((!rest.is_empty()).then_some((SegmentKind::Text, rest)));
        Wording(parts)
    }

    fn first_in(&self, text: &str) -> Option<(usize, usize)> {
        let found = self.0.iter().enumerate().filter_map(|(index, control)| Some((text.find(control)?, index)));
        found.min_by_key(|(at, index)| (*at, usize::MAX - self.0[*index].len()))
    }
}

/// A fixed text of a template.
pub struct Wording(Vec<(SegmentKind, &'static str)>);

impl Wording {
    /// Its text.
    pub fn text(&self) -> String {
        self.0.iter().map(|(_, text)| *text).collect()
    }
}

impl Rendering {
    /// Writes a fixed text.
    pub(crate) fn push_wording(&mut self, wording: &Wording) {
        for (kind, text) in &wording.0 {
            match kind {
                SegmentKind::Control(index) => self.push_control(text, *index),
                SegmentKind::Text => self.push_text(text),
            }
        }
    }

    /// Writes `part` of a message's content and what the model writes around it, and notes that as a target if it is one.
    pub(crate) fn push_said(
        &mut self,
        index: usize,
        message: &Message<'_>,
        part: Range<usize>,
        before: Option<&Wording>,
        end: &Wording,
    ) {
        let start = self.text.len();
        if let Some(before) = before {
            self.push_wording(before);
        }
        let n_trimmed = part.start;
        let content = self.text.len();
        self.push_text(&message.content[part]);
        let place = TextPlace { field: WeighedField::Content, bytes: content..self.text.len(), n_trimmed };
        self.push_wording(end);
        self.push_turn(Target { message: index, bytes: start..self.text.len() }, message, &[place], 0..0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::encoder_with;

    fn cut(controls: &Controls, text: &'static str) -> Vec<(bool, &'static str)> {
        controls.cut(text).0.into_iter().map(|(kind, text)| (kind != SegmentKind::Text, text)).collect()
    }

    #[test]
    fn an_optional_control_token_is_one_where_the_tokenizer_has_it() {
        let text = "</s>\n[INST] ";
        let with = Controls::new(&["</s>"], &["[INST]"], &encoder_with(&["</s>", "[INST]"]));
        assert_eq!(cut(&with, text), [(true, "</s>"), (false, "\n"), (true, "[INST]"), (false, " ")]);
        let without = Controls::new(&["</s>"], &["[INST]"], &encoder_with(&["</s>"]));
        assert_eq!(cut(&without, text), [(true, "</s>"), (false, "\n[INST] ")]);
        assert_eq!(without.texts(), ["</s>"]);
    }

    #[test]
    fn a_required_control_token_stays_one_so_that_its_lack_is_told() {
        assert_eq!(Controls::new(&["</s>"], &[], &encoder_with(&[])).texts(), ["</s>"]);
    }

    #[test]
    fn the_longest_of_several_control_tokens_is_taken() {
        let controls = Controls::new(&["<a>", "<a><b>", "<b>"], &[], &encoder_with(&[]));
        assert_eq!(cut(&controls, "x<a><b><b>"), [(false, "x"), (true, "<a><b>"), (true, "<b>")]);
        assert_eq!(controls.cut("x<a>").text(), "x<a>");
    }
}
