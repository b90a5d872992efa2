//! What the state holds, as dictionaries.

use gillnet_kernel::engine::inspect::{Cut, KeyView, OperatorName, OperatorState};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::PyBatch;

fn name<'py>(py: Python<'py>, of: &OperatorName) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("kind", of.kind)?;
    dict.set_item("name", &of.name)?;
    dict.set_item("stream", &of.stream)?;
    dict.set_item("at", &of.at)?;
    dict.set_item("features", &of.features)?;
    Ok(dict)
}

/// An operator's state.
pub fn state<'py>(py: Python<'py>, state: &OperatorState) -> PyResult<Bound<'py, PyDict>> {
    let cuts = |cuts: &[Cut]| cuts.iter().map(|cut| (cut.keys, cut.events, cut.bytes)).collect::<Vec<_>>();
    let largest = state.largest.iter().map(|key| (&key.key, key.events, key.bytes, key.oldest, key.newest));
    let dict = name(py, &state.of)?;
    dict.set_item("keys", state.keys)?;
    dict.set_item("events", state.events)?;
    dict.set_item("bytes", state.bytes)?;
    dict.set_item("saturated_keys", state.saturated_keys)?;
    dict.set_item("oldest_us", state.oldest)?;
    dict.set_item("newest_us", state.newest)?;
    dict.set_item("retention_us", state.retention_us)?;
    dict.set_item("reach_us", state.reach)?;
    dict.set_item("expiring", cuts(&state.expiring))?;
    dict.set_item("kept", cuts(&state.kept))?;
    dict.set_item("largest", largest.collect::<Vec<_>>())?;
    dict.set_item("gini", state.gini)?;
    Ok(dict)
}

/// A key, as one operator holds it.
pub fn key<'py>(py: Python<'py>, view: KeyView) -> PyResult<Bound<'py, PyDict>> {
    let dict = name(py, &view.of)?;
    dict.set_item("bytes", view.bytes)?;
    dict.set_item("events", PyBatch(view.events))?;
    dict.set_item("bits", view.bits.iter().map(|&bit| u32::from(bit)).collect::<Vec<_>>())?;
    dict.set_item("values", view.values.map(PyBatch))?;
    dict.set_item("saturated", view.saturated)?;
    Ok(dict)
}
