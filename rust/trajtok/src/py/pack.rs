//! Bindings of packing.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, LargeListArray, RecordBatch};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Schema};
use pyo3::prelude::*;

use crate::py::arrow::{PyRecordBatch, to_integers};
use crate::{Error, Packing};

#[pyfunction]
pub(crate) fn pack(py: Python<'_>, lengths: &Bound<'_, PyAny>, capacity: i64) -> PyResult<Vec<Vec<usize>>> {
    let lengths = to_integers(py, lengths)?;
    Ok(py.detach(|| crate::pack(&lengths, capacity))?)
}

#[pyfunction]
pub(crate) fn pack_flat(py: Python<'_>, lengths: &Bound<'_, PyAny>, capacity: i64) -> PyResult<PyRecordBatch> {
    let lengths = to_integers(py, lengths)?;
    Ok(PyRecordBatch(py.detach(|| to_batch(crate::pack_flat(&lengths, capacity)?))?))
}

fn to_batch(packing: Packing) -> Result<RecordBatch, Error> {
    let row = Arc::new(Field::new("item", DataType::Int64, false));
    let offsets = OffsetBuffer::new(packing.offsets.into());
    let rows = LargeListArray::try_new(Arc::clone(&row), offsets, Arc::new(Int64Array::from(packing.rows)), None)?;
    let schema = Schema::new(vec![Field::new("rows", DataType::LargeList(row), false)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(rows) as ArrayRef])?)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyRecordBatch>()?;
    module.add_function(wrap_pyfunction!(pack, module)?)?;
    module.add_function(wrap_pyfunction!(pack_flat, module)?)
}
