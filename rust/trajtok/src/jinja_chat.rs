//! A Hugging Face chat template as a way to write conversations: where each text stands is found by marks around it, which
//! stretches are control tokens by what is outside of all texts, and what is trained by what a served model is given.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use minijinja::value::Value;

use crate::chat_messages::{Spot, Values, all_texts, called, spoken};
use crate::conversation::Conversation;
use crate::error::{Error, Reason, Rejection};
use crate::jinja::{JinjaTemplate, read_settings};
use crate::marks::{Alphabet, Slot};
use crate::rendering::{Rendering, Segment, SegmentKind, Target};
use crate::targets::{EmptyThink, prove_target};
use crate::template::ChatTemplate;
use crate::written::{Marked, Written, check_slot};

/// A chat template bound to a tokenizer's added tokens.
pub struct JinjaChat {
    template: JinjaTemplate,
    settings: Vec<(String, Value)>,
    empty_think: EmptyThink,
    controls: Vec<String>,
    /// Finds control tokens as Hugging Face does: the first one, and of several the longest.
    matcher: AhoCorasick,
    /// What control tokens are replaced by to see what is left.
    nothings: Vec<&'static str>,
    /// Finds every place where a text holds one.
    overlapping: AhoCorasick,
    /// The control tokens that end an assistant's turn.
    ends: Vec<usize>,
}

impl JinjaChat {
    /// Binds a template; `added` are all added tokens of the tokenizer and which are special, `settings` what else the template sees (a JSON
    /// object).
    ///
    /// # Errors
    /// [`Error::TemplateInput`]: settings. [`Error::Template`]: no token is found by which an assistant's turn ends.
    pub fn new(
        template: JinjaTemplate,
        settings: &str,
        empty_think: EmptyThink,
        added: Vec<(String, bool)>,
    ) -> Result<Self, Error> {
        let (controls, is_special): (Vec<_>, Vec<_>) = added.into_iter().unzip();
        let settings = read_settings(settings)?;
        let automaton = |kind| AhoCorasick::builder().match_kind(kind).build(&controls);
        let unbuildable = |error: aho_corasick::BuildError| Error::Template {
            origin: template.origin().to_owned(),
            problem: format!("the tokenizer's added tokens cannot be searched for: {error}"),
        };
        let matcher = automaton(MatchKind::LeftmostLongest).map_err(unbuildable)?;
        let overlapping = automaton(MatchKind::Standard).map_err(unbuildable)?;
        let (nothings, ends) = (vec![""; controls.len()], Vec::new());
        let mut chat = Self { template, settings, empty_think, controls, matcher, nothings, overlapping, ends };
        chat.ends = chat.find_ends(&is_special)?;
        Ok(chat)
    }

    /// The tokens by which an assistant's turn ends: at a conversation's end and in its middle the first one behind what it
    /// says; at a call of a tool, where none of these stands, the last one if it is special.
    fn find_ends(&self, is_special: &[bool]) -> Result<Vec<usize>, Error> {
        let failed =
            |problem: &str| Error::Template { origin: self.template.origin().to_owned(), problem: problem.to_owned() };
        let (mut ends, mut is_written) = (Vec::new(), false);
        for messages in [&spoken()[..2], &spoken()[..]] {
            let Ok(written) =
                self.write(&Conversation { messages: messages.to_vec(), tools: None, tokenizer: None }, false)
            else {
                continue;
            };
            let Some(behind) = written.behind(1) else { continue };
            is_written = true;
            ends.extend(written.controls_in(behind).map(|(control, _)| control).next());
            ends.dedup();
        }
        if let Ok(written) = self.write(&called(), false)
            && let Some(behind) = written.behind(1)
        {
            let found: Vec<usize> = written.controls_in(behind).map(|(control, _)| control).collect();
            if !found.iter().any(|control| ends.contains(control)) {
                ends.extend(found.last().filter(|control| is_special[**control]));
            }
        }
        match (ends.is_empty(), is_written) {
            (false, _) => Ok(ends),
            (true, true) => Err(failed(
                "it writes none of the tokenizer's added tokens behind what an assistant says: a model trained on it would \
                 never learn to stop",
            )),
            (true, false) => Err(failed(
                "it does not write what an assistant says where that is a text; templates for images, which want a list of \
                 blocks, are not supported",
            )),
        }
    }

