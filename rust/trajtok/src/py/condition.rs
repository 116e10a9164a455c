//! `condition`: recorded conversations as they are trained.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use rayon::prelude::*;

use crate::Conditioning;

#[pyfunction]
#[pyo3(signature = (conversations, *, keeps_last_turns))]
pub(crate) fn condition(
    py: Python<'_>,
    conversations: Vec<(PyBackedStr, PyBackedStr, Option<PyBackedStr>)>,
    keeps_last_turns: bool,
) -> Vec<Option<String>> {
    py.detach(|| {
        conversations
            .par_iter()
            .map(|(turns, context, tools)| {
                Conditioning { context, tools: tools.as_deref(), keeps_last_turns }.apply(turns)
            })
            .collect()
    })
}

/// Adds this file's function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(condition, module)?)
}
