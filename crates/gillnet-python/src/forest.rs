//! `gillnet._kernel.Forest`: tree models on batches and matrices.
//!
//! Matrices cross as buffers (NumPy arrays are such): they are copied while the GIL is held, which costs some
//! 10 ns a row, so that the GIL is released during the descent without trusting that nobody writes to them.

use std::sync::{Arc, Mutex};

use arrow::array::{Array, Float32Array};
use arrow_pyarrow::ToPyArrow;
use gillnet_kernel::forest::{self, Binding};
use gillnet_kernel::KernelError;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::PyBatch;

fn to_py(error: KernelError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A model of gradient-boosted trees that gives XGBoost's predictions bit for bit.
#[pyclass(name = "Forest", module = "gillnet._kernel", frozen)]
pub struct PyForest {
    forest: forest::Forest,
    /// The last schema and columns that were bound: batches of a run share them.
    bound: Mutex<Option<(Vec<String>, Arc<Binding>)>>,
}

impl PyForest {
    fn binding(&self, batch: &PyBatch, columns: Option<Vec<String>>) -> PyResult<Arc<Binding>> {
        let columns = columns.as_deref().unwrap_or(self.forest.feature_names());
        let schema = batch.0.schema_ref();
        // A poisoned lock holds a whole value all the same: nothing in here panics between two writes.
        let mut bound = self.bound.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((names, binding)) = bound.as_ref() {
            if names == columns && binding.fits(schema) {
                return Ok(Arc::clone(binding));
            }
        }
        let binding = Arc::new(self.forest.bind(schema, columns).map_err(to_py)?);
        *bound = Some((columns.to_vec(), Arc::clone(&binding)));
        Ok(binding)
    }
}

#[pymethods]
impl PyForest {
    #[staticmethod]
    #[pyo3(signature = (model, feature_names, rounds=None))]
    fn from_json(py: Python<'_>, model: &[u8], feature_names: Vec<String>, rounds: Option<usize>) -> PyResult<Self> {
        let forest = py.detach(|| forest::Forest::from_json(model, feature_names, rounds)).map_err(to_py)?;
        Ok(Self { forest, bound: Mutex::new(None) })
    }

    #[getter]
    fn feature_names(&self) -> Vec<String> {
        self.forest.feature_names().to_vec()
    }

    #[getter]
    fn objective(&self) -> &'static str {
        self.forest.objective().name()
    }

    #[getter]
    fn num_trees(&self) -> usize {
        self.forest.num_trees()
    }

    /// Score a batch: a Float32 array of pyarrow.
    #[pyo3(signature = (batch, feature_columns=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        batch: &PyBatch,
        feature_columns: Option<Vec<String>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let binding = self.binding(batch, feature_columns)?;
        let scores = py.detach(|| self.forest.predict(&binding, &batch.0)).map_err(to_py)?;
        Float32Array::from(scores).to_data().to_pyarrow(py)
    }

    /// Score a batch: the same batch with the Float32 column `score` at its end.
    #[pyo3(signature = (batch, feature_columns=None))]
    fn score(&self, py: Python<'_>, batch: &PyBatch, feature_columns: Option<Vec<String>>) -> PyResult<PyBatch> {
        let binding = self.binding(batch, feature_columns)?;
        py.detach(|| self.forest.score(&binding, &batch.0)).map(PyBatch).map_err(to_py)
    }

    /// Score a row-major float32 matrix of shape (rows, features) into `out`, float32 of shape (rows,).
    fn predict_matrix(&self, py: Python<'_>, matrix: PyBuffer<f32>, out: PyBuffer<f32>) -> PyResult<()> {
        let matrix = read_matrix(py, &matrix, self.forest.feature_names().len())?;
        let scores = py.detach(|| self.forest.predict_matrix(&matrix)).map_err(to_py)?;
        out.copy_from_slice(py, &scores)
    }

    /// TreeSHAP of a row-major float32 matrix into `out`, float32 of shape (rows, features + 1); the bias is last.
    fn contributions(&self, py: Python<'_>, matrix: PyBuffer<f32>, out: PyBuffer<f32>) -> PyResult<()> {
        let matrix = read_matrix(py, &matrix, self.forest.feature_names().len())?;
        let contributions = py.detach(|| self.forest.contributions(&matrix)).map_err(to_py)?;
        out.copy_from_slice(py, &contributions)
    }
}

/// Write feature columns of a batch, converted as the forest converts them, into `out`: float32, (rows, columns).
///
/// `rows` picks rows by position.
#[pyfunction]
#[pyo3(signature = (batch, columns, out, rows=None))]
pub fn feature_matrix(
    py: Python<'_>,
    batch: &PyBatch,
    columns: Vec<String>,
    out: PyBuffer<f32>,
    rows: Option<Vec<usize>>,
) -> PyResult<()> {
    let matrix = py.detach(|| forest::feature_matrix(&batch.0, &columns, rows.as_deref())).map_err(to_py)?;
    out.copy_from_slice(py, &matrix)
}

fn read_matrix(py: Python<'_>, matrix: &PyBuffer<f32>, width: usize) -> PyResult<Vec<f32>> {
    match matrix.shape() {
        [_, columns] if *columns == width => matrix.to_vec(py),
        shape => Err(PyValueError::new_err(format!(
            "batch: the matrix has shape {shape:?}; the model takes rows of {width} features"
        ))),
    }
}
