//! `Policy`: rules over scored rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow_pyarrow::FromPyArrow;
use gillnet_kernel::policy::{Policy, RulePlan};
use gillnet_kernel::KernelError;
use pyo3::prelude::*;

use crate::{kernel_error, PyBatch};

#[pyclass(name = "Policy", module = "gillnet._kernel", frozen)]
pub struct PyPolicy(Policy);

#[pymethods]
impl PyPolicy {
    #[new]
    fn new(rules: &str, schema: &Bound<'_, PyAny>) -> PyResult<Self> {
        let schema = Schema::from_pyarrow_bound(schema)?;
        let rules: Vec<RulePlan> =
            serde_json::from_str(rules).map_err(|error| kernel_error(KernelError::Plan(error.to_string())))?;
        Ok(Self(Policy::new(&rules, &schema).map_err(kernel_error)?))
    }

    /// The batch with `decision` and `reasons`, the numbers of the rows that are not allowed, and the rows by decision.
    fn decide(&self, py: Python<'_>, batch: &PyBatch) -> PyResult<(PyBatch, Vec<u32>, BTreeMap<String, usize>)> {
        py.detach(|| {
            let decided = self.0.decide(&batch.0)?;
            let mut fields = batch.0.schema().fields().to_vec();
            let mut columns = batch.0.columns().to_vec();
            for (name, array) in [("decision", decided.decision), ("reasons", decided.reasons)] {
                fields.push(Arc::new(Field::new(name, array.data_type().clone(), false)));
                columns.push(array);
            }
            let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
            Ok((PyBatch(batch), decided.flagged.values().to_vec(), decided.counts))
        })
        .map_err(kernel_error)
    }
}
