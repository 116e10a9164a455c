//! Binding of the whole way from a file to token rows.

#![allow(clippy::needless_pass_by_value, reason = "pyo3 hands arguments over by value")]

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::py::tokenizer::PyTokenizer;
use crate::{PrepareSettings, Prepared};

#[pyfunction]
#[pyo3(signature = (input, output, tokenizer, capacity, *, n_threads = None))]
fn prepare<'py>(
    py: Python<'py>,
    input: PathBuf,
    output: PathBuf,
    tokenizer: &Bound<'py, PyTokenizer>,
    capacity: i64,
    n_threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let mut settings = PrepareSettings { capacity, ..PrepareSettings::default() };
    if let Some(n_threads) = n_threads {
        settings.n_threads = n_threads;
    }
    let tokenizer = tokenizer.get();
    let done: Prepared = py.detach(|| crate::prepare(&input, &output, &tokenizer.0, &settings))?;
    let counts = PyDict::new(py);
    for (name, count) in [
        ("n_records", done.n_records),
        ("n_rows", done.n_rows),
        ("n_rejected", done.n_rejected),
        ("n_cut", done.n_cut),
        ("n_tokens", done.n_tokens),
        ("n_trained", done.n_trained),
        ("n_straddling", done.n_straddling),
        ("n_bins", done.n_bins),
    ] {
        counts.set_item(name, count)?;
    }
    Ok(counts)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(prepare, module)?)
}
