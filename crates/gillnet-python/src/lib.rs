//! The Python skin: every entry into Rust is here. No logic; the GIL is released around the kernel's work,
//! and the kernel's errors become `ValueError`s, which `gillnet.operators` maps to the named errors of `gillnet.core`.

mod batch;
mod cold;
mod engine;
mod expression;
mod flow;
mod forest;
mod formats;
mod inspect;
mod policy;

use std::sync::Arc;

use arrow::array::{make_array, Array, ArrayData, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Field, Schema};
use arrow_pyarrow::{FromPyArrow, ToPyArrow};
use gillnet_kernel::engine::plan::arrow_type;
use pyo3::prelude::*;

/// A kernel error as the `ValueError` that `gillnet.operators` maps to a named error.
fn kernel_error(error: gillnet_kernel::KernelError) -> PyErr {
    pyo3::exceptions::PyValueError::new_err(error.to_string())
}

/// An Arrow record batch that stays on the Rust side between kernel calls.
///
/// `to_pyarrow()` and `from_pyarrow()` share the buffers; nothing is copied.
#[pyclass(name = "Batch", module = "gillnet._kernel", frozen)]
pub struct PyBatch(pub RecordBatch);

#[pymethods]
impl PyBatch {
    #[staticmethod]
    fn from_pyarrow(batch: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(RecordBatch::from_pyarrow_bound(batch)?))
    }

    fn to_pyarrow<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.to_pyarrow(py)
    }

    /// The batch with one more column.
    fn with_column(&self, name: &str, array: &Bound<'_, PyAny>) -> PyResult<Self> {
        let array = make_array(ArrayData::from_pyarrow_bound(array)?);
        let mut fields = self.0.schema().fields().to_vec();
        let mut columns = self.0.columns().to_vec();
        fields.push(Arc::new(Field::new(name, array.data_type().clone(), true)));
        columns.push(array);
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        Ok(Self(batch.map_err(|error| kernel_error(error.into()))?))
    }

    /// The batch with one column cast to another value type; the column as it was stays as `keep_as`.
    fn cast_column(&self, name: &str, value_type: &str, keep_as: &str) -> PyResult<Self> {
        let cast = || {
            let index = self.0.schema().index_of(name)?;
            let mut fields = self.0.schema().fields().to_vec();
            let mut columns = self.0.columns().to_vec();
            fields.push(Arc::new(fields[index].as_ref().clone().with_name(keep_as)));
            columns.push(columns[index].clone());
            columns[index] = arrow::compute::cast(&columns[index], &arrow_type(value_type)?)?;
            fields[index] = Arc::new(Field::new(name, columns[index].data_type().clone(), fields[index].is_nullable()));
            Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
        };
        cast().map(Self).map_err(kernel_error)
    }

    /// The rows at these positions, in their order.
    fn take(&self, rows: Vec<u32>) -> PyResult<Self> {
        let taken = take_record_batch(&self.0, &UInt32Array::from(rows));
        Ok(Self(taken.map_err(|error| kernel_error(error.into()))?))
    }

    /// One column, shared with pyarrow.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let column = self.0.column_by_name(name);
        let column = column.ok_or_else(|| pyo3::exceptions::PyKeyError::new_err(name.to_owned()))?;
        column.to_data().to_pyarrow(py)
    }

    #[getter]
    fn num_rows(&self) -> usize {
        self.0.num_rows()
    }

    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.0.schema().fields().iter().map(|f| f.name().clone()).collect()
    }
}

#[pymodule]
fn _kernel(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    m.add_class::<PyBatch>()?;
    m.add_class::<engine::PyEngine>()?;
    m.add_class::<policy::PyPolicy>()?;
    m.add_class::<forest::PyForest>()?;
    m.add_function(wrap_pyfunction!(forest::feature_matrix, m)?)?;
    batch::register(m)?;
    flow::register(m)?;
    formats::register(m)?;
    expression::register(m)?;
    Ok(())
}
