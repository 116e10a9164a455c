//! `read_plain`: rollouts of plain records as rows.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;
use rayon::prelude::*;

use crate::{Layout, PlainReader, PlainRollout};

type Row<'py> = (Bound<'py, PyDict>, Bound<'py, PyDict>, Option<String>);

#[pyfunction]
#[pyo3(signature = (records, *, layout, task, has_recorded_questions, is_redacted))]
pub(crate) fn read_plain<'py>(
    py: Python<'py>,
    records: Vec<PyBackedBytes>,
    layout: &str,
    task: &str,
    has_recorded_questions: bool,
    is_redacted: bool,
) -> PyResult<Vec<Option<Row<'py>>>> {
    let Some(layout) = Layout::named(layout) else { return Ok(records.iter().map(|_| None).collect()) };
    let reader = PlainReader { layout, task, has_recorded_questions, is_redacted };
    let rollouts: Vec<Option<PlainRollout>> =
        py.detach(|| records.par_iter().map(|record| reader.read(record)).collect());
    rollouts.into_iter().map(|rollout| rollout.map(|rollout| row(py, rollout)).transpose()).collect()
}

fn row(py: Python<'_>, rollout: PlainRollout) -> PyResult<Row<'_>> {
    use pyo3::intern;
    let (index, conversation) = (PyDict::new(py), PyDict::new(py));
    index.set_item(intern!(py, "base_key"), &rollout.base_key)?;
    index.set_item(intern!(py, "rollout_key"), rollout.rollout_key)?;
    index.set_item(intern!(py, "question_group"), rollout.question_group)?;
    index.set_item(intern!(py, "question_id"), rollout.question_id)?;
    index.set_item(intern!(py, "source"), rollout.source)?;
    index.set_item(intern!(py, "teacher"), rollout.teacher)?;
    index.set_item(intern!(py, "reward"), rollout.reward)?;
    index.set_item(intern!(py, "pred"), rollout.pred)?;
    index.set_item(intern!(py, "gold"), rollout.gold)?;
    index.set_item(intern!(py, "subject"), rollout.subject)?;
    index.set_item(intern!(py, "session"), rollout.session)?;
    index.set_item(intern!(py, "licence"), rollout.licence)?;
    index.set_item(intern!(py, "origin_url"), rollout.origin_url)?;
    index.set_item(intern!(py, "score"), rollout.score)?;
    index.set_item(intern!(py, "parent"), rollout.parent)?;
    conversation.set_item(intern!(py, "base_key"), rollout.base_key)?;
    conversation.set_item(intern!(py, "conversation"), rollout.turns)?;
    conversation.set_item(intern!(py, "tools"), rollout.tools)?;
    conversation.set_item(intern!(py, "tokenizer"), py.None())?;
    conversation.set_item(intern!(py, "prompt"), rollout.prompt)?;
    conversation.set_item(intern!(py, "extra"), py.None())?;
    Ok((index, conversation, rollout.texts))
}

/// Adds this file's function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_plain, module)?)
}
