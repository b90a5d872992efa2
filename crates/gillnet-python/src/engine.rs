//! `Engine`: a plan's keyed state, hosted by the embedded runtime.

use gillnet_kernel::arrival::watermark::NONE;
use gillnet_kernel::engine::inspect::Asked;
use gillnet_kernel::engine::plan::Plan;
use gillnet_kernel::engine::progress::Progress;
use gillnet_kernel::engine::upgrade::Complete;
use gillnet_kernel::engine::{Engine, EngineStats, Outcome, SpillStats};
use gillnet_kernel::keyed::cold::ColdKeys;
use gillnet_kernel::KernelError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cold::PyColdKeys;
use crate::{inspect, kernel_error, PyBatch};

/// Watermark, the partition that holds it back, and (partition, newest event time, heard, idle) of each.
type ProgressParts = (Option<i64>, Option<i32>, Vec<(i32, Option<i64>, i64, bool)>);

/// A feature's name, whether it is complete, and if not, from which event time on where that is known.
type FeatureComplete = (String, bool, Option<i64>);

/// One accepted batch: outcomes as bytes (one each record), and rows where the stream is the root.
type Processed<'py> = (Bound<'py, PyBytes>, Option<PyBatch>);

#[pyclass(name = "Engine", module = "gillnet._kernel")]
pub struct PyEngine(Engine);

#[pymethods]
impl PyEngine {
    #[new]
    fn new(plan: &str) -> PyResult<Self> {
        let plan = Plan::from_json(plan).map_err(kernel_error)?;
        Ok(Self(Engine::new(&plan).map_err(kernel_error)?))
    }

    #[staticmethod]
    fn restore(py: Python<'_>, plan: &str, snapshot: &[u8]) -> PyResult<Self> {
        let plan = Plan::from_json(plan).map_err(kernel_error)?;
        let engine = py.detach(|| Engine::restore(&plan, snapshot));
        Ok(Self(engine.map_err(kernel_error)?))
    }

