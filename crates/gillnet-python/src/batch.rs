//! `BatchEngine`: a plan over complete, sorted input, and what brings input into that order.

use arrow::array::{Array, ArrayRef, Int64Array, UInt64Array};
use arrow_pyarrow::ToPyArrow;
use gillnet_kernel::arrival::id_key::id_keys;
use gillnet_kernel::engine::batch::{sort_events as sorted, BatchEngine, RepeatedIds, BUCKETS};
use gillnet_kernel::engine::plan::Plan;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::{kernel_error, PyBatch};

#[pyclass(name = "BatchEngine", module = "gillnet._kernel")]
pub struct PyBatchEngine(BatchEngine);

#[pymethods]
impl PyBatchEngine {
    #[new]
    #[pyo3(signature = (plan, shards, threads, matches=true))]
    fn new(plan: &str, shards: usize, threads: usize, matches: bool) -> PyResult<Self> {
        let plan = Plan::from_json(plan).map_err(kernel_error)?;
        Ok(Self(BatchEngine::new(&plan, shards, threads, matches).map_err(kernel_error)?))
    }

    /// The rows of every event before `until_us` that was not handed in yet (none: of all), and the sessions that closed.
    #[pyo3(signature = (part, until_us=None))]
    fn process(
        &mut self,
        py: Python<'_>,
        part: Vec<(String, PyRef<'_, PyBatch>)>,
        until_us: Option<i64>,
    ) -> PyResult<(PyBatch, Option<PyBatch>)> {
        let part: Vec<_> = part.into_iter().map(|(stream, batch)| (stream, batch.0.clone())).collect();
        let engine = &mut self.0;
        let done = py.detach(|| engine.process(&part, until_us.unwrap_or(i64::MAX))).map_err(kernel_error)?;
        Ok((PyBatch(done.rows), done.sessions.map(PyBatch)))
    }

    /// The next rows of a join of the part processed last, about `most`, with its number in the plan; None if there are no more.
    fn joined(&mut self, py: Python<'_>, most: usize) -> PyResult<Option<(usize, PyBatch)>> {
        let engine = &mut self.0;
        let joined = py.detach(|| engine.joined(most)).map_err(kernel_error)?;
        Ok(joined.map(|(number, batch)| (number, PyBatch(batch))))
    }

    /// The next matches of the part processed last, about `most`; None if there are no more.
    fn matches(&mut self, py: Python<'_>, most: usize) -> PyResult<Option<PyBatch>> {
        let engine = &mut self.0;
        Ok(py.detach(|| engine.matches(most)).map_err(kernel_error)?.map(PyBatch))
    }

    fn lookback_us(&self) -> Option<i64> {
        self.0.lookback_us()
    }

    /// Keys and events held.
    fn held(&self) -> (usize, usize) {
        self.0.held()
    }
}

/// The events of a batch in the order of time, id and arrival.
#[pyfunction]
fn sort_events(py: Python<'_>, batch: &PyBatch, event_time: &str, id: &str) -> PyResult<PyBatch> {
    py.detach(|| sorted(&batch.0, event_time, id)).map(PyBatch).map_err(kernel_error)
}

#[pyclass(name = "RepeatedIds", module = "gillnet._kernel")]
struct PyRepeatedIds(RepeatedIds);

#[pymethods]
impl PyRepeatedIds {
    #[classattr]
    const BUCKETS: usize = BUCKETS;

    #[new]
    fn new() -> Self {
        Self(RepeatedIds::default())
    }

    /// Take the ids of the next events; the first of them has the place `first` in the order of arrival.
    fn add(&mut self, py: Python<'_>, batch: &PyBatch, id: &str, first: u64) -> PyResult<()> {
        let column = id_column(batch, id)?;
        let ids = &mut self.0;
        py.detach(|| id_keys(column).map(|keys| ids.add(&keys, first))).map_err(kernel_error)
    }

    /// Events in memory.
    fn held(&self) -> usize {
        self.0.held()
    }

    /// Take a bucket out of memory, to be given back to `repeated`.
    fn take<'py>(&mut self, py: Python<'py>, bucket: usize) -> PyResult<Bound<'py, PyBytes>> {
        check_bucket(bucket)?;
        Ok(PyBytes::new(py, &self.0.take(bucket)))
    }

    /// The places of all events of a bucket but the first of each id; `before` is what was taken of it earlier.
    fn repeated<'py>(&self, py: Python<'py>, bucket: usize, before: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        check_bucket(bucket)?;
        let places = py.detach(|| self.0.repeated(bucket, before)).map_err(kernel_error)?;
        Int64Array::from(places).to_data().to_pyarrow(py)
    }
}

fn check_bucket(bucket: usize) -> PyResult<()> {
    if bucket < BUCKETS {
        return Ok(());
    }
    Err(pyo3::exceptions::PyIndexError::new_err(format!("there are {BUCKETS} buckets, and no number {bucket}")))
}

fn id_column<'a>(batch: &'a PyBatch, id: &str) -> PyResult<&'a ArrayRef> {
    batch.0.column_by_name(id).ok_or_else(|| pyo3::exceptions::PyKeyError::new_err(id.to_owned()))
}

/// The two words of each id key: equal ids have equal words, different ids different ones, and they keep the ids' order.
#[pyfunction]
fn id_words<'py>(py: Python<'py>, batch: &PyBatch, id: &str) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let column = id_column(batch, id)?;
    let keys = py.detach(|| id_keys(column)).map_err(kernel_error)?;
    let high = UInt64Array::from_iter_values(keys.iter().map(|key| (key >> 64) as u64));
    let low = UInt64Array::from_iter_values(keys.iter().map(|&key| key as u64));
    Ok((high.to_data().to_pyarrow(py)?, low.to_data().to_pyarrow(py)?))
}

/// Add this file's classes and functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyBatchEngine>()?;
    m.add_class::<PyRepeatedIds>()?;
    m.add_function(wrap_pyfunction!(sort_events, m)?)?;
    m.add_function(wrap_pyfunction!(id_words, m)?)
}
