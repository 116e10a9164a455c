//! A Hugging Face chat template as a way to write conversations: where each text stands is found by marks around it, which
//! stretches are control tokens by what is outside of all texts, and what is trained by what a served model is given.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use minijinja::value::Value;

use crate::conversation::{Conversation, Message, Role};
use crate::error::{Error, Reason, Rejection};
use crate::template::chat_template::{ChatTemplate, TemplateSource};
use crate::template::jinja::engine::JinjaTemplate;
use crate::template::jinja::messages::{Spot, Values, all_names, all_texts, called, spoken};
use crate::template::jinja::passed_on::{check_tokens_are_passed_on, token_places};
use crate::template::jinja::served::{ANSWERED, ASKED, Served, ServedTurn, THOUGHT};
use crate::template::jinja::turn_ends::{Samples, TurnEnds};
use crate::template::jinja::written::{Marked, Written, check_slot};
use crate::template::marks::{Alphabet, Slot};
use crate::template::rendering::{Rendering, Segment, SegmentKind, Target};
use crate::template::settings::read_settings;
use crate::template::targets::{EmptyThink, prove_target};

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
    /// By which control tokens an assistant's turn ends.
    ends: TurnEnds,
    /// How an answer goes on behind a prompt, where rows are as they are served.
    served: Option<Served>,
}

/// What is marked beside the texts of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marking {
    /// Names, keys of arguments, and the texts of tool schemas.
    All,
    /// Names and keys of arguments; of schemas, which templates compare, only what reads like a control token.
    Names,
    /// Of all of these only what reads like a control token.
    Texts,
}

fn reads_content() -> Error {
    let problem = "the template does more with a text than write it (it compares, cuts or splits it): what of the rendering is \
                   text and what is a control token cannot be told";
    Rejection::error(Reason::TemplateReadsContent, problem)
}

fn unsearchable(template: &JinjaTemplate, error: &aho_corasick::BuildError) -> Error {
    let problem = format!("the tokenizer's added tokens cannot be searched for: {error}");
    Error::Template { origin: template.origin().to_owned(), problem }
}

/// What makes a row of a turn whose prompt is not what the conversation has there.
fn with_remedy(error: Error) -> Error {
    match error {
        Error::Rejected(mut rejection) if rejection.reason == Reason::PromptDiffers => {
            rejection.detail.push_str("; take reasoning = \"as_served\", by which a row is that prompt and the answer");
            Error::Rejected(rejection)
        }
        other => other,
    }
}

impl JinjaChat {
    /// Binds a template; `added` are all added tokens of the tokenizer and which are special.
    ///
    /// # Errors
    /// [`Error::TemplateInput`]: settings. [`Error::Template`]: no token is found by which an assistant's turn ends.
    pub fn new(
        template: JinjaTemplate,
        source: &TemplateSource<'_>,
        added: Vec<(String, bool)>,
    ) -> Result<Self, Error> {
        let (controls, is_special): (Vec<_>, Vec<_>) = added.into_iter().unzip();
        let settings = read_settings(source.settings)?;
        let automaton = |kind| AhoCorasick::builder().match_kind(kind).build(&controls);
        let unbuildable = |error| unsearchable(&template, &error);
        let matcher = automaton(MatchKind::LeftmostLongest).map_err(unbuildable)?;
        let overlapping = automaton(MatchKind::Standard).map_err(unbuildable)?;
        let (nothings, ends) = (vec![""; controls.len()], TurnEnds::default());
        let empty_think = source.empty_think;
        let served = None;
        let mut chat = Self { template, settings, empty_think, controls, matcher, nothings, overlapping, ends, served };
        if !source.as_served {
            chat.ends = chat.find_ends(&is_special)?;
            return Ok(chat);
        }
        let plain = chat.learn_served()?;
        chat.ends = chat.find_ends(&is_special)?;
        if !chat.ends.has_words() && chat.served.as_ref().is_some_and(|served| !served.answer_ends(&plain)) {
            let problem =
                "it writes text of its own behind an assistant's turn that ends a conversation: what of it a served \
                           model writes cannot be told"
                    .to_owned();
            return Err(Error::Template { origin: chat.template.origin().to_owned(), problem });
        }
        let stops = chat.ends.answer_stops().map(|end| chat.controls[end].clone()).collect();
        let calls = chat.call_texts();
        if let Some(served) = &mut chat.served {
            if served.end_by(stops, &plain) {
                chat.ends.keep_answers();
            }
            if let Some(end) = calls.and_then(|(call, result)| served.end_calls_by(&call, &result)) {
                chat.ends.take_up(chat.controls.iter().position(|control| *control == end));
            }
        }
        Ok(chat)
    }