    /// An engine of `plan` with the state of this one, whose plan is `old_plan`; and of each feature its name, whether it is
    /// complete, and from which event time on where that is known.
    fn upgraded(&self, py: Python<'_>, old_plan: &str, plan: &str) -> PyResult<(Self, Vec<FeatureComplete>)> {
        let old_plan = Plan::from_json(old_plan).map_err(kernel_error)?;
        let plan = Plan::from_json(plan).map_err(kernel_error)?;
        let engine = &self.0;
        let upgraded = py.detach(|| engine.upgraded(&old_plan, &plan)).map_err(kernel_error)?;
        let told = upgraded.features.into_iter().map(|(name, complete)| match complete {
            Complete::Now => (name, true, None),
            Complete::From(time) => (name, false, Some(time)),
            Complete::AfterPause => (name, false, None),
        });
        Ok((Self(upgraded.engine), told.collect()))
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let engine = &self.0;
        let bytes = py.detach(|| engine.snapshot()).map_err(kernel_error)?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Write the whole state to a private file, a part at a time, and return when it is on the disk.
    fn write_snapshot(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let engine = &self.0;
        let told = |error: std::io::Error| KernelError::State(error.to_string());
        let write = || {
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(told)?;
            let mut out = BufWriter::new(file);
            engine.write_snapshot(&mut out)?;
            out.into_inner().map_err(|error| told(error.into_error()))?.sync_all().map_err(told)
        };
        py.detach(write).map_err(kernel_error)
    }

    /// Have every key in memory that `port` holds.
    fn load_keys(&mut self, py: Python<'_>, port: Py<PyAny>) -> PyResult<()> {
        let (engine, port) = (&mut self.0, PyColdKeys(port));
        py.detach(|| engine.load_keys(&port)).map_err(kernel_error)
    }

    /// Let cold keys leave to `port` while the state is larger than `budget` bytes.
    fn spill_to(&mut self, port: Py<PyAny>, budget: usize, holds: bool) -> PyResult<()> {
        let port: Arc<dyn ColdKeys> = Arc::new(PyColdKeys(port));
        self.0.spill_to(&port, budget, holds).map_err(kernel_error)
    }

    fn begin_write_behind(&mut self) {
        self.0.begin_write_behind();
    }

    /// About how many bytes the keys hold that can leave, keys that came back, keys that left or were handed over.
    fn spill_stats(&self) -> (usize, u64, u64) {
        let SpillStats { resident_bytes, fetched, kept } = self.0.spill_stats();
        (resident_bytes, fetched, kept)
    }

    fn resume(&mut self, now_us: i64) {
        self.0.resume(now_us);
    }

    fn set_replaying(&mut self, replaying: bool) {
        self.0.set_replaying(replaying);
    }

    #[pyo3(signature = (stream, batch, arrival_us, partitions=None))]
    fn process<'py>(
        &mut self,
        py: Python<'py>,
        stream: &str,
        batch: &PyBatch,
        arrival_us: i64,
        partitions: Option<Vec<i32>>,
    ) -> PyResult<Processed<'py>> {
        let engine = &mut self.0;
        let done = py.detach(|| engine.process(stream, &batch.0, partitions.as_deref(), arrival_us));
        let done = done.map_err(kernel_error)?;
        let outcomes: Vec<u8> = done.outcomes.iter().map(|&outcome: &Outcome| outcome as u8).collect();
        Ok((PyBytes::new(py, &outcomes), done.rows.map(PyBatch)))
    }

    fn register_partition(&mut self, stream: &str, partition: i32, now_us: i64) -> PyResult<()> {
        self.0.register_partition(stream, partition, now_us).map_err(kernel_error)
    }

    fn pass_time(&mut self, now_us: i64) -> bool {
        self.0.pass_time(now_us)
    }

    fn finish(&mut self, stream: &str) -> PyResult<()> {
        self.0.finish(stream).map_err(kernel_error)
    }

    fn closed_sessions(&mut self, py: Python<'_>, most: usize) -> PyResult<Option<PyBatch>> {
        let engine = &mut self.0;
        let batch = py.detach(|| engine.closed_sessions(most)).map_err(kernel_error)?;
        Ok(batch.map(PyBatch))
    }

    fn release(&mut self, py: Python<'_>, now_us: i64, everything: bool) -> PyResult<Option<PyBatch>> {
        let engine = &mut self.0;
        let batch = py.detach(|| engine.release(now_us, everything)).map_err(kernel_error)?;
        Ok(batch.map(PyBatch))
    }

    fn waiting_since(&mut self) -> Option<i64> {
        self.0.waiting_since()
    }

    fn revisions(&mut self, py: Python<'_>, most: usize) -> PyResult<Option<PyBatch>> {
        let engine = &mut self.0;
        let batch = py.detach(|| engine.revisions(most)).map_err(kernel_error)?;
        Ok(batch.map(PyBatch))
    }

    fn matches(&mut self, py: Python<'_>, most: usize) -> PyResult<Option<PyBatch>> {
        let engine = &mut self.0;
        let batch = py.detach(|| engine.matches(most)).map_err(kernel_error)?;
        Ok(batch.map(PyBatch))
    }

    /// The next rows of a join, with its number in the plan.
    fn joined(&mut self, py: Python<'_>, most: usize) -> PyResult<Option<(usize, PyBatch)>> {
        let engine = &mut self.0;
        let joined = py.detach(|| engine.joined(most)).map_err(kernel_error)?;
        Ok(joined.map(|(number, batch)| (number, PyBatch(batch))))
    }

    fn join_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let joins = PyDict::new(py);
        for (name, counts) in self.0.join_counts() {
            let dict = PyDict::new(py);
            dict.set_item("pairs", counts.pairs)?;
            dict.set_item("unmatched", counts.unmatched)?;
            dict.set_item("withdrawn", counts.withdrawn)?;
            dict.set_item("dropped_pairs", counts.dropped_pairs)?;
            dict.set_item("dropped_events", counts.dropped_events)?;
            dict.set_item("incomplete", counts.incomplete)?;
            joins.set_item(name, dict)?;
        }
        Ok(joins)
    }

    fn disturbances(&self) -> usize {
        self.0.disturbances()
    }

    fn watermark(&self, stream: &str) -> PyResult<(Option<i64>, Option<i32>)> {
        self.0.watermark(stream).map_err(kernel_error)
    }

    fn progress(&self, stream: &str) -> PyResult<ProgressParts> {
        let Progress { watermark, held_by, partitions } = self.0.progress(stream).map_err(kernel_error)?;
        let parts =
            partitions.iter().map(|p| (p.number, Some(p.newest).filter(|&newest| newest != NONE), p.heard, p.idle));
        Ok((watermark, held_by, parts.collect()))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let EngineStats {
            keys,
            events,
            bytes,
            ids,
            id_bytes,
            timers,
            saturated_keys,
            revisions,
            patterns,
            pending,
            joins,
        } = self.0.stats();
        let dict = PyDict::new(py);
        dict.set_item("keys", keys)?;
        dict.set_item("events", events)?;
        dict.set_item("bytes", bytes)?;
        dict.set_item("ids", ids)?;
        dict.set_item("id_bytes", id_bytes)?;
        dict.set_item("timers", timers)?;
        dict.set_item("saturated_keys", saturated_keys)?;
        dict.set_item("pattern_events", patterns.events)?;
        dict.set_item("partial_matches", patterns.partial_matches)?;
        dict.set_item("partial_matches_dropped", patterns.dropped)?;
        dict.set_item("revisable_rows", revisions.rows)?;
        dict.set_item("revisable_bytes", revisions.bytes)?;
        dict.set_item("disturbances", revisions.disturbances)?;
        dict.set_item("unrevised", revisions.unrevised)?;
        dict.set_item("pending_rows", pending.0)?;
        dict.set_item("pushed_out_rows", pending.1)?;
        dict.set_item("join_keys", joins.keys)?;
        dict.set_item("join_events", joins.events)?;
        dict.set_item("join_timers", joins.timers)?;
        dict.set_item("join_bytes", joins.bytes)?;
        Ok(dict)
    }

    /// Every operator's state as dictionaries. Walks over all keys.
    fn inspect<'py>(
        &self,
        py: Python<'py>,
        top: usize,
        within_us: Vec<i64>,
        retentions_us: Vec<i64>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let (engine, asked) = (&self.0, Asked { top, within: within_us, retentions: retentions_us });
        let states = py.detach(|| engine.inspect(&asked));
        states.iter().map(|state| inspect::state(py, state)).collect()
    }

    /// (kind, name, keys, events, bytes) of every operator, without a walk.
    fn sizes(&self) -> Vec<(&'static str, String, usize, usize, usize)> {
        let sizes = self.0.sizes();
        sizes.into_iter().map(|size| (size.kind, size.name, size.keys, size.events, size.bytes)).collect()
    }

    /// What every operator holds of a key, with the features as of `at_us`.
    fn look_at_key<'py>(&mut self, py: Python<'py>, key: &str, at_us: i64) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let views = self.0.look_at_key(key, at_us).map_err(kernel_error)?;
        views.into_iter().map(|view| inspect::key(py, view)).collect()
    }

    /// Keys of an operator from a place on, their events, and where to go on.
    fn page(
        &self,
        py: Python<'_>,
        operator: usize,
        begin: usize,
        most: usize,
    ) -> PyResult<(PyBatch, PyBatch, Option<usize>)> {
        let engine = &self.0;
        let page = py.detach(|| engine.page(operator, begin, most)).map_err(kernel_error)?;
        Ok((PyBatch(page.keys), PyBatch(page.events), page.next))
    }

    fn entity_stats(&self) -> Vec<(String, usize, usize, usize)> {
        self.0.entity_stats()
    }

    /// Keys of an entity, in no order.
    fn keys(&self, entity: usize) -> PyResult<Vec<String>> {
        Ok(self.0.store(entity).map_err(kernel_error)?.keys().map(str::to_owned).collect())
    }

    fn encode_key<'py>(
        &self,
        py: Python<'py>,
        entity: usize,
        key: &str,
        horizon_us: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let bytes = self.0.store(entity).map_err(kernel_error)?.encode_key(key, horizon_us);
        Ok(bytes.map(|bytes| PyBytes::new(py, &bytes)))
    }

    fn decode_key(&mut self, entity: usize, key: &str, bytes: &[u8]) -> PyResult<()> {
        self.0.store_mut(entity).map_err(kernel_error)?.decode_key(key, bytes).map_err(kernel_error)
    }
}
