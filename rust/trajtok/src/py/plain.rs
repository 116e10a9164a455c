//! `read_plain`: rollouts of plain records as rows, and the texts of others.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyDict;
use rayon::prelude::*;

use crate::{Layout, PlainReader, PlainRollout, Seen};

type Row<'py> = (Bound<'py, PyDict>, Bound<'py, PyDict>, Vec<String>);

#[pyfunction]
#[pyo3(signature = (documents, *, layout, task, has_recorded_questions, is_redacted, is_file))]
pub(crate) fn read_plain<'py>(
    py: Python<'py>,
    documents: Vec<PyBackedBytes>,
    layout: &str,
    task: &str,
    has_recorded_questions: bool,
    is_redacted: bool,
    is_file: bool,
) -> PyResult<Vec<(Option<Row<'py>>, Option<String>)>> {
    let reader = PlainReader { layout: Layout::named(layout), task, has_recorded_questions, is_redacted, is_file };
    let seen: Vec<Seen> = py.detach(|| documents.par_iter().map(|document| reader.look_at(document)).collect());
    seen.into_iter().map(|seen| Ok((seen.rollout.map(|rollout| row(py, rollout)).transpose()?, seen.texts))).collect()
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
    conversation.set_item(intern!(py, "extra"), rollout.extra)?;
    Ok((index, conversation, rollout.unknown_keys))
}

/// Adds this file's function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read_plain, module)?)
}
