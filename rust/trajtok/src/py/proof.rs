//! `RowProver`: hands rows, conversations and the serving side to `trajproof`, which shares no code with this crate.

use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{Array, RecordBatch};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rayon::prelude::*;
use trajproof::{
    Conversation as Proved, GivenTexts, NativeTexts, Piece, Prompt, Proof, Reader, Row, Served, Span, Template,
};

use crate::Conversation;
use crate::encode::Tokens;
use crate::py::tokenizer::PyTokenizer;
use crate::row::Tokenizer;
use crate::template::{Rendering, SegmentKind};

#[pyclass(name = "RowProver", module = "negtraj_dagster._trajtok", frozen)]
struct RowProver {
    tokenizer: Py<PyTokenizer>,
    /// `None` where the texts are handed over.
    template: Option<Template>,
    proof: Proof,
}

type Given = Option<Vec<(usize, bool, String)>>;

#[pymethods]
impl RowProver {
    #[staticmethod]
    #[pyo3(signature = (tokenizer, tokenizer_json, *, template, enable_thinking, masks_empty_think))]
    fn open(
        py: Python<'_>,
        tokenizer: Py<PyTokenizer>,
        tokenizer_json: PathBuf,
        template: Option<&str>,
        enable_thinking: bool,
        masks_empty_think: bool,
    ) -> PyResult<Option<Self>> {
        let named = template.map(|name| Template::named(name, enable_thinking));
        if named == Some(None) {
            return Ok(None);
        }
        let reader = py.detach(|| std::fs::read(tokenizer_json).map(|bytes| Reader::new(&bytes)))?;
        let proof = reader.map(|reader| Proof::new(reader, masks_empty_think));
        Ok(proof.map(|proof| Self { tokenizer, template: named.flatten(), proof }))
    }

    #[pyo3(signature = (rows, conversations, n_kept, texts = None))]
    fn prove(
        &self,
        py: Python<'_>,
        rows: pyo3_arrow::PyRecordBatch,
        conversations: Vec<String>,
        n_kept: Vec<Option<usize>>,
        texts: Option<Vec<Given>>,
    ) -> PyResult<Vec<Option<usize>>> {
        let rows = Columns::of(rows.into_inner())?;
        let n_rows = rows.0.num_rows();
        let texts = texts.unwrap_or_else(|| vec![None; n_rows]);
        if [conversations.len(), n_kept.len(), texts.len()] != [n_rows; 3] {
            return Err(PyValueError::new_err(format!(
                "found {} conversations, {} counts and {} lists of texts for {n_rows} rows; expected one each",
                conversations.len(),
                n_kept.len(),
                texts.len()
            )));
        }
        let tokenizer = &self.tokenizer.get().0;
        let asked: Vec<_> = conversations.iter().zip(n_kept).zip(texts).enumerate().collect();
        let prove = |(index, ((json, n_kept), texts)): (usize, ((&String, Option<usize>), Given))| {
            self.prove_row(tokenizer, &rows, index, json, n_kept, texts)
        };
        Ok(py.detach(|| asked.into_par_iter().map(prove).collect()))
    }
}

impl RowProver {
    fn prove_row(
        &self,
        tokenizer: &Tokenizer,
        rows: &Columns,
        index: usize,
        json: &str,
        n_kept: Option<usize>,
        texts: Given,
    ) -> Option<usize> {
        let conversation: Proved<'_> = serde_json::from_str(json).ok()?;
        let n_kept = n_kept.unwrap_or(conversation.messages.len());
        let mut serving = Serving {
            tokenizer,
            conversation: Conversation::parse(json.as_bytes()).ok()?,
            rendering: Rendering::default(),
            tokens: Tokens::default(),
        };
        let (ids, spans) = (rows.ids(index)?, rows.spans(index)?);
        let row = Row {
            ids: &ids,
            spans: &spans,
            n_tokens: rows.count("n_tokens", index)?,
            n_trained: rows.count("n_trained", index)?,
        };
        match (self.template, texts) {
            (Some(template), None) => {
                let texts = NativeTexts { template, conversation: &conversation };
                self.proof.prove(row, &conversation, n_kept, &texts, &mut serving)
            }
            (None, Some(texts)) => self.proof.prove(row, &conversation, n_kept, &GivenTexts::new(texts), &mut serving),
            (Some(_), Some(_)) | (None, None) => None,
        }
    }
}

