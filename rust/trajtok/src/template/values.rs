//! What a chat template is given: JSON text as Python would read it, and messages as transformers hands them on.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, Value, ValueKind};
use minijinja::{Error as Fault, State};

use crate::conversation::ToolCall;
use crate::error::{Error as Failure, Reason, Rejection};
use crate::json::{Scanner, Stop};
use crate::template::python_text::{method, refuse};

/// A JSON object whose keys keep their order.
#[derive(Debug)]
struct Dict(Vec<(Value, Value)>);

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| Box::new(this.0.iter().map(|(key, _)| key.clone())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }

    fn call_method(self: &Arc<Self>, state: &mut State<'_, '_>, name: &str, args: &[Value]) -> Result<Value, Fault> {
        // Python asks for the method first: a key of the name `items` is no obstacle.
        method(state, &Value::from_dyn_object(Arc::clone(self)), name, args)
    }
}

/// Reads JSON text as a template sees it: objects keep their keys' order, whole numbers and floats stay apart.
///
/// # Errors
/// What is wrong with the text, or what Python would read otherwise.
pub fn read_json(text: &str) -> Result<Value, String> {
    let mut scanner = Scanner::new(text.as_bytes());
    scanner.skip_blanks();
    let value = read(&mut scanner, text);
    scanner.skip_blanks();
    if let (Ok(_), None, true) = (&value, &scanner.fault, scanner.at < text.len()) {
        return Err(format!("more text behind the value, at byte {}", scanner.at));
    }
    match (value, scanner.fault) {
        (_, Some(fault)) => Err(fault),
        (Ok(value), None) => Ok(value),
        (Err(Stop), None) => Err("not JSON".to_owned()),
    }
}

fn read(scanner: &mut Scanner<'_>, text: &str) -> Result<Value, Stop> {
    Ok(match scanner.peek() {
        b'{' => {
            let mut pairs = Vec::new();
            scanner.object(|scanner, key| {
                pairs.push((Value::from(key.read(text).as_ref()), read(scanner, text)?));
                Ok(())
            })?;
            Value::from_object(Dict(pairs))
        }
        b'[' => {
            let mut items = Vec::new();
            scanner.array(|scanner| {
                items.push(read(scanner, text)?);
                Ok(())
            })?;
            Value::from(items)
        }
        b'"' => Value::from(scanner.string()?.read(text).as_ref()),
        b't' => scanner.skip_value().map(|()| Value::from(true))?,
        b'f' => scanner.skip_value().map(|()| Value::from(false))?,
        b'n' => scanner.skip_value().map(|()| Value::from(()))?,
        b'-' | b'0'..=b'9' => number(scanner)?,
        _ => scanner.skip_value().map(|()| Value::UNDEFINED)?,
    })
}

fn number(scanner: &mut Scanner<'_>) -> Result<Value, Stop> {
    let number = scanner.number()?;
    if number.contains(['.', 'e', 'E']) {
        return Ok(Value::from(number.parse::<f64>().unwrap_or(f64::NAN)));
    }
    let Ok(whole) = number.parse::<i128>() else {
        scanner.note(format!("the whole number {number} has more than 128 bits, which templates do not take here"));
        return Ok(Value::UNDEFINED);
    };
    Ok(Value::from(whole))
}

/// The arguments of a message's `n`-th tool call.
///
/// # Errors
/// `Rejected` with `invalid_arguments`: they are not the text of a JSON object.
pub fn read_arguments(message: usize, n: usize, call: &ToolCall<'_>) -> Result<Value, Failure> {
    let refuse = |problem: String| {
        let detail = format!("messages[{message}].tool_calls[{n}].arguments: {problem}");
        Rejection::error(Reason::InvalidArguments, detail)
    };
    let read = read_json(&call.arguments).map_err(refuse)?;
    match read.kind() {
        ValueKind::Map => Ok(read),
        kind => Err(refuse(format!("expected the text of a JSON object, found {kind}"))),
    }
}

/// The schemas of a conversation's tools: a list.
///
/// # Errors
/// `Rejected` with `invalid_conversation`: they are not the text of a JSON array.
pub fn read_tools(tools: &str) -> Result<Value, Failure> {
    let refuse = |problem| Rejection::error(Reason::InvalidConversation, format!("tools: {problem}"));
    let read = read_json(tools).map_err(refuse)?;
    match read.kind() {
        ValueKind::Seq => Ok(read),
        kind => Err(refuse(format!("expected a list of tool schemas, found {kind}"))),
    }
}

/// An object of these keys, in order.
pub fn dict(pairs: Vec<(&'static str, Value)>) -> Value {
    Value::from_object(Dict(pairs.into_iter().map(|(key, value)| (Value::from(key), value)).collect()))
}

/// The value with every text in it replaced; `write` is told whether a text is a key.
pub fn map_texts(value: &Value, write: &mut dyn FnMut(bool, &str) -> Value) -> Value {
    if let Some(text) = value.as_str() {
        return write(false, text);
    }
    if let Some(Dict(pairs)) = value.downcast_object_ref::<Dict>() {
        let mapped = pairs.iter().map(|(key, value)| {
            let key = key.as_str().map_or_else(|| key.clone(), |key| write(true, key));
            (key, map_texts(value, write))
        });
        return Value::from_object(Dict(mapped.collect()));
    }
    match (value.kind(), value.try_iter()) {
        (ValueKind::Seq, Ok(items)) => items.map(|item| map_texts(&item, write)).collect::<Vec<_>>().into(),
        _ => value.clone(),
    }
}

/// Messages as transformers hands them on: reasoning under each name that templates ask for.
///
/// # Errors
/// What is given is no list of objects.
pub fn with_reasoning(messages: &Value) -> Result<Value, Fault> {
    if messages.kind() != ValueKind::Seq {
        return Err(refuse(format!("expected a list, found {}", messages.kind())));
    }
    let alias = |message: Value| match message.downcast_object_ref::<Dict>() {
        Some(Dict(pairs)) => {
            Ok(alias_reasoning(pairs).map_or(message.clone(), |pairs| Value::from_object(Dict(pairs))))
        }
        None => Err(refuse(format!("expected a list of objects, found {}", message.kind()))),
    };
    messages.try_iter()?.map(alias).collect::<Result<Vec<_>, _>>().map(Value::from)
}

fn alias_reasoning(pairs: &[(Value, Value)]) -> Option<Vec<(Value, Value)>> {
    let get = |name: &str| pairs.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    let names = ["reasoning_content", "thinking", "reasoning"];
    let reasoning = names.into_iter().filter_map(get).find(|value| !value.is_none())?;
    let mut made = vec![(Value::from("thinking"), get("thinking").unwrap_or(reasoning).clone())];
    made.extend(pairs.iter().filter(|(key, _)| key.as_str() != Some("thinking")).cloned());
    match made.iter_mut().find(|(key, _)| key.as_str() == Some("reasoning_content")) {
        Some((_, value)) => *value = reasoning.clone(),
        None => made.push((Value::from("reasoning_content"), reasoning.clone())),
    }
    Some(made)
}