    /// Renders with marks, and proves that they changed nothing.
    fn write(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Written, Error> {
        let plain = Values::new(conversation, &mut |_, text| text.to_owned())?;
        let text = self.text_of(&plain, plain.messages.len(), add_generation_prompt)?;
        self.write_marked(conversation, &text, add_generation_prompt)
    }

    fn write_marked(
        &self,
        conversation: &Conversation<'_>,
        text: &str,
        add_generation_prompt: bool,
    ) -> Result<Written, Error> {
        let alphabet = Alphabet::unused(all_texts(conversation)).ok_or_else(|| {
            Rejection::error(
                Reason::TemplateReadsContent,
                "its texts hold all letters of Linear A, which mark texts here",
            )
        })?;
        let mut marked = Vec::new();
        let values = Values::new(conversation, &mut |place, text| match place {
            Spot::Text { message, field, what } => {
                marked.push(Marked::new(Some(message), field, what, text));
                alphabet.mark(marked.len() - 1, text)
            }
            Spot::Key => self.mark_controls(&alphabet, &mut marked, text),
        })?;
        let with_marks = self.text_of(&values, values.messages.len(), add_generation_prompt)?;
        let Some((read, slots)) = alphabet.read(&with_marks).filter(|(read, _)| *read == text) else {
            let problem = "the template does more with a text than write it (it compares, cuts or splits it): what of the \
                           rendering is text and what is a control token cannot be told";
            return Err(Rejection::error(Reason::TemplateReadsContent, problem));
        };
        for slot in &slots {
            check_slot(&read, slot, &marked[slot.number])?;
        }
        let segments = self.segments(&read, &slots);
        Ok(Written { text: read, slots, marked, segments })
    }

    /// A text in which only what reads like a control token is marked: templates compare such texts.
    fn mark_controls(&self, alphabet: &Alphabet, marked: &mut Vec<Marked>, text: &str) -> String {
        let mut places: Vec<Range<usize>> = Vec::new();
        for found in self.overlapping.find_overlapping_iter(text) {
            match places.iter().position(|place| place.end > found.start()) {
                Some(first) => {
                    let start = places[first].start.min(found.start());
                    places.truncate(first);
                    places.push(start..found.end());
                }
                None => places.push(found.range()),
            }
        }
        let (mut made, mut end) = (String::with_capacity(text.len()), 0);
        for place in places {
            made.push_str(&text[end..place.start]);
            marked.push(Marked::new(None, None, "", &text[place.clone()]));
            made.push_str(&alphabet.mark(marked.len() - 1, &text[place.clone()]));
            end = place.end;
        }
        made.push_str(&text[end..]);
        made
    }

    fn text_of(&self, values: &Values, n_messages: usize, add_generation_prompt: bool) -> Result<String, Error> {
        let messages = Value::from(values.messages[..n_messages].to_vec());
        self.template
            .render_values(messages, &values.tools, add_generation_prompt, &self.settings, values.n_bytes)
            .map_err(|problem| {
                Rejection::error(Reason::TemplateRefuses, format!("{}: {problem}", self.template.origin()))
            })
    }

    /// Control tokens, which stand outside of all slots, and the text between them.
    fn segments(&self, text: &str, slots: &[Slot]) -> Vec<Segment> {
        let mut controls: Vec<Segment> = Vec::new();
        let mut taken: Vec<&Range<usize>> = slots.iter().map(|slot| &slot.bytes).collect();
        taken.sort_by_key(|bytes| bytes.start);
        let end = text.len()..text.len();
        let mut at = 0;
        for bytes in taken.into_iter().chain([&end]) {
            for found in self.matcher.find_iter(&text[at..bytes.start.max(at)]) {
                let kind = SegmentKind::Control(found.pattern().as_usize());
                controls.push(Segment { kind, bytes: at + found.start()..at + found.end() });
            }
            at = at.max(bytes.end);
        }
        let mut segments = Vec::with_capacity(2 * controls.len() + 1);
        let mut at = 0;
        let push_text = |segments: &mut Vec<Segment>, bytes: Range<usize>| {
            if !bytes.is_empty() {
                segments.push(Segment { kind: SegmentKind::Text, bytes });
            }
        };
        for control in controls {
            push_text(&mut segments, at..control.bytes.start);
            at = control.bytes.end;
            segments.push(control);
        }
        push_text(&mut segments, at..text.len());
        segments
    }

    /// The turn of message `index`, proved against what a served model is given before it and writes in it.
    fn target(
        &self,
        index: usize,
        conversation: &Conversation<'_>,
        plain: &Values,
        written: &Written,
    ) -> Result<Target, Error> {
        let ends_of = |start| self.ends_of(index, start, written);
        let text_of = |n_messages, prompt| self.text_of(plain, n_messages, prompt);
        let bytes = prove_target(index, conversation.messages.len(), &written.text, ends_of, text_of, |rest| {
            self.matcher.replace_all(rest, &self.nothings).trim().is_empty()
        })?;
        written.check_is_whole(index, bytes.clone())?;
        Ok(Target { message: index, bytes })
    }

    /// Where the turn of message `index` may end that starts at byte `start`.
    fn ends_of(&self, index: usize, start: usize, written: &Written) -> Result<Vec<usize>, Error> {
        let texts_end =
            written.slots_of(index).map(|slot| slot.bytes.end).filter(|end| *end > start).max().unwrap_or(start);
        let next = written.foreign_slot(index, texts_end).unwrap_or(written.text.len());
        let ends = written.controls_in(texts_end..next).filter(|(control, _)| self.ends.contains(control));
        let ends: Vec<usize> = ends.map(|(_, bytes)| bytes.end).collect();
        if ends.is_empty() {
            let tokens: Vec<&str> = self.ends.iter().map(|end| self.controls[*end].as_str()).collect();
            let detail =
                format!("messages[{index}]: no token ends the turn; expected one of {tokens:?} behind its texts");
            return Err(Rejection::error(Reason::NoEndOfTurn, detail));
        }
        Ok(ends)
    }
}

impl ChatTemplate for JinjaChat {
    fn name(&self) -> &str {
        self.template.origin()
    }

