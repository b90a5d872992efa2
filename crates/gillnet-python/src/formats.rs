//! Records: `JsonDecoder`, `JsonEncoder`, and `RecordDecoder` for Avro and Protobuf. The bytes are parsed and written without the GIL.

use arrow::array::{Array, UInt32Array};
use arrow_pyarrow::ToPyArrow;
use gillnet_formats as formats;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::PyBatch;

/// A record that did not become a row: its index, the reason's code and a text for people.
type Rejected = (u32, &'static str, String);

fn value_error(error: formats::FormatError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Decodes JSON records into a `Batch` of a schema's columns.
#[pyclass(name = "JsonDecoder", module = "gillnet._kernel", frozen)]
pub struct PyJsonDecoder(formats::JsonDecoder);

#[pymethods]
impl PyJsonDecoder {
    #[new]
    #[pyo3(signature = (schema_json, *, keys = vec![], id = None, max_record_bytes = 1 << 20, max_depth = 64))]
    fn new(
        schema_json: &[u8],
        keys: Vec<String>,
        id: Option<String>,
        max_record_bytes: usize,
        max_depth: usize,
    ) -> PyResult<Self> {
        let options = formats::DecoderOptions { keys, id, max_record_bytes, max_depth };
        formats::JsonDecoder::new(schema_json, options).map(Self).map_err(value_error)
    }

    /// Decode a list or tuple of bytes into `(batch, rows, rejected)`.
    ///
    /// `rows` is a pyarrow array of the records' indices, or None if every record is a row.
    fn decode<'py>(&self, py: Python<'py>, values: &Bound<'py, PyAny>) -> PyResult<Outcome<'py>> {
        with_records(values, |records| {
            let decoded = py.detach(|| self.0.decode(records)).map_err(value_error)?;
            outcome(py, decoded)
        })
    }
}

/// Call with the bytes of a list or tuple.
fn with_records<T>(values: &Bound<'_, PyAny>, work: impl FnOnce(&[&[u8]]) -> PyResult<T>) -> PyResult<T> {
    // A tuple keeps its elements alive and cannot be changed by another thread while the GIL is away.
    let values = match values.cast::<PyTuple>() {
        Ok(tuple) => tuple.clone(),
        Err(_) => values.cast::<PyList>()?.to_tuple(),
    };
    let records = values
        .iter_borrowed()
        .map(|value| Ok(value.cast::<PyBytes>()?.to_owned()))
        .collect::<PyResult<Vec<Bound<'_, PyBytes>>>>()?;
    let slices: Vec<&[u8]> = records.iter().map(|record| record.as_bytes()).collect();
    work(&slices)
}

/// `(batch, rows, rejected)`, as Python has them.
type Outcome<'py> = (PyBatch, Option<Bound<'py, PyAny>>, Vec<Rejected>);

fn outcome(py: Python<'_>, decoded: formats::Decoded) -> PyResult<Outcome<'_>> {
    let rows = match decoded.rejected.is_empty() {
        true => None,
        false => Some(UInt32Array::from(decoded.rows).to_data().to_pyarrow(py)?),
    };
    let rejected = decoded.rejected.into_iter().map(|r| (r.index, r.reason.code(), r.detail)).collect();
    Ok((PyBatch(decoded.batch), rows, rejected))
}

/// Decodes Avro or Protobuf records into a `Batch` of a schema's columns.
#[pyclass(name = "RecordDecoder", module = "gillnet._kernel", frozen)]
pub struct PyRecordDecoder(formats::RecordDecoder);

#[pymethods]
impl PyRecordDecoder {
    #[new]
    #[pyo3(signature = (
        schema_json, *, format, framing, definitions = vec![], message = None, keys = vec![], id = None,
        max_record_bytes = 1 << 20, max_depth = 64
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        schema_json: &[u8],
        format: &str,
        framing: &str,
        definitions: Vec<Vec<u8>>,
        message: Option<String>,
        keys: Vec<String>,
        id: Option<String>,
        max_record_bytes: usize,
        max_depth: usize,
    ) -> PyResult<Self> {
        let schemas = formats::Schemas { format: word(format)?, framing: word(framing)?, definitions, message };
        let options = formats::DecoderOptions { keys, id, max_record_bytes, max_depth };
        formats::RecordDecoder::new(schema_json, options, &schemas).map(Self).map_err(value_error)
    }

    /// Decode a list or tuple of bytes into `(batch, rows, rejected)`.
    fn decode<'py>(&self, py: Python<'py>, values: &Bound<'py, PyAny>) -> PyResult<Outcome<'py>> {
        with_records(values, |records| {
            let decoded = py.detach(|| self.0.decode(records)).map_err(value_error)?;
            outcome(py, decoded)
        })
    }

    /// The ids of schemas that these records have and nothing is known of yet.
    fn unknown_ids(&self, values: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
        with_records(values, |records| Ok(self.0.unknown_ids(records)))
    }

    fn add_schema(&self, py: Python<'_>, id: u32, definition: Vec<u8>, references: Vec<Vec<u8>>) {
        py.detach(|| self.0.add_schema(id, &definition, &references));
    }

    fn refuse_schema(&self, id: u32, known: bool, detail: &str) {
        self.0.refuse_schema(id, known, detail);
    }

    fn forget_schema(&self, id: u32) {
        self.0.forget_schema(id);
    }
}

fn word<T: serde::de::DeserializeOwned>(name: &str) -> PyResult<T> {
    serde_json::from_value(name.into()).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Encodes the rows of a `Batch` as JSON objects.
#[pyclass(name = "JsonEncoder", module = "gillnet._kernel", frozen)]
pub struct PyJsonEncoder(formats::JsonEncoder);

#[pymethods]
impl PyJsonEncoder {
    #[new]
    fn new(spec_json: &[u8]) -> PyResult<Self> {
        formats::JsonEncoder::new(spec_json).map(Self).map_err(value_error)
    }

    /// Encode every row; one `bytes` a row.
    fn encode<'py>(&self, py: Python<'py>, batch: &PyBatch) -> PyResult<Bound<'py, PyList>> {
        let encoded = py.detach(|| self.0.encode(&batch.0)).map_err(value_error)?;
        PyList::new(py, encoded.iter().map(|record| PyBytes::new(py, record)))
    }
}

/// The values of a column as record keys, None for null.
#[pyfunction]
fn encode_keys<'py>(py: Python<'py>, batch: &PyBatch, column: &str) -> PyResult<Bound<'py, PyList>> {
    let keys = py.detach(|| formats::encode_keys(&batch.0, column)).map_err(value_error)?;
    PyList::new(py, keys.into_iter().map(|key| key.map(|key| PyBytes::new(py, &key))))
}

/// The codes of every reason for which a record can be rejected.
#[pyfunction]
fn rejection_reasons() -> Vec<&'static str> {
    formats::Reason::ALL.map(formats::Reason::code).to_vec()
}

/// Add this file's classes and functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyJsonDecoder>()?;
    m.add_class::<PyJsonEncoder>()?;
    m.add_class::<PyRecordDecoder>()?;
    m.add_function(wrap_pyfunction!(encode_keys, m)?)?;
    m.add_function(wrap_pyfunction!(rejection_reasons, m)?)
}
