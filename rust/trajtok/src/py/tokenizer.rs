//! `Tokenizer` and `EncodedBatch`.

use std::path::PathBuf;

use arrow_array::ffi::to_ffi;
use arrow_array::{Array, StructArray};
use arrow_schema::ffi::FFI_ArrowSchema;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyString};
use rayon::prelude::*;

use crate::encode::{TokenId, load_encoder};
use crate::error::Error;
use crate::row::{Batch, CutRow, OverLength, Tokenizer};
use crate::template::{EmptyThink, TemplateSource};

#[pyclass(name = "Tokenizer", module = "negtraj_dagster._trajtok", frozen)]
pub(crate) struct PyTokenizer(pub(crate) Tokenizer);

#[pymethods]
impl PyTokenizer {
    #[new]
    #[pyo3(signature = (
        tokenizer_json, *, template, max_tokens, over_length = "drop", jinja = None, settings = "{}", empty_think = "mask",
        as_served = false
    ))]
    #[allow(clippy::too_many_arguments, reason = "Python passes them by name")]
    fn new(
        py: Python<'_>,
        tokenizer_json: PathBuf,
        template: &str,
        max_tokens: i64,
        over_length: &str,
        jinja: Option<&str>,
        settings: &str,
        empty_think: &str,
        as_served: bool,
    ) -> PyResult<Self> {
        let over_length = OverLength::parse(over_length)?;
        let empty_think = EmptyThink::parse(empty_think)?;
        let source = TemplateSource { name: template, jinja, settings, empty_think, as_served };
        py.detach(|| {
            let encoder = load_encoder(&tokenizer_json)?;
            Ok(Self(Tokenizer::with_template(encoder, &source, max_tokens, over_length)?))
        })
    }

    #[getter]
    fn encoder(&self) -> &'static str {
        self.0.encoder()
    }

    #[getter]
    fn encoder_note(&self) -> Option<&str> {
        self.0.encoder_note()
    }

    #[getter]
    fn end_of_turn(&self) -> Vec<&str> {
        self.0.end_of_turn()
    }

    #[getter]
    fn control_tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ids = PyDict::new(py);
        for (token, id) in self.0.control_tokens() {
            ids.set_item(token, id)?;
        }
        Ok(ids)
    }

    fn encode(
        &self,
        py: Python<'_>,
        keys: Vec<String>,
        conversations: Vec<Bound<'_, PyString>>,
    ) -> PyResult<PyEncodedBatch> {
        let conversations = conversations.iter().map(to_bytes).collect::<PyResult<Vec<_>>>()?;
        Ok(PyEncodedBatch(py.detach(|| self.0.encode(&keys, &conversations))?))
    }

    fn encode_text(&self, py: Python<'_>, text: &str) -> PyResult<Vec<TokenId>> {
        Ok(py.detach(|| self.0.encode_text(text))?)
    }

    fn encode_texts(&self, py: Python<'_>, texts: Vec<String>) -> PyResult<Vec<Vec<TokenId>>> {
        Ok(py.detach(|| texts.par_iter().map(|text| self.0.encode_text(text)).collect::<Result<_, _>>())?)
    }

    #[pyo3(signature = (conversation, *, add_generation_prompt = false))]
    fn render(
        &self,
        conversation: &Bound<'_, PyString>,
        add_generation_prompt: bool,
    ) -> PyResult<Vec<(String, bool, f64)>> {
        let rendering = self.0.render(&to_bytes(conversation)?, add_generation_prompt)?;
        let pieces = rendering.pieces();
        Ok(pieces.iter().map(|piece| (piece.text.to_owned(), piece.is_control, piece.weight)).collect())
    }

    fn prompt_ids(&self, py: Python<'_>, conversation: &Bound<'_, PyString>) -> PyResult<Vec<TokenId>> {
        let conversation = to_bytes(conversation)?;
        Ok(py.detach(|| self.0.prompt_ids(&conversation))?)
    }
}

/// UTF-8, or, of a string with lone surrogates, bytes that the parser refuses: such a row is rejected like any other.
fn to_bytes(text: &Bound<'_, PyString>) -> PyResult<Vec<u8>> {
    match text.to_str() {
        Ok(text) => Ok(text.as_bytes().to_vec()),
        Err(_) => text.call_method1("encode", ("utf-8", "surrogatepass"))?.extract(),
    }
}

#[pyclass(name = "EncodedBatch", module = "negtraj_dagster._trajtok", frozen)]
struct PyEncodedBatch(Batch);

#[pymethods]
impl PyEncodedBatch {
    #[getter]
    fn n_rows(&self) -> usize {
        self.0.records.num_rows()
    }

    #[getter]
    fn n_straddling(&self) -> usize {
        self.0.n_straddling
    }

    #[getter]
    fn n_drifted(&self) -> usize {
        self.0.n_drifted
    }

    #[getter]
    fn rejected(&self) -> Vec<(&str, &'static str, &str)> {
        self.0.rejected.iter().map(|row| (row.key.as_str(), row.reason.as_str(), row.detail.as_str())).collect()
    }

    #[getter]
    fn cut(&self) -> Vec<(String, usize, usize, usize)> {
        let tuple = |row: &CutRow| (row.key.clone(), row.cut.n_kept, row.cut.n_messages, row.cut.n_tokens);
        self.0.cut.iter().map(tuple).collect()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.0.records.schema().as_ref()).map_err(Error::from)?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // The protocol lets a producer ignore the request; the consumer casts.
        let _ = requested_schema;
        let (array, _) = to_ffi(&StructArray::from(self.0.records.clone()).into_data()).map_err(Error::from)?;
        Ok((self.__arrow_c_schema__(py)?, PyCapsule::new_with_value(py, array, c"arrow_array")?))
    }
}

/// Adds this file's classes.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyTokenizer>()?;
    module.add_class::<PyEncodedBatch>()
}
