//! Values of Python's as JSON text: `canonical_json` is equal for equal values, `json_as_recorded` keeps the order of keys.
//! Also `digest`, which names texts, and `has_infinity`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::digest::digest_of;
use crate::json_text::{push_float, push_text};

/// Deeper values are Python's to write, or to refuse.
const MAX_DEPTH: usize = 100;

/// What stands between values, and in which order an object's are.
struct Style {
    comma: &'static str,
    colon: &'static str,
    is_sorted: bool,
}

const CANONICAL: Style = Style { comma: ",", colon: ":", is_sorted: true };
const AS_RECORDED: Style = Style { comma: ", ", colon: ": ", is_sorted: false };

#[pyfunction]
pub(crate) fn canonical_json(value: &Bound<'_, PyAny>) -> Option<String> {
    let mut text = String::new();
    push(value, &mut text, &CANONICAL, 0)?;
    Some(text)
}

#[pyfunction]
pub(crate) fn json_as_recorded(value: &Bound<'_, PyAny>) -> Option<String> {
    let mut text = String::new();
    push(value, &mut text, &AS_RECORDED, 0)?;
    Some(text)
}

/// `None` for what Python's own encoder has to judge: other types, whole numbers of more than 64 bits, NaN, lone surrogates.
fn push(value: &Bound<'_, PyAny>, out: &mut String, style: &Style, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        push_text(text.to_str().ok()?, out);
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        push_dict(dict, out, style, depth)?;
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        push_all(list.iter(), out, style, depth)?;
    } else if value.is_none() {
        out.push_str("null");
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        out.push_str(if flag.is_true() { "true" } else { "false" });
    } else if let Ok(number) = value.cast_exact::<PyInt>() {
        out.push_str(&number.extract::<i64>().ok()?.to_string());
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        let number = number.value();
        number.is_finite().then(|| push_float(number, out))?;
    } else {
        push_all(value.cast_exact::<PyTuple>().ok()?.iter(), out, style, depth)?;
    }
    Some(())
}

fn push_dict(dict: &Bound<'_, PyDict>, out: &mut String, style: &Style, depth: usize) -> Option<()> {
    let pairs: Vec<(Bound<'_, PyString>, Bound<'_, PyAny>)> = dict
        .iter()
        .map(|(key, inner)| Some((key.cast_into_exact::<PyString>().ok()?, inner)))
        .collect::<Option<_>>()?;
    let mut named =
        pairs.iter().map(|(key, inner)| Some((key.to_str().ok()?, inner))).collect::<Option<Vec<(&str, _)>>>()?;
    if style.is_sorted {
        named.sort_unstable_by_key(|(key, _)| *key); // by UTF-8, which is the order of code points
    }
    out.push('{');
    for (index, (key, inner)) in named.into_iter().enumerate() {
        out.push_str(if index > 0 { style.comma } else { "" });
        push_text(key, out);
        out.push_str(style.colon);
        push(inner, out, style, depth + 1)?;
    }
    out.push('}');
    Some(())
}

fn push_all<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    out: &mut String,
    style: &Style,
    depth: usize,
) -> Option<()> {
    out.push('[');
    for (index, item) in items.enumerate() {
        out.push_str(if index > 0 { style.comma } else { "" });
        push(&item, out, style, depth + 1)?;
    }
    out.push(']');
    Some(())
}

#[pyfunction]
pub(crate) fn has_infinity(value: &Bound<'_, PyAny>) -> bool {
    let mut open = vec![value.clone()];
    while let Some(inner) = open.pop() {
        if let Ok(dict) = inner.cast_exact::<PyDict>() {
            open.extend(dict.iter().map(|(_, item)| item).filter(may_hold_floats));
        } else if let Ok(list) = inner.cast_exact::<PyList>() {
            open.extend(list.iter().filter(may_hold_floats));
        } else if inner.cast_exact::<PyFloat>().is_ok_and(|number| number.value().is_infinite()) {
            return true;
        }
    }
    false
}

fn may_hold_floats(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyFloat>()
}

#[pyfunction]
#[pyo3(signature = (*parts))]
pub(crate) fn digest(parts: &Bound<'_, PyTuple>) -> PyResult<String> {
    let parts: Vec<Bound<'_, PyAny>> = parts.iter().collect();
    let bytes = parts.iter().map(|part| {
        if let Ok(text) = part.cast::<PyString>() {
            Ok(text.to_str()?.as_bytes())
        } else if let Ok(bytes) = part.cast::<PyBytes>() {
            Ok(bytes.as_bytes())
        } else {
            Err(PyTypeError::new_err(format!("expected str or bytes, found {}", part.get_type().name()?)))
        }
    });
    Ok(digest_of(bytes.collect::<PyResult<Vec<&[u8]>>>()?))
}

/// Adds this file's functions.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(canonical_json, module)?)?;
    module.add_function(wrap_pyfunction!(digest, module)?)?;
    module.add_function(wrap_pyfunction!(json_as_recorded, module)?)?;
    module.add_function(wrap_pyfunction!(has_infinity, module)?)
}
