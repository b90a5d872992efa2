//! Row expressions for Python: compiled once, evaluated on batches with the GIL released.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::Schema;
use arrow_pyarrow::{FromPyArrow, ToPyArrow};
use gillnet_kernel::expr::{self, function_names};
use gillnet_kernel::KernelError;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::PyBatch;

fn value_error(error: KernelError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn parse(json: &[u8]) -> PyResult<serde_json::Value> {
    serde_json::from_slice(json).map_err(|error| PyValueError::new_err(format!("plan: {error}")))
}

/// One expression, compiled against a schema.
#[pyclass(name = "Expression", module = "gillnet._kernel", frozen)]
pub struct PyExpression(expr::Expression);

#[pymethods]
impl PyExpression {
    #[new]
    fn new(json: &[u8], schema: &Bound<'_, PyAny>) -> PyResult<Self> {
        let schema = Schema::from_pyarrow_bound(schema)?;
        expr::Expression::compile(&parse(json)?, &schema).map(Self).map_err(value_error)
    }

    /// The type of the result, as plans name it.
    #[getter]
    fn value_type(&self) -> String {
        self.0.value_type().to_string()
    }

    #[getter]
    fn columns(&self) -> Vec<String> {
        self.0.columns().map(str::to_owned).collect()
    }

    fn evaluate<'py>(&self, py: Python<'py>, batch: &PyBatch) -> PyResult<Bound<'py, PyAny>> {
        let array = py.detach(|| self.0.evaluate(&batch.0)).map_err(value_error)?;
        array.to_data().to_pyarrow(py)
    }

    /// As `evaluate`, for a condition: null counts as false.
    fn evaluate_bool<'py>(&self, py: Python<'py>, batch: &PyBatch) -> PyResult<Bound<'py, PyAny>> {
        let array = py.detach(|| self.0.evaluate_bool(&batch.0)).map_err(value_error)?;
        array.to_data().to_pyarrow(py)
    }

    /// Evaluate again and again and drop the results, so that `bench/` times the kernel without the way to Python.
    fn repeat(&self, py: Python<'_>, batch: &PyBatch, repeats: usize) -> PyResult<()> {
        py.detach(|| (0..repeats).try_for_each(|_| self.0.evaluate(&batch.0).map(drop))).map_err(value_error)
    }
}

/// Named expressions, appended to a batch in order; each may read the results before it.
#[pyclass(name = "ExpressionSet", module = "gillnet._kernel", frozen)]
pub struct PyExpressionSet(expr::ExpressionSet);

#[pymethods]
impl PyExpressionSet {
    #[new]
    fn new(named: Vec<(String, Vec<u8>)>, schema: &Bound<'_, PyAny>) -> PyResult<Self> {
        let schema = Schema::from_pyarrow_bound(schema)?;
        let parsed = named.into_iter().map(|(name, json)| Ok((name, parse(&json)?)));
        let parsed: Vec<_> = parsed.collect::<PyResult<_>>()?;
        expr::ExpressionSet::compile(&parsed, &schema).map(Self).map_err(value_error)
    }

    /// The schema of the batches that `append` returns.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Arc::clone(self.0.schema()).as_ref().to_pyarrow(py)
    }

    fn append(&self, py: Python<'_>, batch: &PyBatch) -> PyResult<PyBatch> {
        py.detach(|| self.0.append(&batch.0)).map(PyBatch).map_err(value_error)
    }
}

/// The names of the functions that the kernel knows.
#[pyfunction]
fn expression_functions() -> Vec<&'static str> {
    function_names().collect()
}

/// Add the classes of this file to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyExpression>()?;
    module.add_class::<PyExpressionSet>()?;
    module.add_function(wrap_pyfunction!(expression_functions, module)?)
}
