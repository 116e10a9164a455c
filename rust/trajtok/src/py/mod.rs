//! The Python module `negtraj_dagster._trajtok`: converts, detaches from the interpreter, maps errors. No logic.
//!
//! Documented in `negtraj_dagster/_trajtok.pyi`.

#![allow(clippy::needless_pass_by_value, reason = "pyo3 hands arguments over by value")]

mod arrow;
mod condition;
mod errors;
mod jinja;
mod json;
mod pack;
mod plain;
mod prepare;
mod proof;
mod reader;
mod signature;
mod tokenizer;

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::VERSION;
use crate::row::TOKEN_FORMAT_VERSION;
use crate::template::TEMPLATES;
use errors::{PackError, TemplateError, TokenizerError, TrajtokError};

#[pymodule]
fn _trajtok(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    // Rows are encoded side by side already: fastokens must not start threads of its own for long texts.
    py.import("os")?.getattr("environ")?.call_method1("setdefault", ("FASTOKENS_BPE_THREADS", "1"))?;
    module.add("__version__", VERSION)?;
    module.add("TOKEN_FORMAT_VERSION", TOKEN_FORMAT_VERSION)?;
    module.add("TEMPLATES", PyTuple::new(py, TEMPLATES)?)?;
    module.add("TrajtokError", py.get_type::<TrajtokError>())?;
    module.add("TokenizerError", py.get_type::<TokenizerError>())?;
    module.add("TemplateError", py.get_type::<TemplateError>())?;
    module.add("PackError", py.get_type::<PackError>())?;
    condition::register(module)?;
    tokenizer::register(module)?;
    jinja::register(module)?;
    json::register(module)?;
    pack::register(module)?;
    plain::register(module)?;
    prepare::register(module)?;
    proof::register(module)?;
    signature::register(module)?;
    reader::register(module)
}
