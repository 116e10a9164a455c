//! What a template is given beside the conversation: a JSON object of variables.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error as Fault, ErrorKind};

use super::values::read_json;
use crate::error::Error;

/// The variables that a JSON object names.
///
/// # Errors
/// [`Error::TemplateInput`].
pub(crate) fn read_settings(settings: &str) -> Result<Vec<(String, Value)>, Error> {
    let failed = |problem| Error::TemplateInput { name: "settings", problem };
    let faulty = |fault: Fault| failed(describe(&fault));
    let settings = read_json(settings).map_err(failed)?;
    if settings.kind() != ValueKind::Map {
        return Err(failed(format!("expected an object, found {}", settings.kind())));
    }
    let pair = |key: Value| Ok((key.to_string(), settings.get_item(&key).map_err(faulty)?));
    settings.try_iter().map_err(faulty)?.map(pair).collect()
}

/// A fault and what led to it, in one line.
pub(crate) fn describe(fault: &Fault) -> String {
    let mut text = match (fault.detail(), fault.kind()) {
        (Some(detail), ErrorKind::InvalidOperation) => detail.to_owned(),
        (Some(detail), kind) => format!("{kind}: {detail}"),
        (None, kind) => kind.to_string(),
    };
    if let Some(line) = fault.line() {
        let _ = write!(text, " (line {line})");
    }
    let mut source = std::error::Error::source(fault);
    while let Some(inner) = source {
        let _ = write!(text, ": {inner}");
        source = inner.source();
    }
    text
}
