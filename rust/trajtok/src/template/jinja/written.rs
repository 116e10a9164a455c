//! What a chat template wrote: the text, where each text of the conversation stands in it, and what is a control token.

use std::ops::Range;

use crate::conversation::WeighedField;
use crate::error::{Error, Reason, Rejection};
use crate::template::marks::{Slot, inner};
use crate::template::python_text::repr_text;
use crate::template::rendering::{Segment, SegmentKind, TextPlace};

/// Which text of a conversation a slot stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    pub message: Option<usize>,
    pub field: Option<WeighedField>,
    pub what: &'static str,
    /// Without the white space around it, of which `n_before` bytes stand before it.
    pub text: String,
    pub n_before: usize,
}

impl Marked {
    /// What a text is.
    pub fn new(message: Option<usize>, field: Option<WeighedField>, what: &'static str, text: &str) -> Self {
        let inner = inner(text);
        Self { message, field, what, text: text[inner.clone()].to_owned(), n_before: inner.start }
    }
}

/// A rendering, and where the texts of the conversation stand in it.
pub struct Written {
    pub text: String,
    pub slots: Vec<Slot>,
    pub marked: Vec<Marked>,
    pub segments: Vec<Segment>,
}

impl Written {
    pub fn slots_of(&self, message: usize) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| self.marked[slot.number].message == Some(message))
    }

    /// What stands between the texts of a message and those of the next one.
    pub fn behind(&self, message: usize) -> Option<Range<usize>> {
        let start = self.slots_of(message).map(|slot| slot.bytes.end).max()?;
        Some(start..self.foreign_slot(message, start).unwrap_or(self.text.len()))
    }

    /// Where the first text of another message stands, from `at` on.
    pub fn foreign_slot(&self, message: usize, at: usize) -> Option<usize> {
        let is_foreign = |slot: &&Slot| self.marked[slot.number].message.is_some_and(|other| other != message);
        self.slots.iter().filter(is_foreign).map(|slot| slot.bytes.start).filter(|start| *start >= at).min()
    }

    pub fn controls_in(&self, bytes: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let inside = move |segment: &&Segment| segment.bytes.start >= bytes.start && segment.bytes.end <= bytes.end;
        self.segments.iter().filter(inside).filter_map(|segment| match segment.kind {
            SegmentKind::Control(control) => Some((control, segment.bytes.clone())),
            SegmentKind::Text => None,
        })
    }

    /// Whether the text stands somewhere where it shares characters with a control token.
    pub fn is_in_control(&self, text: &str) -> bool {
        let shares = |at: usize| {
            let (start, end) = (at, at + text.len());
            self.controls_in(0..self.text.len()).any(|(_, bytes)| bytes.start < end && bytes.end > start)
        };
        text.len() > 1 && self.text.match_indices(text).any(|(at, _)| shares(at))
    }

    /// Checks that all texts of the message stand in its turn.
    pub fn check_is_whole(&self, message: usize, turn: &Range<usize>) -> Result<(), Error> {
        let inside = |slot: &&Slot| slot.bytes.start < turn.end && slot.bytes.end > turn.start;
        for other in self.slots.iter().filter(inside).filter_map(|slot| self.marked[slot.number].message) {
            if other != message {
                let detail =
                    format!("messages[{message}]: the template writes a text of messages[{other}] into this turn");
                return Err(Rejection::error(Reason::TemplateReadsContent, detail));
            }
        }
        for (number, marked) in self.marked.iter().enumerate().filter(|(_, marked)| marked.message == Some(message)) {
            let stands =
                |slot: &Slot| slot.number == number && slot.bytes.start >= turn.start && slot.bytes.end <= turn.end;
            if !marked.text.is_empty() && !self.slots.iter().any(stands) {
                let detail = format!("messages[{message}]: the template leaves out its {}", marked.what);
                return Err(Rejection::error(Reason::NotRendered, detail));
            }
        }
        Ok(())
    }

    /// Checks that every text of every message stands somewhere. Reasoning of earlier turns may be left out.
    pub fn check_nothing_is_lost(&self) -> Result<(), Error> {
        let mut stands = vec![false; self.marked.len()];
        for slot in &self.slots {
            stands[slot.number] = true;
        }
        for (marked, stands) in self.marked.iter().zip(stands) {
            if let (Some(message), false) = (marked.message, stands || marked.text.is_empty())
                && marked.field != Some(WeighedField::Reasoning)
            {
                let detail = format!("messages[{message}]: the template leaves out its {}", marked.what);
                return Err(Rejection::error(Reason::NotRendered, detail));
            }
        }
        Ok(())
    }

    pub fn places(&self, message: usize, turn: &Range<usize>) -> Vec<TextPlace> {
        let inside = |slot: &&Slot| slot.bytes.start >= turn.start && slot.bytes.end <= turn.end;
        let place = |slot: &Slot| {
            let Marked { field, n_before, .. } = &self.marked[slot.number];
            Some(TextPlace { field: (*field)?, bytes: slot.bytes.clone(), n_trimmed: *n_before })
        };
        self.slots_of(message).filter(inside).filter_map(place).collect()
    }
}

/// Checks that a slot holds its text, as it is or as a string of JSON or Python writes it.
pub fn check_slot(rendering: &str, slot: &Slot, marked: &Marked) -> Result<(), Error> {
    let found = &rendering[slot.bytes.clone()];
    if found == marked.text || is_json_of(found, &marked.text) || is_repr_of(found, &marked.text) {
        return Ok(());
    }
    let of = marked.message.map_or_else(|| "tools".to_owned(), |message| format!("messages[{message}]"));
    let detail =
        format!("{of}: the template changes its {}, so control tokens in it cannot be told from text", marked.what);
    Err(Rejection::error(Reason::TemplateReadsContent, detail))
}

/// Templates that print a list or an object write its texts as Python does.
fn is_repr_of(found: &str, text: &str) -> bool {
    let mut repr = String::new();
    repr_text(text, &mut repr);
    repr.get(1..repr.len().saturating_sub(1)) == Some(found)
}

fn is_json_of(found: &str, text: &str) -> bool {
    serde_json::from_str::<String>(&format!("\"{found}\"")).is_ok_and(|read| read == text)
}
