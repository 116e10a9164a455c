//! Arrow at the border to Python: record batches out; columns of strings, numbers and lists of hashes in.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::ffi::to_ffi;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_array::{ArrayRef, OffsetSizeTrait, UInt64Array};
use arrow_schema::ffi::FFI_ArrowSchema;
use pyo3::buffer::{Element, PyUntypedBuffer};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::input::AnyArray;

use crate::Error;

/// A record batch that any Arrow library reads without copying.
#[pyclass(name = "RecordBatch", module = "negtraj_dagster._trajtok", frozen)]
pub(crate) struct PyRecordBatch(pub(crate) RecordBatch);

#[pymethods]
impl PyRecordBatch {
    #[getter]
    fn n_rows(&self) -> usize {
        self.0.num_rows()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.0.schema().as_ref()).map_err(Error::from)?;
        PyCapsule::new_with_value(py, schema, c"arrow_schema")
    }

    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // The protocol lets a producer ignore the request; the consumer casts.
        let _ = requested_schema;
        let (array, _) = to_ffi(&StructArray::from(self.0.clone()).into_data()).map_err(Error::from)?;
        Ok((self.__arrow_c_schema__(py)?, PyCapsule::new_with_value(py, array, c"arrow_array")?))
    }
}

/// Whole numbers from a sequence of ints, a one-dimensional buffer (a numpy array) or an Arrow column; what is beyond `i64`
/// saturates.
pub(crate) fn to_integers(py: Python<'_>, numbers: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    if let Ok(buffer) = PyUntypedBuffer::get(numbers) {
        return from_buffer(py, &buffer);
    }
    if !is_arrow(numbers)? {
        return numbers.extract();
    }
    let mut all = Vec::new();
    for chunk in to_chunks(numbers)? {
        append_integers(&chunk, &mut all)?;
    }
    Ok(all)
}

fn from_buffer(py: Python<'_>, buffer: &PyUntypedBuffer) -> PyResult<Vec<i64>> {
    if buffer.dimensions() != 1 {
        let n = buffer.dimensions();
        return Err(PyTypeError::new_err(format!("found an array of {n} dimensions; expected one dimension")));
    }
    let format = buffer.format().to_string_lossy();
    if format.starts_with(['>', '!']) {
        return Err(PyTypeError::new_err(format!(
            "found an array of format {format:?}, whose bytes stand in another order; expected this machine's \
             (numpy: .astype('=i8'))"
        )));
    }
    let numbers = from_typed(py, buffer, |n: i64| n)
        .or_else(|| from_typed(py, buffer, |n: i32| n.into()))
        .or_else(|| from_typed(py, buffer, |n: u32| n.into()))
        .or_else(|| from_typed(py, buffer, saturate::<u64>))
        .or_else(|| from_typed(py, buffer, |n: i16| n.into()))
        .or_else(|| from_typed(py, buffer, |n: u16| n.into()))
        .or_else(|| from_typed(py, buffer, |n: i8| n.into()))
        .or_else(|| from_typed(py, buffer, |n: u8| n.into()));
    numbers.unwrap_or_else(|| {
        Err(PyTypeError::new_err(format!("found an array of format {format:?}; expected whole numbers")))
    })
}

fn from_typed<T: Element>(
    py: Python<'_>,
    buffer: &PyUntypedBuffer,
    to_i64: fn(T) -> i64,
) -> Option<PyResult<Vec<i64>>> {
    let typed = buffer.as_typed::<T>().ok()?;
    Some(typed.to_vec(py).map(|numbers| numbers.into_iter().map(to_i64).collect()))
}

fn saturate<T: TryInto<i64>>(n: T) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

fn is_arrow(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.hasattr("__arrow_c_array__")? || object.hasattr("__arrow_c_stream__")?)
}

/// The arrays of an Arrow array, a chunked array or a polars series.
fn to_chunks(column: &Bound<'_, PyAny>) -> PyResult<Vec<ArrayRef>> {
    Ok(column.extract::<AnyArray>()?.into_chunked_array()?.into_inner().0)
}

fn append_integers(chunk: &ArrayRef, all: &mut Vec<i64>) -> PyResult<()> {
    if chunk.null_count() > 0 {
        return Err(PyTypeError::new_err("found nulls; expected a number in every row. Fill or drop them first"));
    }
    let is_appended = append::<Int64Type>(chunk, all)
        || append::<Int32Type>(chunk, all)
        || append::<UInt32Type>(chunk, all)
        || append::<UInt64Type>(chunk, all)
        || append::<Int16Type>(chunk, all)
        || append::<UInt16Type>(chunk, all)
        || append::<Int8Type>(chunk, all)
        || append::<UInt8Type>(chunk, all);
    if is_appended {
        return Ok(());
    }
    Err(PyTypeError::new_err(format!("found an Arrow column of {}; expected whole numbers", chunk.data_type())))
}

fn append<T: ArrowPrimitiveType<Native: TryInto<i64>>>(chunk: &ArrayRef, all: &mut Vec<i64>) -> bool {
    let found = chunk.as_primitive_opt::<T>();
    if let Some(array) = found {
        all.extend(array.values().iter().map(|&n| saturate(n)));
    }
    found.is_some()
}

/// A column of texts as Python handed it over.
pub(crate) struct TextColumn(Vec<ArrayRef>);

