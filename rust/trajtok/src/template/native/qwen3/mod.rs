//! Qwen3's chat format: `ChatML` with tools, and with reasoning for what follows the user's last question alone.

mod answer;
mod words;

use std::ops::Range;

use minijinja::value::{Value, ValueKind};

use crate::conversation::{Conversation, Message, Role};
use crate::encode::Encoder;
use crate::error::{Error, Reason, Rejection};
use crate::template::chat_template::{ChatTemplate, TemplateSource};
use crate::template::native::wording::{Controls, Wording};
use crate::template::python_text::dumps;
use crate::template::rendering::{Rendering, Target, TextPlace};
use crate::template::targets::{EmptyThink, prove_target};
use crate::template::values::{read_arguments, read_tools};
use answer::{Answer, Part};
use words::{NO_THINK, Wordings, controls};

const ENABLE_THINKING: &str = "enable_thinking";

/// The template.
pub struct Qwen3 {
    wordings: Wordings,
    /// What the generation prompt writes behind the assistant's header where thinking is switched off.
    no_think: Option<Wording>,
    empty_think: EmptyThink,
    controls: Controls,
}

/// A conversation's JSON as the template prints it.
struct Printed {
    tools: Vec<String>,
    /// By message and call.
    arguments: Vec<Vec<String>>,
}

/// An assistant's turn that is trained. Offsets are bytes of the rendering.
struct Turn {
    message: usize,
    /// From behind its header to behind its end token.
    bytes: Range<usize>,
    places: Vec<TextPlace>,
    /// What of its texts the template left out.
    left_out: Option<&'static str>,
}

impl Qwen3 {
    /// The name users write.
    pub(crate) const NAME: &'static str = "qwen3";

    /// Binds it to its settings and a tokenizer's added tokens.
    ///
    /// # Errors
    /// [`Error::TemplateInput`]: settings.
    pub fn new(source: &TemplateSource<'_>, encoder: &dyn Encoder) -> Result<Self, Error> {
        let controls = controls(encoder);
        let is_thinking = match source.settings_among(&[ENABLE_THINKING])?.pop() {
            None => true,
            Some((_, value)) if value.kind() == ValueKind::Bool => value.is_true(),
            Some((name, value)) => {
                let problem = format!("{name} is {value}; expected true or false");
                return Err(Error::TemplateInput { name: "settings", problem });
            }
        };
        let no_think = (!is_thinking).then(|| controls.cut(NO_THINK));
        Ok(Self { wordings: Wordings::new(&controls), no_think, empty_think: source.empty_think, controls })
    }

