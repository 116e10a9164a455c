//! Qwen3's chat format: tools, and reasoning for what follows the user's last question alone.

use std::fmt::Write;

use crate::conversation::Message;
use crate::json::Json;

const TOOLS: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with \
function signatures within <tools></tools> XML tags:\n<tools>";
const TOOLS_END: &str = "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

/// Writes the text; `prompts` says whether the generation prompt is written, and whether it leaves the thinking open.
pub(super) fn write(
    messages: &[Message<'_>],
    tools: Option<&str>,
    prompts: Option<bool>,
    text: &mut String,
) -> Option<()> {
    head(messages, tools, text)?;
    let question = last_question(messages);
    for index in 0..messages.len() {
        message(messages, index, index > question, text)?;
    }
    if let Some(thinks) = prompts {
        text.push_str("<|im_start|>assistant\n");
        text.push_str(if thinks { "" } else { "<think>\n\n</think>\n\n" });
    }
    Some(())
}

fn head(messages: &[Message<'_>], tools: Option<&str>, text: &mut String) -> Option<()> {
    let first = messages.first()?;
    let system = (first.role == "system").then_some(first.content.as_ref());
    let schemas = match tools.map(Json::parse) {
        None => Vec::new(),
        Some(Some(Json::List(schemas))) => schemas,
        Some(_) => return None,
    };
    if system.is_none() && schemas.is_empty() {
        return Some(());
    }
    text.push_str("<|im_start|>system\n");
    text.push_str(system.unwrap_or(""));
    if !schemas.is_empty() {
        text.push_str(if system.is_some() { "\n\n" } else { "" });
        text.push_str(TOOLS);
        for schema in &schemas {
            write!(text, "\n{schema}").ok()?;
        }
        text.push_str(TOOLS_END);
    }
    text.push_str("<|im_end|>\n");
    Some(())
}

/// The last user message that is no tool's answer in disguise; the last message where there is none.
fn last_question(messages: &[Message<'_>]) -> usize {
    let is_answer = |content: &str| content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    messages
        .iter()
        .rposition(|message| message.role == "user" && !is_answer(&message.content))
        .unwrap_or(messages.len() - 1)
}

fn message(messages: &[Message<'_>], index: usize, thinks: bool, text: &mut String) -> Option<()> {
    let Message { role, content, .. } = &messages[index];
    let is_tool = |other: Option<&Message<'_>>| other.is_some_and(|message| message.role == "tool");
    match role.as_ref() {
        "assistant" => return answer(&messages[index], index + 1 == messages.len(), thinks, text),
        "tool" => {
            let before = index.checked_sub(1).and_then(|at| messages.get(at));
            text.push_str(if is_tool(before) { "" } else { "<|im_start|>user" });
            write!(text, "\n<tool_response>\n{content}\n</tool_response>").ok()?;
            text.push_str(if is_tool(messages.get(index + 1)) { "" } else { "<|im_end|>\n" });
        }
        "system" if index == 0 => {}
        _ => write!(text, "<|im_start|>{role}\n{content}<|im_end|>\n").ok()?,
    }
    Some(())
}

fn answer(message: &Message<'_>, is_last: bool, thinks: bool, text: &mut String) -> Option<()> {
    let mut content = message.content.as_ref();
    let mut reasoning = message.reasoning.as_deref().unwrap_or("");
    if message.reasoning.is_none() && content.contains("</think>") {
        let before = content.split("</think>").next().unwrap_or("").trim_end_matches('\n');
        reasoning = before.rsplit("<think>").next().unwrap_or("").trim_start_matches('\n');
        content = content.rsplit("</think>").next().unwrap_or("").trim_start_matches('\n');
    }
    text.push_str("<|im_start|>assistant\n");
    if thinks && (is_last || !reasoning.is_empty()) {
        let (reasoning, content) = (reasoning.trim_matches('\n'), content.trim_start_matches('\n'));
        write!(text, "<think>\n{reasoning}\n</think>\n\n{content}").ok()?;
    } else {
        text.push_str(content);
    }
    for (number, call) in message.tool_calls.iter().enumerate() {
        let arguments = Json::parse(&call.arguments)?;
        text.push_str(if number > 0 || !content.is_empty() { "\n" } else { "" });
        write!(text, "<tool_call>\n{{\"name\": \"{}\", \"arguments\": {arguments}}}\n</tool_call>", call.name).ok()?;
    }
    text.push_str("<|im_end|>\n");
    Some(())
}
