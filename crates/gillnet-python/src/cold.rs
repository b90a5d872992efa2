//! Cold keys, kept by a Python object: each call hands lists over that are made and read here.

use gillnet_kernel::keyed::cold::{ColdKeys, Leaving, Packed};
use gillnet_kernel::{KernelError, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use pyo3::Borrowed;

/// An object with `fetch`, `keep`, `expiries`, `names_from` and `forget`: see `gillnet.core.ports.StateBackend`.
pub struct PyColdKeys(pub Py<PyAny>);

impl ColdKeys for PyColdKeys {
    fn fetch(&self, names: &Packed) -> Result<Packed> {
        self.ask(|port, py| packed(&port.call_method1("fetch", (list(py, names)?,))?))
    }

    fn keep(&self, keys: &Leaving) -> Result<()> {
        self.ask(|port, py| {
            let Leaving { names, states, expiries } = keys;
            port.call_method1("keep", (list(py, names)?, list(py, states)?, list(py, expiries)?)).map(drop)
        })
    }

    fn expiries(&self, begin: &[u8], end: &[u8], most: usize) -> Result<Packed> {
        self.ask(|port, py| {
            packed(&port.call_method1("expiries", (PyBytes::new(py, begin), PyBytes::new(py, end), most))?)
        })
    }

    fn names_from(&self, begin: &[u8], most: usize) -> Result<(Packed, Packed)> {
        self.ask(|port, py| {
            let (names, states): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                port.call_method1("names_from", (PyBytes::new(py, begin), most))?.extract()?;
            Ok((packed(&names)?, packed(&states)?))
        })
    }

    fn forget(&self, names: &Packed, expiries: &Packed) -> Result<()> {
        self.ask(|port, py| port.call_method1("forget", (list(py, names)?, list(py, expiries)?)).map(drop))
    }
}

impl PyColdKeys {
    fn ask<T>(&self, call: impl FnOnce(Borrowed<'_, '_, PyAny>, Python<'_>) -> PyResult<T>) -> Result<T> {
        Python::attach(|py| {
            call(self.0.bind_borrowed(py), py).map_err(|error| KernelError::State(format!("{}", error.value(py))))
        })
    }
}

fn list<'py>(py: Python<'py>, strings: &Packed) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, (0..strings.len()).map(|i| PyBytes::new(py, strings.get(i))))
}

/// Byte strings of a list; None is an empty one.
fn packed(list: &Bound<'_, PyAny>) -> PyResult<Packed> {
    let mut strings = Packed::default();
    for item in list.cast::<PyList>()?.iter() {
        match item.is_none() {
            true => strings.push(&[]),
            false => strings.push(&[item.cast::<PyBytes>()?.as_bytes()]),
        }
    }
    Ok(strings)
}