    fn control_tokens(&self) -> Vec<&str> {
        self.controls.iter().map(String::as_str).collect()
    }

    fn ends(&self) -> Vec<&str> {
        self.ends.iter().map(|end| self.controls[*end].as_str()).collect()
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        let plain = Values::new(conversation, &mut |_, text| text.to_owned())?;
        let text = self.text_of(&plain, plain.messages.len(), add_generation_prompt)?;
        let written = self.write_marked(conversation, &text, add_generation_prompt)?;
        let mut rendering = Rendering::default();
        for (index, message) in conversation.messages.iter().enumerate() {
            let (is_target, is_given) = (message.is_trained() && !add_generation_prompt, !message.token_ids.is_empty());
            if !is_target && !is_given {
                continue;
            }
            let target = match self.target(index, conversation, &plain, &written) {
                // A turn of the context that the template writes otherwise than it was emitted is tokenized anew.
                Err(Error::Rejected(_)) if !is_target => continue,
                found => found?,
            };
            let context = self.empty_think.context(message, &written.text, &target.bytes);
            let places = written.places(index, &target.bytes);
            if is_target {
                rendering.push_turn(target, message, &places, context);
            } else {
                rendering.given.push(target);
            }
        }
        (rendering.text, rendering.segments) = (written.text, written.segments);
        Ok(rendering)
    }
}
