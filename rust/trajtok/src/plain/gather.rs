//! The texts of a record that secrets are looked for in, in the order in which `rollouts/redact.py` gathers them.

use std::borrow::Cow;

use super::value::Value;

/// Keys that every message has: no names of secrets, and not worth scanning.
const WORDS_OF_FORMATS: [&str; 11] =
    ["", "role", "content", "type", "id", "function", "arguments", "tool_calls", "text", "value", "from"];
/// How keys end under which a value may be a secret whatever it is; `key` and `keys` do so behind one of `OF_KEYS` alone.
const ENDS_OF_NAMES: [&str; 19] = [
    "pass",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "pw",
    "secret",
    "connectionstring",
    "connection_string",
    "connection-string",
    "token",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "passwords",
    "secrets",
    "apikeys",
    "api_keys",
];
const OF_KEYS: [&str; 12] = [
    "api",
    "access",
    "secret",
    "private",
    "signing",
    "encryption",
    "account",
    "readonly",
    "master",
    "admin",
    "openai",
    "app",
];
/// Beside these stands what is a secret by its looks.
const PAIRED: [&str; 2] = ["auth", "_auth"];
/// What says whose the value beside it is.
const NAMED_BY: [&str; 4] = ["name", "key", "header", "variable"];

/// All texts, a line each; `None` where a key may name a secret, or a text may be JSON to others.
pub(super) fn texts_of(value: &Value<'_>) -> Option<String> {
    let mut texts = String::new();
    gather(value, &mut texts)?;
    texts.pop();
    Some(texts)
}

/// The same of a file that is one document: an object, a list of objects, or a line for each.
pub(super) fn texts_of_file(file: &[u8]) -> Option<String> {
    if file.trim_ascii().is_empty() {
        return None;
    }
    let mut texts = String::from("objects\n");
    match serde_json::from_slice::<Value<'_>>(file) {
        Ok(Value::List(items)) => items.iter().try_for_each(|item| gather_object(item, &mut texts))?,
        Ok(value) => gather_object(&value, &mut texts)?,
        Err(_) => {
            for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
                gather_object(&serde_json::from_slice(line).ok()?, &mut texts)?;
            }
        }
    }
    texts.push_str("beside");
    Some(texts)
}

fn gather_object(value: &Value<'_>, texts: &mut String) -> Option<()> {
    value.as_object()?;
    gather(value, texts)
}

fn gather(value: &Value<'_>, texts: &mut String) -> Option<()> {
    match value {
        Value::Object(pairs) => {
            for (key, inner) in pairs {
                gather_key(key, texts)?;
                if key == "logprob" || (matches!(key.as_ref(), "value" | "plaintext") && names_secret(pairs)) {
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
    if key.starts_with(['{', '[']) || may_name_secret(key) {
        return None;
    }
    push(key, texts);
    Some(())
}

/// Whether what stands beside a `value` may say that it is a secret.
fn names_secret(pairs: &[(Cow<'_, str>, Value<'_>)]) -> bool {
    pairs.iter().any(|(by, name)| NAMED_BY.contains(&by.as_ref()) && name.as_text().is_some_and(may_name_secret))
}

fn may_name_secret(key: &str) -> bool {
    // A capital letter that is lowered to one of these (K, the sign of Kelvin) is not ASCII.
    let lowered = key.to_ascii_lowercase();
    let is_key_of = |word: &&str| {
        let before = lowered.strip_suffix("key").unwrap_or_default();
        before.strip_suffix(['_', '-']).unwrap_or(before).ends_with(*word)
    };
    !key.is_ascii()
        || PAIRED.contains(&lowered.as_str())
        || ENDS_OF_NAMES.iter().any(|end| lowered.ends_with(end))
        || OF_KEYS.iter().any(is_key_of)
}

fn push(text: &str, texts: &mut String) {
    texts.push_str(text);
    texts.push('\n');
}
