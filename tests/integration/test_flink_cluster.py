"""A real Flink cluster on loopback, and its REST API: a job that survives a kill, stops behind a savepoint and goes on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.integration import flink_jobs
from typer.testing import CliRunner

from gillnet.cli.main import app
from gillnet.core.errors import ConfigurationError, EngineError
from gillnet.core.time import SystemClock
from gillnet.lifecycle.doctor import diagnose, gather_flink, job_address
from gillnet.runtimes.flink import FlinkRest, LocalFlink
from gillnet.runtimes.flink.rest import number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gillnet.runtimes.flink.replies import Checkpoint

pytestmark = [pytest.mark.flink, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def jar(flink: LocalFlink, tmp_path_factory: pytest.TempPathFactory) -> str:
    return flink.rest.upload_jar(flink_jobs.build(tmp_path_factory.mktemp("job")))


@pytest.fixture
def rest(flink: LocalFlink) -> Iterator[FlinkRest]:
    """A client; jobs that a test leaves behind are ended, for their slots."""
    client = flink.rest
    yield client
    for job in client.jobs():
        if job.state in ("RUNNING", "RESTARTING", "CREATED"):
            client.cancel(job.jid)


def counted(rest: FlinkRest, job: str) -> int:
    (counting,) = [vertex for vertex in rest.job(job).vertices if vertex.name.startswith("counts")]
    return counting.metrics.read_records


def test_a_job_survives_the_kill_of_a_task_manager_and_goes_on_from_a_savepoint_at_another_parallelism(
    flink: LocalFlink, rest: FlinkRest, jar: str
) -> None:
    told = flink_jobs.arguments("counting")
    job = rest.run_jar(jar, arguments=told, parallelism=3)  # More than one TaskManager has slots for.
    assert rest.wait_for(job, "RUNNING") == "RUNNING"
    assert rest.find_job("counting").jid == job
    before = rest.wait_for_checkpoint(job)
    assert before.external_path is not None
    assert before.external_path.startswith(flink.checkpoint_dir.as_uri().replace("file://", "file:"))

    flink.kill_task_manager(min(flink.task_manager_pids))
    flink.add_task_manager(wait=False)
    after = restored_checkpoint(rest, job)
    assert after.id > before.id
    assert rest.root_cause(job) is not None
    assert rest.wait_for(job, "RUNNING") == "RUNNING"

    taken = rest.savepoint(job)
    assert taken.startswith("file:")
    stopped = rest.stop_with_savepoint(job)
    assert rest.status(job) == "FINISHED"
    assert stopped != taken

    second = rest.run_jar(jar, arguments=told, parallelism=2, savepoint=stopped)
    rest.wait_for_checkpoint(second)
    restored = rest.checkpoints(second).latest.restored
    assert restored is not None
    assert restored.is_savepoint
    assert restored.external_path == stopped
    assert {vertex.parallelism for vertex in rest.job(second).vertices} == {2}
    rest.cancel(second)
    assert rest.status(second) == "CANCELED"


def restored_checkpoint(rest: FlinkRest, job: str) -> Checkpoint:
    """Wait until the job has gone on from a checkpoint, and return the first that it completed then."""
    until(lambda: rest.checkpoints(job).latest.restored, within_s=90.0)
    restored = rest.checkpoints(job).latest.restored
    assert restored is not None
    return rest.wait_for_checkpoint(job, after=restored.id)


def test_a_job_tells_its_figures(rest: FlinkRest, jar: str) -> None:
    job = rest.run_jar(jar, arguments=flink_jobs.arguments("figures"), parallelism=2)
    rest.wait_for(job, "RUNNING")
    taken = rest.checkpoint(job)
    told = rest.job(job)
    (source,) = [vertex for vertex in told.vertices if vertex.id in told.sources]
    (counting,) = [vertex for vertex in told.vertices if vertex.id not in told.sources]
    assert source.name.startswith("Source: numbers")
    found = rest.checkpoints(job)
    assert found.counts.completed >= 1
    assert taken <= max(checkpoint.id for checkpoint in found.history)
    config = rest.checkpoint_config(job)
    assert config is not None
    assert (config.mode, config.interval, config.state_backend) == (
        "exactly_once",
        1_000,
        "EmbeddedRocksDBStateBackend",
    )
    part = rest.vertex_checkpoint(job, taken, counting.id)
    assert part.state_size > 0
    assert len(rest.subtasks(job, counting.id)) == 2
    rest.wait_for_checkpoint(job, after=taken + 1)
    assert set(rest.watermarks(job, counting.id)) == {0, 1}
    manager = rest.task_managers()[0]
    used = "Status.JVM.Memory.Heap.Used"
    # Flink fetches figures of tasks when they are asked for, and tells them a moment later.
    until(lambda: rest.vertex_metrics(job, counting.id, ["numRecordsIn", "no such"]).get("numRecordsIn", {}).get("sum"))
    until(lambda: rest.subtask_metrics(job, source.id, r"currentOutputWatermark$"))
    until(lambda: rest.back_pressure(job, counting.id).subtasks)
    until(lambda: rest.task_manager_metrics(manager.id, [used]).get(used))
    assert rest.config()["state.backend.type"] == "rocksdb"


def until(told: Callable[[], object], within_s: float = 30.0) -> None:
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + within_s
    while not told():
        assert clock.monotonic_s() < deadline_s, "Flink never told it"
        clock.sleep(0.2)


def test_what_goes_wrong_is_said_in_flink_s_own_words(rest: FlinkRest, jar: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"refuses POST /jars/.*CountingJob wants six arguments, not 0"):
        rest.run_jar(jar)
    with pytest.raises(EngineError, match=r"ClassNotFoundException: no\.Such"):
        rest.run_jar(jar, entry_class="no.Such")
    with pytest.raises(EngineError, match=r"there is no job 'payments'\. Those that there are: "):
        rest.find_job("payments")
    with pytest.raises(EngineError, match=r"refuses GET /jobs/0{32} \(404\)"):
        rest.job("0" * 32)
    with pytest.raises(ConfigurationError, match=r"none\.jar: the jar cannot be read: No such file"):
        rest.upload_jar(tmp_path / "none.jar")

    with pytest.raises(EngineError, match=r"\(400\): .*Cannot find checkpoint or savepoint.*none"):
        rest.run_jar(jar, arguments=flink_jobs.arguments("x"), savepoint=(tmp_path / "none").as_uri())

    never = {"restart-strategy.type": "none"}
    failing = rest.run_jar(jar, arguments=flink_jobs.arguments("failing", fails_at=300), settings=never)
    with pytest.raises(EngineError, match=r"is FAILED, not FINISHED.*IllegalStateException: number 300 is not wanted"):
        rest.wait_for(failing, "FINISHED")


def test_a_job_that_finds_no_slots_says_so(rest: FlinkRest, jar: str) -> None:
    job = rest.run_jar(jar, arguments=flink_jobs.arguments("large"), parallelism=50)
    with pytest.raises(EngineError, match=r"after 2 s, not RUNNING"):
        rest.wait_for(job, "RUNNING", timeout_s=2)


def test_a_cluster_that_is_not_there_is_named() -> None:
    with pytest.raises(
        EngineError, match=r"Flink at http://127\.0\.0\.1:9 does not answer .*see that the cluster runs"
    ):
        FlinkRest("http://127.0.0.1:9").overview()


def test_a_task_manager_that_does_not_run_cannot_be_killed(flink: LocalFlink) -> None:
    with pytest.raises(ConfigurationError, match="TaskManager 99 is not running; those that are"):
        flink.kill_task_manager(99)


def pressed(rest: FlinkRest, job: str) -> float:
    (source,) = rest.job(job).sources
    return max((number(subtask.ratio) or 0.0 for subtask in rest.back_pressure(job, source).subtasks), default=0.0)


def test_the_doctor_sees_a_slow_operator_skewed_keys_and_a_short_interval(
    flink: LocalFlink, rest: FlinkRest, jar: str
) -> None:
    # 2 ms of work a number, and nine of ten numbers with one key: one of two subtasks is what all wait for.
    told = flink_jobs.arguments("slow", per_s=1_500, work_us=2_000, of_ten=9)
    settings = {"execution.checkpointing.interval": "200 ms"}
    job = rest.run_jar(jar, arguments=told, parallelism=2, settings=settings)
    rest.wait_for(job, "RUNNING")
    rest.wait_for_checkpoint(job)
    until(lambda: counted(rest, job) > 2_000, within_s=60.0)
    until(lambda: pressed(rest, job) > 0.6, within_s=60.0)
    readings = gather_flink(job_address(f"{flink.rest_url}/jobs/slow"))
    assert (readings.pipeline, readings.live, readings.backend) == ("slow", True, "rocksdb")
    assert readings.checkpoints.interval_s == 0.2
    assert readings.checkpoints.completed
    assert readings.checkpoints.took_ms is not None
    assert readings.flink is not None
    source, counts = readings.flink.vertices
    assert counts.inputs == (source.name,)
    assert counts.max_parallelism == 128
    assert max(counts.records) > 2 * min(counts.records)
    assert all(manager.heap_used and manager.managed_total for manager in readings.flink.task_managers)
    assert readings.streams[0].name == source.name
    assert readings.streams[0].behind_us is not None
    found = {finding.rule: finding for finding in diagnose(readings)}
    assert found["flink_back_pressure"].figures["slowest"] == counts.name
    assert found["flink_back_pressure"].figures["busy"] > 0.85

    page = CliRunner().invoke(app, ["doctor", f"{flink.rest_url}/#/job/running/{job}/overview", "--fail-on", "never"])
    assert page.exit_code == 0, page.output
    assert "of the time for counts" in " ".join(page.output.split())
