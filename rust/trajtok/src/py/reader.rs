//! Bindings of the reader.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::builder::{FixedSizeBinaryBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch as ArrowBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use pyo3::prelude::*;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::py::arrow::PyRecordBatch;
use crate::{Error, ReaderSettings, RecordBatch, RecordReader};

#[pyclass(name = "RecordReader", module = "negtraj_dagster._trajtok", frozen)]
pub(crate) struct PyRecordReader {
    path: PathBuf,
    reader: Mutex<RecordReader<File>>,
}

#[pymethods]
impl PyRecordReader {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<PyRecordBatch>> {
        let next = py.detach(|| {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.next_batch()?.as_ref().map(to_arrow).transpose()
        });
        Ok(next.map_err(|error| at_path(error, &self.path))?.map(PyRecordBatch))
    }
}

#[pyfunction]
#[pyo3(signature = (path, *, batch_bytes = 8_388_608, max_record_bytes = 100_000_000))]
pub(crate) fn read_records(path: PathBuf, batch_bytes: usize, max_record_bytes: usize) -> PyResult<PyRecordReader> {
    let file = File::open(&path).map_err(|error| unreadable(&path, error.to_string()))?;
    let reader = Mutex::new(RecordReader::new(file, ReaderSettings { batch_bytes, max_record_bytes })?);
    Ok(PyRecordReader { path, reader })
}

fn at_path(error: Error, path: &std::path::Path) -> Error {
    match error {
        Error::Read { at, problem, .. } => Error::Read { path: path.display().to_string(), at, problem },
        other => other,
    }
}

fn unreadable(path: &std::path::Path, problem: String) -> Error {
    Error::OpenRecords { path: path.display().to_string(), problem }
}

fn to_arrow(batch: &RecordBatch<'_>) -> Result<ArrowBatch, Error> {
    let records = &batch.records;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(records.iter().map(|record| record.place.to_string()))),
        digests(batch)?,
        texts(batch),
        Arc::new(records.iter().map(|record| record.fault.as_deref()).collect::<StringArray>()),
    ];
    let schema = Schema::new(vec![
        Field::new("place", DataType::Utf8, false),
        Field::new("record_sha256", DataType::FixedSizeBinary(32), true),
        Field::new("record", DataType::Utf8, true),
        Field::new("fault", DataType::Utf8, true),
    ]);
    Ok(ArrowBatch::try_new(Arc::new(schema), columns)?)
}

fn digests(batch: &RecordBatch<'_>) -> Result<ArrayRef, Error> {
    let digest = |record| batch.bytes(record).map(Sha256::digest);
    let digests: Vec<_> = batch.records.par_iter().map(digest).collect();
    let mut column = FixedSizeBinaryBuilder::with_capacity(digests.len(), 32);
    for digest in digests {
        match digest {
            Some(digest) => column.append_value(digest)?,
            None => column.append_null(),
        }
    }
    Ok(Arc::new(column.finish()))
}

fn texts(batch: &RecordBatch<'_>) -> ArrayRef {
    let good = |record| batch.bytes(record).and_then(|bytes| str::from_utf8(bytes).ok());
    let n_bytes = batch.records.iter().map(|record| record.bytes.end - record.bytes.start).sum::<u64>();
    let mut column = StringBuilder::with_capacity(batch.records.len(), usize::try_from(n_bytes).unwrap_or(0));
    for record in &batch.records {
        column.append_option(if record.fault.is_none() { good(record) } else { None });
    }
    Arc::new(column.finish())
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyRecordReader>()?;
    module.add_function(wrap_pyfunction!(read_records, module)?)
}
