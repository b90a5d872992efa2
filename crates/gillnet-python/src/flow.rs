//! `Flow` and `Intake`: a whole pipeline as hosts without Python run it, for the tests that hold it to the embedded runtime.

use gillnet_flow::frame::{Chunk, InRecord, OutRecords};
use gillnet_flow::{Flow, FlowError, Intake, Program};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// A record: partition, offset, key, headers as a frame has them, value.
type Record<'py> = (i32, Option<i64>, Option<Bound<'py, PyBytes>>, Option<Bound<'py, PyBytes>>, Bound<'py, PyBytes>);

/// Chunks by shard, and the frame of malformed records.
type Shared<'py> = (Vec<(u32, Bound<'py, PyBytes>)>, Bound<'py, PyBytes>);

fn told(error: FlowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A chunk's bytes.
#[pyfunction]
fn write_chunk<'py>(
    py: Python<'py>,
    stream: u16,
    arrival_us: i64,
    records: Vec<Record<'py>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let text = |bytes: &'_ Option<Bound<'py, PyBytes>>| bytes.as_ref().map(|bytes| bytes.as_bytes().to_vec());
    let owned: Vec<_> = records.iter().map(|(_, _, key, headers, _)| (text(key), text(headers))).collect();
    let records = records.iter().zip(&owned).map(|((partition, offset, _, _, value), (key, headers))| InRecord {
        partition: *partition,
        offset: *offset,
        key: key.as_deref(),
        headers: headers.as_deref(),
        value: value.as_bytes(),
    });
    let chunk = Chunk { stream, arrival: arrival_us, records: records.collect(), heard: Vec::new() };
    Ok(PyBytes::new(py, &chunk.write()))
}

#[pyclass(name = "FlowProgram", module = "gillnet._kernel", frozen)]
pub struct PyProgram(Arc<Program>);

#[pymethods]
impl PyProgram {
    #[new]
    fn new(program: &str) -> PyResult<Self> {
        Ok(Self(Arc::new(Program::from_json(program.as_bytes()).map_err(told)?)))
    }

    fn outputs(&self) -> Vec<String> {
        self.0.outputs()
    }
}

#[pyclass(name = "Flow", module = "gillnet._kernel")]
pub struct PyFlow(Flow);

impl PyFlow {
    fn records<'py>(
        &mut self,
        py: Python<'py>,
        step: impl FnOnce(&mut Flow, &mut OutRecords) -> gillnet_flow::Result<()> + Send,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let flow = &mut self.0;
        let done = py.detach(|| {
            let mut out = OutRecords::default();
            step(flow, &mut out).map(|()| out.finish())
        });
        Ok(PyBytes::new(py, &done.map_err(told)?))
    }
}

#[pymethods]
impl PyFlow {
    #[new]
    #[pyo3(signature = (program, state=None))]
    fn new(program: &PyProgram, state: Option<&[u8]>) -> PyResult<Self> {
        let flow = match state {
            Some(state) => Flow::restore(&program.0, state),
            None => Flow::new(&program.0),
        };
        Ok(Self(flow.map_err(told)?))
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.snapshot().map_err(told)?))
    }

    fn register(&mut self, stream: u16, partition: i32, now_us: i64) -> PyResult<()> {
        self.0.register(stream, partition, now_us).map_err(told)
    }

    fn resume(&mut self, now_us: i64) {
        self.0.resume(now_us);
    }

    fn take<'py>(&mut self, py: Python<'py>, chunk: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        self.records(py, |flow, out| flow.take(&Chunk::read(chunk)?, out))
    }

    fn pass_time<'py>(&mut self, py: Python<'py>, now_us: i64) -> PyResult<Bound<'py, PyBytes>> {
        self.records(py, |flow, out| flow.pass_time(now_us, out))
    }

    fn finish<'py>(&mut self, py: Python<'py>, stream: u16) -> PyResult<Bound<'py, PyBytes>> {
        self.records(py, |flow, out| flow.finish(stream, out))
    }

    fn end<'py>(&mut self, py: Python<'py>, now_us: i64) -> PyResult<Bound<'py, PyBytes>> {
        self.records(py, |flow, out| flow.end(now_us, out))
    }

    /// Of each stream: read, scored, malformed, duplicate, too late, late.
    fn stream_counts(&self) -> Vec<(u64, u64, u64, u64, u64, u64)> {
        let streams = &self.0.counts().streams;
        streams.iter().map(|s| (s.read, s.scored, s.malformed, s.duplicate, s.too_late, s.late)).collect()
    }
}

#[pyclass(name = "Intake", module = "gillnet._kernel")]
pub struct PyIntake(Intake);

#[pymethods]
impl PyIntake {
    #[new]
    fn new(program: &PyProgram, stream: u16, shards: u32, tell_all_us: i64) -> PyResult<Self> {
        Ok(Self(Intake::new(&program.0, stream, shards, tell_all_us).map_err(told)?))
    }

    fn share<'py>(&mut self, py: Python<'py>, chunk: &[u8]) -> PyResult<Shared<'py>> {
        let intake = &mut self.0;
        let shared = py.detach(|| intake.share(&Chunk::read(chunk)?)).map_err(told)?;
        let chunks = shared.chunks.iter().map(|(shard, bytes)| (*shard, PyBytes::new(py, bytes)));
        Ok((chunks.collect(), PyBytes::new(py, &shared.aside.finish())))
    }
}

/// Add this file's classes and functions to the module.
pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyProgram>()?;
    m.add_class::<PyFlow>()?;
    m.add_class::<PyIntake>()?;
    m.add_function(wrap_pyfunction!(write_chunk, m)?)
}