impl TextColumn {
    pub(crate) fn read(column: &Bound<'_, PyAny>) -> PyResult<Self> {
        if !is_arrow(column)? {
            let name = column.get_type().name()?;
            return Err(PyTypeError::new_err(format!(
                "found {name}; expected an Arrow column of strings, such as a polars series or pyarrow.array(texts)"
            )));
        }
        let chunks = to_chunks(column)?;
        match chunks.iter().find(|chunk| texts_of(chunk).is_none()) {
            None => Ok(Self(chunks)),
            Some(chunk) => Err(PyTypeError::new_err(format!(
                "found an Arrow column of {}; expected strings (utf8, large_utf8 or utf8_view)",
                chunk.data_type()
            ))),
        }
    }

    /// The texts, borrowed.
    pub(crate) fn rows(&self) -> Vec<Option<&str>> {
        self.0.iter().filter_map(texts_of).flatten().collect()
    }
}

type Texts<'a> = Box<dyn Iterator<Item = Option<&'a str>> + 'a>;

fn texts_of(chunk: &ArrayRef) -> Option<Texts<'_>> {
    if let Some(array) = chunk.as_string_opt::<i32>() {
        return Some(Box::new(array.iter()));
    }
    if let Some(array) = chunk.as_string_opt::<i64>() {
        return Some(Box::new(array.iter()));
    }
    chunk.as_string_view_opt().map(|array| Box::new(array.iter()) as Texts<'_>)
}

/// A column of lists of 64-bit hashes as Python handed it over.
pub(crate) struct HashColumn(Vec<ArrayRef>);

impl HashColumn {
    pub(crate) fn read(name: &str, column: &Bound<'_, PyAny>) -> PyResult<Self> {
        let chunks = to_chunks_of(name, column, "lists of uint64")?;
        for chunk in &chunks {
            let Some(lists) = lists_of(chunk) else {
                return Err(PyTypeError::new_err(format!(
                    "{name}: found an Arrow column of {}; expected lists of uint64 (list, large_list or fixed_size_list)",
                    chunk.data_type()
                )));
            };
            if lists.has_null_hash() {
                return Err(PyTypeError::new_err(format!(
                    "{name}: found a null among a row's hashes; expected none. A row without words is null as a whole"
                )));
            }
        }
        Ok(Self(chunks))
    }

    /// The lists, borrowed.
    pub(crate) fn rows(&self) -> Vec<Option<&[u64]>> {
        let lists = self.0.iter().filter_map(lists_of);
        lists.flat_map(|lists| lists.places.into_iter().map(|place| Some(&lists.hashes.values()[place?]))).collect()
    }
}

struct Lists<'a> {
    /// Where in `hashes` each row's stand.
    places: Vec<Option<Range<usize>>>,
    hashes: &'a UInt64Array,
}

impl Lists<'_> {
    fn has_null_hash(&self) -> bool {
        self.hashes.null_count() > 0
            && self.places.iter().flatten().cloned().flatten().any(|at| self.hashes.is_null(at))
    }
}

fn lists_of(chunk: &ArrayRef) -> Option<Lists<'_>> {
    if let Some(lists) = chunk.as_list_opt::<i32>() {
        return to_lists(chunk, lists.values(), ranges(lists.value_offsets()));
    }
    if let Some(lists) = chunk.as_list_opt::<i64>() {
        return to_lists(chunk, lists.values(), ranges(lists.value_offsets()));
    }
    let lists = chunk.as_fixed_size_list_opt()?;
    let n = usize::try_from(lists.value_length()).ok()?;
    to_lists(chunk, lists.values(), (0..lists.len()).map(|row| row * n..(row + 1) * n))
}

fn ranges<O: OffsetSizeTrait>(offsets: &[O]) -> impl Iterator<Item = Range<usize>> {
    offsets.windows(2).map(|pair| pair[0].as_usize()..pair[1].as_usize())
}

fn to_lists<'a>(
    chunk: &ArrayRef,
    hashes: &'a ArrayRef,
    places: impl Iterator<Item = Range<usize>>,
) -> Option<Lists<'a>> {
    let hashes = hashes.as_primitive_opt::<UInt64Type>()?;
    let places = places.enumerate().map(|(row, place)| chunk.is_valid(row).then_some(place)).collect();
    Some(Lists { places, hashes })
}

/// A column of group numbers.
pub(crate) fn to_groups(column: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let groups: Option<Vec<u32>> = to_numbers("groups", column)?.into_iter().collect();
    groups.ok_or_else(|| PyTypeError::new_err("groups: found nulls; expected a number in every row"))
}

/// A column of numbers, some of them null.
pub(crate) fn to_numbers(name: &str, column: &Bound<'_, PyAny>) -> PyResult<Vec<Option<u32>>> {
    let mut all = Vec::new();
    for chunk in to_chunks_of(name, column, "uint32")? {
        let Some(numbers) = chunk.as_primitive_opt::<UInt32Type>() else {
            let found = chunk.data_type();
            return Err(PyTypeError::new_err(format!("{name}: found an Arrow column of {found}; expected uint32")));
        };
        all.extend(numbers.iter());
    }
    Ok(all)
}

fn to_chunks_of(name: &str, column: &Bound<'_, PyAny>, expected: &str) -> PyResult<Vec<ArrayRef>> {
    if is_arrow(column)? {
        return to_chunks(column);
    }
    let found = column.get_type().name()?;
    Err(PyTypeError::new_err(format!(
        "{name}: found {found}; expected an Arrow column of {expected}, such as a polars series or a pyarrow array"
    )))
}
