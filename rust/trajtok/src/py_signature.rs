//! Bindings of the signatures.

use pyo3::prelude::*;

use crate::MinHashSettings;
use crate::py_arrow::{PyRecordBatch, TextColumn};

#[pyfunction]
#[pyo3(signature = (texts, *, n_words = 5, permutations = 128, bands = 16, rows = 8, seed = 0))]
pub(crate) fn minhash(
    py: Python<'_>,
    texts: &Bound<'_, PyAny>,
    n_words: usize,
    permutations: usize,
    bands: usize,
    rows: usize,
    seed: u64,
) -> PyResult<PyRecordBatch> {
    let texts = TextColumn::read(texts)?;
    let settings = MinHashSettings { n_words, permutations, bands, rows, seed };
    Ok(PyRecordBatch(py.detach(|| crate::minhash(&texts.rows(), settings))?))
}

#[pyfunction]
#[pyo3(signature = (texts, *, n_words = 13))]
pub(crate) fn ngrams(py: Python<'_>, texts: &Bound<'_, PyAny>, n_words: usize) -> PyResult<PyRecordBatch> {
    let texts = TextColumn::read(texts)?;
    Ok(PyRecordBatch(py.detach(|| crate::ngrams(&texts.rows(), n_words))?))
}

#[pyfunction]
#[pyo3(signature = (texts, references, *, n_words = 13, min_words = 13))]
pub(crate) fn contaminated(
    py: Python<'_>,
    texts: &Bound<'_, PyAny>,
    references: &Bound<'_, PyAny>,
    n_words: usize,
    min_words: usize,
) -> PyResult<PyRecordBatch> {
    let (texts, references) = (TextColumn::read(texts)?, TextColumn::read(references)?);
    let found = py.detach(|| crate::contaminated(&texts.rows(), &references.rows(), n_words, min_words))?;
    Ok(PyRecordBatch(found))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(minhash, module)?)?;
    module.add_function(wrap_pyfunction!(ngrams, module)?)?;
    module.add_function(wrap_pyfunction!(contaminated, module)?)
}
