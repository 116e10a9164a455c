//! Bindings of the signatures.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::arrow::{HashColumn, PyRecordBatch, TextColumn, to_groups, to_numbers};
use crate::{MinHashSettings, PairSettings};

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

#[pyfunction]
#[pyo3(signature = (
    sketches, bands, groups, *, at = None, sketch_size = 512, min_similarity = 0.3, n_group = 32, n_bucket = 8
))]
#[allow(clippy::too_many_arguments, reason = "Python passes them by name")]
pub(crate) fn similar_pairs(
    py: Python<'_>,
    sketches: &Bound<'_, PyAny>,
    bands: &Bound<'_, PyAny>,
    groups: &Bound<'_, PyAny>,
    at: Option<&Bound<'_, PyAny>>,
    sketch_size: usize,
    min_similarity: f64,
    n_group: usize,
    n_bucket: usize,
) -> PyResult<PyRecordBatch> {
    let (sketches, bands) = (HashColumn::read("sketches", sketches)?, HashColumn::read("bands", bands)?);
    let groups = to_groups(groups)?;
    let settings = PairSettings { sketch_size, min_similarity, n_group, n_bucket };
    let at = at.map(|at| to_numbers("at", at)).transpose()?;
    let (mut sketches, mut bands) = (sketches.rows(), bands.rows());
    if let Some(at) = at {
        (sketches, bands) = (placed("sketches", &sketches, &at)?, placed("bands", &bands, &at)?);
    }
    let found = py.detach(|| crate::similar_pairs(&sketches, &bands, &groups, settings))?;
    Ok(PyRecordBatch(found))
}

/// Each row's list: the one at its place, none where it has no place.
fn placed<'a>(name: &str, lists: &[Option<&'a [u64]>], at: &[Option<u32>]) -> PyResult<Vec<Option<&'a [u64]>>> {
    let list = |place: &Option<u32>| {
        let Some(place) = *place else { return Ok(None) };
        lists.get(place as usize).copied().ok_or_else(|| {
            PyValueError::new_err(format!("at: found place {place}, expected one of the {} {name}", lists.len()))
        })
    };
    at.iter().map(list).collect()
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(minhash, module)?)?;
    module.add_function(wrap_pyfunction!(ngrams, module)?)?;
    module.add_function(wrap_pyfunction!(contaminated, module)?)?;
    module.add_function(wrap_pyfunction!(similar_pairs, module)?)
}
