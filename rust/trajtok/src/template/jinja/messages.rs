//! A conversation as transformers hands it to a template, and what templates are tried with.

use minijinja::value::Value;

use crate::conversation::{Conversation, Message, Role, ToolCall, WeighedField};
use crate::error::{Error, Reason, Rejection};
use crate::template::values::{dict, map_texts, read_arguments, read_json, read_tools, with_reasoning};

/// What a text that is handed to a template is.
#[derive(Debug, Clone, Copy)]
pub enum Spot {
    /// A text that templates pass on as it is.
    Text { message: usize, field: Option<WeighedField>, what: &'static str },
    /// A name, an id or a key of arguments.
    Name,
    /// A part of a tool's schema: templates compare these.
    Schema { is_key: bool },
}

/// A conversation as the template sees it.
pub struct Values {
    pub messages: Vec<Value>,
    pub tools: Value,
    pub n_bytes: usize,
}

impl Values {
    /// A conversation's, each text as `write` gives it.
    ///
    /// # Errors
    /// [`Error::Rejected`]: arguments or tools are not what their keys say.
    pub fn new(conversation: &Conversation<'_>, write: &mut dyn FnMut(Spot, &str) -> String) -> Result<Self, Error> {
        let mut n_bytes = 0;
        let mut write = |spot: Spot, text: &str| {
            let made = write(spot, text);
            n_bytes += made.len();
            Value::from(made)
        };
        let messages: Vec<Value> = (0..)
            .zip(&conversation.messages)
            .map(|(index, message)| message_value(index, message, &mut write))
            .collect::<Result<_, _>>()?;
        let tools = match &conversation.tools {
            None => Value::from(()),
            Some(tools) => map_texts(&read_tools(tools)?, &mut |is_key, text| write(Spot::Schema { is_key }, text)),
        };
        let messages = with_reasoning(&Value::from(messages))
            .and_then(|messages| Ok(messages.try_iter()?.collect()))
            .map_err(|fault| Rejection::error(Reason::InvalidConversation, fault.to_string()))?;
        Ok(Self { messages, tools, n_bytes })
    }
}

/// What a template is tried with: somebody asks, and is answered.
pub fn spoken() -> Vec<Message<'static>> {
    [Role::User, Role::Assistant, Role::User].map(|role| Message::plain(role, "a".into(), 0.0)).to_vec()
}

/// Somebody asks, and a tool is called.
pub fn called() -> Conversation<'static> {
    let id = || Some("callabcde".into());
    let call = ToolCall { name: "t".into(), arguments: r#"{"a":"b"}"#.into(), id: id() };
    let calling = Message { tool_calls: vec![call], ..Message::plain(Role::Assistant, "".into(), 0.0) };
    let tools = r#"[{"type":"function","function":{"name":"t","description":"d","parameters":
        {"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}}}]"#;
    let asking = Message::plain(Role::User, "a".into(), 0.0);
    Conversation { messages: vec![asking, calling], tools: Some(tools.into()), tokenizer: None }
}

/// Every text of a conversation.
pub fn all_texts<'a>(conversation: &'a Conversation<'_>) -> impl Iterator<Item = &'a str> {
    let texts = |message: &'a Message<'_>| {
        let optional = [&message.reasoning, &message.tool_call_id, &message.name].into_iter().flatten();
        let calls = message
            .tool_calls
            .iter()
            .flat_map(|call| [Some(&call.name), Some(&call.arguments), call.id.as_ref()].into_iter().flatten());
        std::iter::once(&message.content).chain(optional).chain(calls).map(AsRef::as_ref)
    };
    conversation.messages.iter().flat_map(texts).chain(conversation.tools.as_deref())
}

/// Names, ids and keys of arguments.
pub fn all_names(conversation: &Conversation<'_>) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    for message in &conversation.messages {
        names.extend([&message.name, &message.tool_call_id].into_iter().flatten().map(ToString::to_string));
        for call in &message.tool_calls {
            names.extend(call.id.as_ref().map(ToString::to_string));
            if let Ok(read) = read_json(&call.arguments) {
                let _ = map_texts(&read, &mut |is_key, text| {
                    names.extend(is_key.then(|| text.to_owned()));
                    Value::from(())
                });
            }
        }
    }
    names.into_iter()
}

type Write<'w> = dyn FnMut(Spot, &str) -> Value + 'w;

/// A message as transformers hands it to a template.
fn message_value(index: usize, message: &Message<'_>, write: &mut Write<'_>) -> Result<Value, Error> {
    let text = |field, what| Spot::Text { message: index, field, what };
    let content = write(text(Some(WeighedField::Content), "content"), &message.content);
    let mut pairs = vec![("role", Value::from(message.role.as_str())), ("content", content)];
    if let Some(reasoning) = &message.reasoning {
        pairs.push(("reasoning_content", write(text(Some(WeighedField::Reasoning), "reasoning"), reasoning)));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().enumerate().map(|(n, call)| call_value(index, n, call, write));
        pairs.push(("tool_calls", Value::from(calls.collect::<Result<Vec<_>, _>>()?)));
    }
    if let Some(name) = &message.name {
        pairs.push(("name", write(Spot::Name, name)));
    }
    if let Some(id) = &message.tool_call_id {
        pairs.push(("tool_call_id", write(Spot::Name, id)));
    }
    Ok(dict(pairs))
}

fn call_value(message: usize, n: usize, call: &ToolCall<'_>, write: &mut Write<'_>) -> Result<Value, Error> {
    let read = read_arguments(message, n, call)?;
    let spot = |what| Spot::Text { message, field: None, what };
    let arguments = map_texts(&read, &mut |is_key, text| {
        if is_key { write(Spot::Name, text) } else { write(spot("tool call's argument"), text) }
    });
    let name = write(spot("tool call"), &call.name);
    let mut pairs = vec![("type", Value::from("function"))];
    if let Some(id) = &call.id {
        pairs.push(("id", write(Spot::Name, id)));
    }
    pairs.push(("function", dict(vec![("name", name), ("arguments", arguments)])));
    Ok(dict(pairs))
}
