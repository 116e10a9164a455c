//! The templates that write role and content alone.

use crate::conversation::Message;
use crate::python_text::strip;

pub(super) fn chatml(messages: &[Message<'_>], is_prompt: bool, text: &mut String) {
    for message in messages {
        push(text, &["<|im_start|>", &message.role, "\n", &message.content, "<|im_end|>\n"]);
    }
    if is_prompt {
        text.push_str("<|im_start|>assistant\n");
    }
}

pub(super) fn llama3(messages: &[Message<'_>], is_prompt: bool, text: &mut String) {
    let header = |text: &mut String, role: &str| push(text, &["<|start_header_id|>", role, "<|end_header_id|>\n\n"]);
    if !messages.is_empty() {
        text.push_str("<|begin_of_text|>");
    }
    for message in messages {
        header(text, &message.role);
        push(text, &[strip(&message.content), "<|eot_id|>"]);
    }
    if is_prompt {
        header(text, "assistant");
    }
}

pub(super) fn zephyr(messages: &[Message<'_>], is_prompt: bool, text: &mut String) {
    for message in messages {
        push(text, &["<|", &message.role, "|>\n", &message.content, "</s>\n"]);
    }
    if is_prompt {
        text.push_str("<|assistant|>\n");
    }
}

pub(super) fn llama2(messages: &[Message<'_>], text: &mut String) {
    let (system, rest) = split_system(messages);
    for (index, message) in rest.iter().enumerate() {
        let content = match system {
            Some(system) if index == 0 => {
                format!("<<SYS>>\n{system}\n<</SYS>>\n\n{}", message.content)
            }
            _ => message.content.to_string(),
        };
        if message.role == "user" {
            push(text, &["<s>[INST] ", strip(&content), " [/INST]"]);
        } else {
            push(text, &[" ", strip(&content), " </s>"]);
        }
    }
}

pub(super) fn mistral(messages: &[Message<'_>], text: &mut String) {
    let (system, rest) = split_system(messages);
    text.push_str("<s>");
    for (index, message) in rest.iter().enumerate() {
        let before = match system {
            Some(system) if index == 0 => [system, "\n\n"],
            _ => ["", ""],
        };
        if message.role == "user" {
            push(text, &[" [INST] ", before[0], before[1], &message.content, " [/INST]"]);
        } else {
            push(text, &[" ", before[0], before[1], &message.content, "</s>"]);
        }
    }
}

/// The content of a system message that stands first, and what follows it.
fn split_system<'m, 'a>(messages: &'m [Message<'a>]) -> (Option<&'m str>, &'m [Message<'a>]) {
    match messages {
        [first, rest @ ..] if first.role == "system" => (Some(&first.content), rest),
        _ => (None, messages),
    }
}

fn push(text: &mut String, parts: &[&str]) {
    text.extend(parts.iter().copied());
}