/// The columns of a batch of rows.
struct Columns(RecordBatch);

impl Columns {
    fn of(batch: RecordBatch) -> PyResult<Self> {
        let expected = crate::schema();
        for field in expected.fields() {
            let found = batch.column_by_name(field.name()).map(|column| column.data_type().clone());
            if found.as_ref() != Some(field.data_type()) {
                let message = format!("column {:?}: found {found:?}, expected {:?}", field.name(), field.data_type());
                return Err(PyValueError::new_err(message));
            }
        }
        Ok(Self(batch))
    }

    fn ids(&self, index: usize) -> Option<Vec<u32>> {
        self.integers("input_ids", index)?.into_iter().map(|id| id.try_into().ok()).collect()
    }

    fn spans(&self, index: usize) -> Option<Vec<Span>> {
        let (starts, ends) = (self.integers("span_start", index)?, self.integers("span_end", index)?);
        let weights = self.0.column_by_name("span_weight")?.as_list::<i32>();
        let weights = weights.is_valid(index).then(|| weights.value(index))?;
        let weights = weights.as_primitive_opt::<Float32Type>()?;
        if (starts.len(), weights.len(), weights.null_count()) != (ends.len(), ends.len(), 0) {
            return None;
        }
        let spans = starts.into_iter().zip(ends).zip(weights.values());
        spans
            .map(|((start, end), weight)| {
                Some(Span { start: start.try_into().ok()?, end: end.try_into().ok()?, weight: *weight })
            })
            .collect()
    }

    fn integers(&self, name: &str, index: usize) -> Option<Vec<i32>> {
        let list = self.0.column_by_name(name)?.as_list::<i32>();
        let values = list.is_valid(index).then(|| list.value(index))?;
        let values = values.as_primitive_opt::<Int32Type>()?;
        (values.null_count() == 0).then(|| values.values().to_vec())
    }

    fn count(&self, name: &str, index: usize) -> Option<usize> {
        let column = self.0.column_by_name(name)?.as_primitive_opt::<Int32Type>()?;
        column.is_valid(index).then(|| column.value(index))?.try_into().ok()
    }
}

/// What this crate serves for a conversation.
struct Serving<'a> {
    tokenizer: &'a Tokenizer,
    conversation: Conversation<'a>,
    rendering: Rendering,
    tokens: Tokens,
}

impl Served for Serving<'_> {
    fn prompt(&mut self, n_before: usize) -> Option<Prompt> {
        self.rendering = self.tokenizer.render_prompt(&self.conversation, n_before).ok()?;
        let is_whole = self.rendering.given.is_empty() && self.rendering.restarts.is_empty();
        let pieces = self.rendering.segments.iter().map(|segment| Piece {
            bytes: segment.bytes.clone(),
            is_control: matches!(segment.kind, SegmentKind::Control(_)),
        });
        is_whole.then(|| Prompt { text: self.rendering.text.clone(), pieces: pieces.collect() })
    }

    fn piece_ids(&mut self, piece: usize, ids: &mut Vec<u32>) -> Option<()> {
        self.tokens.clear();
        self.tokenizer.segment_ids(&self.rendering, piece, &mut self.tokens).ok()?;
        for id in self.tokens.ids() {
            ids.push(u32::try_from(*id).ok()?);
        }
        Some(())
    }
}

/// Adds this file's class.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RowProver>()
}
