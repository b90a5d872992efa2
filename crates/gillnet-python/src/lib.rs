//! The Python skin: every entry into Rust is here. No logic; the GIL is released around the kernel's work,
//! and the kernel's errors become `ValueError`s, which `gillnet.operators` maps to the named errors of `gillnet.core`.

mod expression;

use arrow::array::RecordBatch;
use arrow_pyarrow::{FromPyArrow, ToPyArrow};
use pyo3::prelude::*;

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
    expression::register(m)?;
    Ok(())
}