    /// What is written of a call, and of the same with its result.
    fn call_texts(&self) -> Option<(String, String)> {
        let mut conversation = called();
        let result =
            Message { tool_call_id: Some("callabcde".into()), ..Message::plain(Role::Tool, ASKED.into(), 0.0) };
        conversation.messages.push(result);
        let values = Values::new(&conversation, &mut |_, text| text.to_owned()).ok()?;
        Some((self.written_text(&values, 2, false).ok()?, self.written_text(&values, 3, false).ok()?))
    }

    /// Learns how an answer goes on behind a prompt; gives what the template writes of one.
    fn learn_served(&mut self) -> Result<String, Error> {
        let message = |role, text: &'static str| Message::plain(role, text.into(), 0.0);
        let asked = message(Role::User, ASKED);
        let answer = message(Role::Assistant, ANSWERED);
        let thought = Message { reasoning: Some(THOUGHT.into()), ..answer.clone() };
        let text_of = |messages: Vec<Message<'static>>, prompt| {
            let conversation = Conversation { messages, tools: None, tokenizer: None };
            let values = Values::new(&conversation, &mut |_, text| text.to_owned())?;
            self.written_text(&values, values.messages.len(), prompt)
        };
        let failed = |error: Error| Error::Template {
            origin: self.template.origin().to_owned(),
            problem: format!("it does not write what an assistant says where that is a text: {error}"),
        };
        let prompt = text_of(vec![asked.clone()], true).map_err(failed)?;
        let plain = text_of(vec![asked.clone(), answer], false).map_err(failed)?;
        let thought = text_of(vec![asked, thought], false).ok();
        let served = Served::learn(&self.controls, &prompt, &plain, thought.as_deref())
            .map_err(|error| unsearchable(&self.template, &error))?;
        self.served = Some(served);
        Ok(plain)
    }

    /// Tries the template on small conversations: how turns end, and that there is a prompt.
    fn find_ends(&self, is_special: &[bool]) -> Result<TurnEnds, Error> {
        let mut first = None;
        let mut sample = |messages: &[Message<'static>]| {
            let conversation = Conversation { messages: messages.to_vec(), tools: None, tokenizer: None };
            let written =
                self.write(&conversation, false).map_err(|error| first.get_or_insert(error.to_string()).len());
            written.ok().filter(|written| written.behind(1).is_some())
        };
        let (last, middle) = (sample(&spoken()[..2]), sample(&spoken()[..]));
        let failed = |problem: String| Error::Template { origin: self.template.origin().to_owned(), problem };
        let Some(answered) = last.as_ref().or(middle.as_ref()) else {
            let other = "templates for images, which want a list of blocks, are not supported".to_owned();
            return Err(failed(format!(
                "it does not write what an assistant says where that is a text: {}",
                first.unwrap_or(other)
            )));
        };
        let header = self.own_header(answered);
        let call = self.write(&called(), false).ok();
        let samples = Samples { last, middle, call };
        let by_header = TurnEnds::of(&samples, is_special, true);
        let ends = if self.served.is_some() { by_header.clone() } else { TurnEnds::of(&samples, is_special, false) };
        if header.iter().any(|control| ends.is_start(*control)) {
            return Err(failed(
                "it writes no prompt where add_generation_prompt is set, but a header before what an assistant says: a model \
                 trained on it would have to write its own header"
                    .to_owned(),
            ));
        }
        if ends.is_empty() || (self.served.is_some() && ends.answer_stops().next().is_none()) {
            let remedy = if by_header.is_empty() {
                ""
            } else {
                "; with reasoning = \"as_served\" the header of the next message ends a turn"
            };
            return Err(failed(format!(
                "it writes none of the tokenizer's added tokens behind what an assistant says: a model trained on it would \
                 never learn to stop{remedy}"
            )));
        }
        Ok(ends)
    }

    /// The control tokens before what an assistant says that the prompt lacks.
    fn own_header(&self, answered: &Written) -> Vec<usize> {
        let asked = Conversation { messages: spoken()[..1].to_vec(), tools: None, tokenizer: None };
        let Ok(prompt) = self.write(&asked, true) else { return Vec::new() };
        let answer = Conversation { messages: spoken()[..2].to_vec(), ..asked };
        if Values::new(&answer, &mut |_, text| text.to_owned()).is_ok_and(|plain| self.has_header(&plain, &prompt.text))
        {
            return Vec::new();
        }
        let start = answered.slots_of(1).map(|slot| slot.bytes.start).min().unwrap_or(0);
        answered.controls_in(prompt.text.len()..start).map(|(control, _)| control).collect()
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
        let texts = all_texts(conversation).chain([self.template.source()]);
        let alphabet = Alphabet::unused(texts).ok_or_else(|| {
            Rejection::error(
                Reason::TemplateReadsContent,
                "its texts hold all letters of Linear A, which mark texts here",
            )
        })?;
        check_tokens_are_passed_on(conversation, text, &self.overlapping, alphabet.letter(), |values| {
            self.text_of(values, values.messages.len(), add_generation_prompt)
        })?;
        let more: &[Marking] =
            if conversation.tools.is_some() { &[Marking::All, Marking::Names] } else { &[Marking::Names] };
        for marking in more {
            match self.try_marks(conversation, text, add_generation_prompt, &alphabet, *marking) {
                Err(Error::Rejected(rejection)) if rejection.reason == Reason::TemplateReadsContent => {}
                other => return other,
            }
        }
        self.try_marks(conversation, text, add_generation_prompt, &alphabet, Marking::Texts)
    }

    fn try_marks(
        &self,
        conversation: &Conversation<'_>,
        text: &str,
        add_generation_prompt: bool,
        alphabet: &Alphabet,
        marking: Marking,
    ) -> Result<Written, Error> {
        let mut marked = Vec::new();
        let values = Values::new(conversation, &mut |spot, text| {
            let (message, field, what) = match spot {
                Spot::Text { message, field, what } => (Some(message), field, what),
                Spot::Name if marking != Marking::Texts => (None, None, "names"),
                Spot::Schema { is_key: false } if marking == Marking::All => (None, None, "tools"),
                Spot::Name | Spot::Schema { .. } => return self.mark_controls(alphabet, &mut marked, text),
            };
            marked.push(Marked::new(message, field, what, text));
            alphabet.mark(marked.len() - 1, text)
        })?;
        let with_marks = match self.text_of(&values, values.messages.len(), add_generation_prompt) {
            // It rendered without marks.
            Err(Error::Rejected(_)) => return Err(reads_content()),
            other => other?,
        };
        let Some((read, slots)) = alphabet.read(&with_marks).filter(|(read, _)| *read == text) else {
            return Err(reads_content());
        };
        for slot in &slots {
            check_slot(&read, slot, marked.get(slot.number).ok_or_else(reads_content)?)?;
        }
        let segments = self.segments(&read, &slots);
        let written = Written { text: read, slots, marked, segments };
        if marking == Marking::Texts && all_names(conversation).any(|name| written.is_in_control(&name)) {
            let problem =
                "a name or a key stands inside of a control token, and the template lets names not be told from text";
            return Err(Rejection::error(Reason::TemplateReadsContent, problem));
        }
        Ok(written)
    }

    /// A text in which only what reads like a control token is marked: templates compare such texts.
    fn mark_controls(&self, alphabet: &Alphabet, marked: &mut Vec<Marked>, text: &str) -> String {
        let places = token_places(&self.overlapping, text);
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

    /// What the template writes of the first messages; as it is served, where an answer is the last of them and rows are so.
    fn text_of(&self, values: &Values, n_messages: usize, add_generation_prompt: bool) -> Result<String, Error> {
        let written = self.written_text(values, n_messages, add_generation_prompt)?;
        let last = values.messages[..n_messages].last();
        let Some((served, last)) = self.served.as_ref().zip(last).filter(|_| !add_generation_prompt) else {
            return Ok(written);
        };
        let text_at = |name: &str| last.get_attr(name).ok().and_then(|value| value.as_str().map(str::to_owned));
        if text_at("role").as_deref() != Some(Role::Assistant.as_str()) {
            return Ok(written);
        }
        let prompt = self.written_text(values, n_messages - 1, true)?;
        let before = self.written_text(values, n_messages - 1, false).unwrap_or_default();
        let thought = text_at("reasoning_content");
        let calls = last.get_attr("tool_calls").is_ok_and(|calls| calls.is_true());
        let turn = ServedTurn { before: &before, thought: thought.as_deref(), calls };
        Ok(served.compose(&prompt, &written, &turn).unwrap_or(written))
    }

    /// Whether an answer that is as it is served has its header in the prompt: the template writes one, or the row is put together.
    fn has_header(&self, values: &Values, prompt: &str) -> bool {
        let n = values.messages.len();
        let writes = |n_messages, holds: &dyn Fn(&str) -> bool| {
            self.written_text(values, n_messages, false).is_ok_and(|text| holds(&text))
        };
        self.served.is_some()
            && (writes(n - 1, &|text| text.len() < prompt.len()) || writes(n, &|text| !text.starts_with(prompt)))
    }

    fn written_text(&self, values: &Values, n_messages: usize, add_generation_prompt: bool) -> Result<String, Error> {
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
        });
        let bytes = bytes.map_err(|error| if self.served.is_none() { with_remedy(error) } else { error })?;
        written.check_is_whole(index, &bytes)?;
        let said = written.slots_of(index).map(|slot| slot.bytes.start).filter(|at| *at >= bytes.start).min();
        let is_header = |(control, _): (usize, _)| self.ends.is_start(control);
        if written.controls_in(bytes.start..said.unwrap_or(bytes.start)).any(is_header)
            && !(index + 1 == conversation.messages.len() && self.has_header(plain, &written.text[..bytes.start]))
        {
            let detail = format!("messages[{index}]: the prompt lacks the turn's header, which would be trained");
            return Err(Rejection::error(Reason::PromptDiffers, detail));
        }
        let texts_end = written.slots_of(index).map(|slot| slot.bytes.end).filter(|end| *end <= bytes.end).max();
        let behind: Vec<_> = written.controls_in(texts_end.unwrap_or(bytes.start)..bytes.end).collect();
        let places = self.ends.places(&behind, &written.text);
        let goes_on = |(control, place): &(usize, Range<usize>)| {
            self.ends.is_start(*control) && places.iter().any(|end| *end <= place.start)
        };
        if behind.iter().rev().skip(1).any(goes_on) {
            let detail =
                format!("messages[{index}]: the template begins another message behind the turn, in its target");
            return Err(Rejection::error(Reason::TargetDiffers, detail));
        }
        Ok(Target { message: index, bytes })
    }

    /// Tool schemas that the template leaves out are not served either.
    fn check_tools_are_written(
        &self,
        conversation: &Conversation<'_>,
        plain: &Values,
        text: &str,
    ) -> Result<(), Error> {
        if conversation.tools.is_none() || plain.tools.len().unwrap_or(0) == 0 {
            return Ok(());
        }
        let without = Values { messages: plain.messages.clone(), tools: Value::from(()), n_bytes: plain.n_bytes };
        match self.text_of(&without, without.messages.len(), false) {
            Ok(without) if without == text => {
                Err(Rejection::error(Reason::NotRendered, "the template leaves out the tools' schemas"))
            }
            _ => Ok(()),
        }
    }

    /// Where the turn of message `index` may end that starts at byte `start`.
    fn ends_of(&self, index: usize, start: usize, written: &Written) -> Result<Vec<usize>, Error> {
        let texts_end =
            written.slots_of(index).map(|slot| slot.bytes.end).filter(|end| *end > start).max().unwrap_or(start);
        let next = written.foreign_slot(index, texts_end).unwrap_or(written.text.len());
        let controls: Vec<_> = written.controls_in(texts_end..next).collect();
        let ends = self.ends.places(&controls, &written.text);
        if ends.is_empty() {
            let tokens = self.ends();
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
        self.ends.stops().map(|end| self.controls[end].as_str()).collect()
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        let plain = Values::new(conversation, &mut |_, text| text.to_owned())?;
        let text = self.text_of(&plain, plain.messages.len(), add_generation_prompt)?;
        let written = self.write_marked(conversation, &text, add_generation_prompt)?;
        if !add_generation_prompt {
            written.check_nothing_is_lost()?;
            self.check_tools_are_written(conversation, &plain, &written.text)?;
        }
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
