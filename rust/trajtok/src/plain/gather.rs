//! The texts of a record that secrets are looked for in, in the order in which `rollouts/redact.py` gathers them.

use super::value::Value;

/// Keys that every message has: no names of secrets, and not worth scanning.
const WORDS_OF_FORMATS: [&str; 11] =
    ["", "role", "content", "type", "id", "function", "arguments", "tool_calls", "text", "value", "from"];
/// Every key under which a value may be a secret whatever it is has one of these in it.
const PARTS_OF_NAMES: [&str; 9] =
    ["pass", "pw", "secret", "string", "key", "token", "credential", "authorization", "cookie"];
/// What says whose the value beside it is.
const NAMED_BY: [&str; 4] = ["name", "key", "header", "variable"];

/// All texts, a line each; `None` where a key may name a secret, or a text may be JSON to others.
pub(super) fn texts_of(value: &Value<'_>) -> Option<String> {
    let mut texts = String::new();
    gather(value, &mut texts)?;
    texts.pop();
    Some(texts)
}

fn gather(value: &Value<'_>, texts: &mut String) -> Option<()> {
    match value {
        Value::Object(pairs) => {
            for (key, inner) in pairs {
                gather_key(key, texts)?;
                let is_value = matches!(key.as_ref(), "value" | "plaintext");
                let is_named =
                    || pairs.iter().any(|(by, name)| NAMED_BY.contains(&by.as_ref()) && name.as_text().is_some());
                if key == "logprob" || (is_value && is_named()) {
                    return None;
                }
                gather(inner, texts)?;
            }
        }
        Value::List(items) => items.iter().try_for_each(|item| gather(item, texts))?,
        Value::Text(text) if text.starts_with(['{', '[']) => match serde_json::from_str::<Value<'_>>(text) {
            Ok(inside) => gather(&inside, texts)?,
            Err(error) if is_no_json(text, &error) => push(text, texts),
            Err(_) => return None,
        },
        Value::Text(text) => push(text, texts),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Number(_) => {}
    }
    Some(())
}

/// Whether a text is JSON to nobody: not to a parser either that takes keys twice, any number, `NaN` and `Infinity`.
fn is_no_json(text: &str, error: &serde_json::Error) -> bool {
    let message = error.to_string();
    !text.contains("NaN") && !text.contains("Infinity") && FAULTS.iter().any(|fault| message.starts_with(fault))
}

/// What every parser refuses.
const FAULTS: [&str; 8] = [
    "expected value",
    "expected ident",
    "expected `",
    "key must be a string",
    "EOF while parsing",
    "trailing c",
    "invalid escape",
    "control character",
];

fn gather_key(key: &str, texts: &mut String) -> Option<()> {
    if WORDS_OF_FORMATS.contains(&key) {
        return Some(());
    }
    // A capital letter that is lowered to one of these (K, the sign of Kelvin) is not ASCII.
    let lowered = key.to_ascii_lowercase();
    if !key.is_ascii() || key.starts_with(['{', '[']) || PARTS_OF_NAMES.iter().any(|part| lowered.contains(part)) {
        return None;
    }
    push(key, texts);
    Some(())
}

fn push(text: &str, texts: &mut String) {
    texts.push_str(text);
    texts.push('\n');
}