    fn write(
        &self,
        messages: &[Message<'_>],
        printed: &Printed,
        prompt: bool,
    ) -> Result<(Rendering, Vec<Turn>), Error> {
        let words = &self.wordings;
        let (mut rendering, mut turns) = (Rendering::with_room(messages, 60, 6), Vec::new());
        self.write_head(&mut rendering, messages, printed)?;
        let last_query = last_query(messages);
        for (index, message) in messages.iter().enumerate() {
            match message.role {
                Role::System if index == 0 => {}
                Role::System | Role::User => {
                    rendering.push_wording(if message.role == Role::User { &words.user } else { &words.system });
                    rendering.push_text(&message.content);
                    rendering.push_wording(&words.end);
                    rendering.push_text("\n");
                }
                Role::Assistant => {
                    let is_last = index + 1 == messages.len();
                    let thinks = |reasoning: &str| index > last_query && (is_last || !reasoning.is_empty());
                    let turn = self.write_answer(&mut rendering, index, message, thinks, &printed.arguments[index]);
                    turns.extend((message.is_trained() || !message.token_ids.is_empty()).then_some(turn));
                }
                Role::Tool => {
                    let is_tool = |index: usize| messages.get(index).is_some_and(|message| message.role == Role::Tool);
                    if index == 0 || !is_tool(index - 1) {
                        rendering.push_wording(&words.responses);
                    }
                    rendering.push_wording(&words.response);
                    rendering.push_text(&message.content);
                    rendering.push_wording(&words.end_response);
                    if !is_tool(index + 1) {
                        rendering.push_wording(&words.end);
                        rendering.push_text("\n");
                    }
                }
            }
        }
        if prompt {
            rendering.push_wording(&words.assistant);
            self.no_think.iter().for_each(|no_think| rendering.push_wording(no_think));
        }
        Ok((rendering, turns))
    }

    /// The system message that comes first, and the tools.
    fn write_head(&self, rendering: &mut Rendering, messages: &[Message<'_>], printed: &Printed) -> Result<(), Error> {
        let words = &self.wordings;
        let Some(first) = messages.first() else {
            return Err(Rejection::error(Reason::TemplateRefuses, "template qwen3 takes one message or more"));
        };
        let system = (first.role == Role::System).then_some(&first.content);
        if system.is_none() && printed.tools.is_empty() {
            return Ok(());
        }
        rendering.push_wording(&words.system);
        rendering.push_text(system.map_or("", |system| system));
        if !printed.tools.is_empty() {
            rendering.push_text(if system.is_some() { "\n\n" } else { "" });
            rendering.push_wording(&words.tools);
            for tool in &printed.tools {
                rendering.push_text("\n");
                rendering.push_text(tool);
            }
            rendering.push_wording(&words.end_tools);
        }
        rendering.push_wording(&words.end);
        rendering.push_text("\n");
        Ok(())
    }

    fn write_answer(
        &self,
        rendering: &mut Rendering,
        index: usize,
        message: &Message<'_>,
        thinks: impl FnOnce(&str) -> bool,
        arguments: &[String],
    ) -> Turn {
        let words = &self.wordings;
        rendering.push_wording(&words.assistant);
        let start = rendering.text.len();
        let Answer { reasoning, content, is_cut } = Answer::of(message);
        let (thinks, reasoning, mut places) = (thinks(reasoning.text), reasoning.lstrip().rstrip(), Vec::new());
        if thinks {
            rendering.push_wording(&words.think);
            places.push(push_part(rendering, reasoning));
            rendering.push_wording(&words.end_think);
        }
        places.push(push_part(rendering, if thinks { content.lstrip() } else { content }));
        for (n, (call, arguments)) in message.tool_calls.iter().zip(arguments).enumerate() {
            rendering.push_text(if n > 0 || !content.text.is_empty() { "\n" } else { "" });
            rendering.push_wording(&words.call);
            rendering.push_text(&call.name);
            rendering.push_wording(&words.arguments);
            rendering.push_text(arguments);
            rendering.push_wording(&words.end_call);
        }
        rendering.push_wording(&words.end);
        let bytes = start..rendering.text.len();
        rendering.push_text("\n");
        let left_out = match (is_cut, thinks) {
            (true, _) => Some("content around </think>"),
            (false, false) if !reasoning.text.is_empty() => Some("reasoning"),
            (false, _) => None,
        };
        Turn { message: index, bytes, places, left_out }
    }
}

/// A prompt reads like what precedes a turn and ends elsewhere: texts of messages read like the template's own.
fn refuse_start(index: usize) -> Error {
    let detail = format!("messages[{index}]: the turn does not start where a served model's prompt ends");
    Rejection::error(Reason::PromptDiffers, detail)
}

fn push_part(rendering: &mut Rendering, part: Part<'_>) -> TextPlace {
    let start = rendering.text.len();
    rendering.push_text(part.text);
    TextPlace { field: part.field, bytes: start..rendering.text.len(), n_trimmed: part.n_before }
}

/// The user's last message that is no answer of a tool; without one, the last message.
fn last_query(messages: &[Message<'_>]) -> usize {
    let is_response = |text: &str| text.starts_with("<tool_response>") && text.ends_with("</tool_response>");
    let asks = |message: &Message<'_>| message.role == Role::User && !is_response(&message.content);
    messages.iter().rposition(asks).unwrap_or(messages.len().saturating_sub(1))
}

impl Printed {
    fn of(conversation: &Conversation<'_>) -> Result<Self, Error> {
        let print = |value: &Value| {
            let refuse = |fault: minijinja::Error| Rejection::error(Reason::TemplateRefuses, fault.to_string());
            dumps(value, false, false, None, (", ", ": ")).map_err(refuse)
        };
        let tools = match &conversation.tools {
            None => Vec::new(),
            Some(tools) => read_tools(tools)?
                .try_iter()
                .into_iter()
                .flatten()
                .map(|tool| print(&tool))
                .collect::<Result<_, _>>()?,
        };
        let calls_of = |(index, message): (usize, &Message<'_>)| {
            let calls = message.tool_calls.iter().enumerate();
            calls.map(|(n, call)| print(&read_arguments(index, n, call)?)).collect::<Result<_, _>>()
        };
        let arguments = conversation.messages.iter().enumerate().map(calls_of).collect::<Result<_, _>>()?;
        Ok(Self { tools, arguments })
    }
}

impl ChatTemplate for Qwen3 {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn ends(&self) -> Vec<&str> {
        vec!["<|im_end|>"]
    }

    fn control_tokens(&self) -> Vec<&str> {
        self.controls.texts()
    }

    fn render(&self, conversation: &Conversation<'_>, add_generation_prompt: bool) -> Result<Rendering, Error> {
        let (messages, printed) = (&conversation.messages, Printed::of(conversation)?);
        let (mut rendering, turns) = self.write(messages, &printed, add_generation_prompt)?;
        let text_of = |n_messages: usize, prompt| Ok(self.write(&messages[..n_messages], &printed, prompt)?.0.text);
        for Turn { message: index, bytes, places, left_out } in turns {
            let is_target = messages[index].is_trained() && !add_generation_prompt;
            if !is_target && messages[index].token_ids.is_empty() {
                continue;
            }
            let ends_of = |start| if bytes.contains(&start) { Ok(vec![bytes.end]) } else { Err(refuse_start(index)) };
            let bytes = match prove_target(index, messages.len(), &rendering.text, ends_of, text_of, |rest| {
                rest.trim().is_empty()
            }) {
                // A turn of the context that is written otherwise than it was emitted is tokenized anew.
                Err(Error::Rejected(_)) if !is_target => continue,
                found => found?,
            };
            if !is_target {
                rendering.given.push(Target { message: index, bytes });
                continue;
            }
            if let Some(what) = left_out {
                let detail = format!("messages[{index}]: the template leaves out its {what}");
                return Err(Rejection::error(Reason::NotRendered, detail));
            }
            let context = self.empty_think.context(&messages[index], &rendering.text, &bytes);
            rendering.push_turn(Target { message: index, bytes }, &messages[index], &places, context);
        }
        Ok(rendering)
    }
}

#[cfg(test)]
mod tests;
