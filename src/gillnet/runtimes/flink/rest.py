"""A client for Flink's REST API: submit, watch, stop and look into jobs of any cluster.

Standard library only, a connection for each call, no state but the address. Whatever goes wrong is an `EngineError` that
says what was asked of which cluster, what Flink said (the root of its causes, not its stack trace), and what to do.
"""

from __future__ import annotations

import http.client
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from gillnet.core.errors import ConfigurationError, EngineError
from gillnet.core.time import Clock, SystemClock
from gillnet.runtimes.flink import replies as r

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TERMINAL = frozenset({"FAILED", "CANCELED", "FINISHED", "SUSPENDED"})
POLL_S = 0.1
_FORMATS = {False: "CANONICAL", True: "NATIVE"}

_Reply = TypeVar("_Reply")
_CAUSE = re.compile(r"^(?:\s*Caused by: )?((?:[a-zA-Z_$][\w$]*\.)+[A-Z][\w$]*)(?:: (.*))?$", re.MULTILINE)
# What wraps the cause and tells nothing by itself.
_WRAPPERS = ("SerializedThrowable", "CompletionException", "ExecutionException", "FlinkJobNotFoundException")


class FlinkRest:
    """A cluster's REST API.

    Parameters
    ----------
    url
        ``http://host:8081``, or https.
    headers
        For each request, where a proxy wants them: ``{"Authorization": "Bearer …"}``.
    timeout_s
        For one request.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0, clock: Clock | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(
                f"Flink at {url}: write the address of its REST API, such as http://localhost:8081."
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._host, self._base = parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
        self._connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._headers = dict(headers or {})
        self._timeout_s = timeout_s
        self._clock = clock or SystemClock()

    # The cluster

    def overview(self) -> r.Overview:
        """Return what the cluster has."""
        return self._get("/overview", r.Overview)

    def config(self) -> dict[str, str]:
        """Return the cluster's settings by name; secrets are hidden by Flink."""
        return {entry["key"]: entry["value"] for entry in self._get("/jobmanager/config", list[dict[str, str]])}

    def task_managers(self) -> list[r.TaskManager]:
        """Return the TaskManagers that have registered; one that died stays until its heartbeat times out."""
        return self._get("/taskmanagers", dict[str, list[r.TaskManager]])["taskmanagers"]

    def task_manager(self, task_manager_id: str) -> r.TaskManagerDetail:
        """Return one TaskManager with how its memory is laid out."""
        return self._get(f"/taskmanagers/{quote(task_manager_id)}", r.TaskManagerDetail)

    # Jars and submission

    def upload_jar(self, path: str | Path) -> str:
        """Upload a jar and return its id, for `run_jar`."""
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"Flink job {path}: the jar cannot be read: {error.strerror}.") from error
        boundary = "gillnet-jar-boundary"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="jarfile"; filename="{path.name}"\r\n'
            "Content-Type: application/x-java-archive\r\n\r\n"
        )
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        reply = self._ask("POST", "/jars/upload", dict[str, str], body, f"multipart/form-data; boundary={boundary}")
        return reply["filename"].rpartition("/")[2]

    def delete_jar(self, jar_id: str) -> None:
        """Remove an uploaded jar; jobs that run keep what they have."""
        self._ask("DELETE", f"/jars/{quote(jar_id)}", dict[str, Any])

    def run_jar(
        self,
        jar_id: str,
        *,
        entry_class: str | None = None,
        arguments: Sequence[str] = (),
        parallelism: int | None = None,
        savepoint: str | None = None,
        allow_non_restored_state: bool = False,
        claim: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> str:
        """Run the program of an uploaded jar and return the id of its job.

        Parameters
        ----------
        entry_class
            By default what the jar's manifest names.
        arguments
            What the program's ``main`` gets.
        savepoint
            The path of a savepoint, or of a retained checkpoint, to go on from.
        allow_non_restored_state
            Go on although the savepoint holds state that the job has no operator for; that state is lost.
        claim
            Let Flink own the savepoint, and delete it when nothing needs it any more.
        settings
            Flink's settings for this job alone.

        Raises
        ------
        EngineError
            If the program fails before there is a job, with its own words.
        """
        told: dict[str, Any] = {"programArgsList": list(arguments), "allowNonRestoredState": allow_non_restored_state}
        optional = {"entryClass": entry_class, "parallelism": parallelism, "savepointPath": savepoint}
        told |= {name: value for name, value in optional.items() if value is not None}
        if settings:
            told["flinkConfiguration"] = dict(settings)
        if savepoint is not None:
            told["claimMode"] = "CLAIM" if claim else "NO_CLAIM"
        return self._post(f"/jars/{quote(jar_id)}/run", told, dict[str, str])["jobid"]

    # Jobs

    def jobs(self) -> list[r.JobSummary]:
        """Return all jobs that the cluster knows, also those that have ended a while ago."""
        return self._get("/jobs/overview", dict[str, list[r.JobSummary]])["jobs"]

    def find_job(self, id_or_name: str) -> r.JobSummary:
        """Return the job of an id or a name; of several with a name the one that runs, else the newest.

        Raises
        ------
        EngineError
            If there is none, naming those that there are; or several of the name run.
        """
        jobs = self.jobs()
        named = [job for job in jobs if id_or_name in (job.jid, job.name)]
        live = [job for job in named if job.state not in TERMINAL]
        if len(live) > 1:
            ids = ", ".join(job.jid for job in live)
            raise EngineError(
                f"Flink at {self.url}: {len(live)} jobs named {id_or_name!r} run; name one by its id: {ids}."
            )
        if not named:
            told = ", ".join(f"{job.name!r} ({job.jid}, {job.state})" for job in jobs) or "none"
            raise EngineError(f"Flink at {self.url}: there is no job {id_or_name!r}. Those that there are: {told}.")
        return max(live or named, key=lambda job: job.start_time)

    def job(self, job_id: str) -> r.Job:
        """Return a job with its vertices."""
        return self._get(f"/jobs/{job_id}", r.Job)

    def status(self, job_id: str) -> str:
        """Return the state that a job is in."""
        return self._get(f"/jobs/{job_id}/status", dict[str, str])["status"]

    def job_config(self, job_id: str) -> dict[str, Any]:
        """Return what a job was configured with: execution mode, restart strategy, the program's own words."""
        told: dict[str, Any] = self._get(f"/jobs/{job_id}/config", dict[str, Any]).get("execution-config", {})
        return told

    def wait_for(self, job_id: str, *states: str, timeout_s: float = 60.0) -> str:
        """Wait until a job is in one of the states, with all its tasks running if that is RUNNING, and return which.

        Raises
        ------
        EngineError
            If it ends in another one, with the root of its causes, or is in none of them in time.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            state = self.status(job_id)
            if state in states and (state != "RUNNING" or self._all_running(job_id)):
                return state
            wanted = " or ".join(states)
            if state in TERMINAL and state not in states:
                raise EngineError(f"Flink job {job_id} is {state}, not {wanted}{self._because(job_id)}")
            if self._clock.monotonic_s() > deadline_s:
                raise EngineError(
                    f"Flink job {job_id} is {state} after {timeout_s:g} s, not {wanted}{self._because(job_id)}{self._slots()}"
                )
            self._clock.sleep(POLL_S)

    def wait_for_checkpoint(self, job_id: str, *, after: int = 0, timeout_s: float = 60.0) -> r.Checkpoint:
        """Wait until a job has completed a checkpoint of a higher number, and return it: the job works, end to end.

        Right after a TaskManager died, Flink may still say that all runs; a newer checkpoint cannot be had without the tasks.
        """
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            newest = self.checkpoints(job_id).latest.completed
            if newest is not None and newest.id > after:
                return newest
            state = self.status(job_id)
            if state in TERMINAL or self._clock.monotonic_s() > deadline_s:
                raise EngineError(
                    f"Flink job {job_id} is {state} and has completed no checkpoint behind number {after} within {timeout_s:g} s"
                    f"{self._because(job_id)}"
                )
            self._clock.sleep(POLL_S)

    def exceptions(self, job_id: str) -> list[r.ExceptionEntry]:
        """Return what failed a job or restarted it, the newest first."""
        told = self._get(f"/jobs/{job_id}/exceptions", dict[str, Any])
        entries = told.get("exceptionHistory", {}).get("entries", [])
        return msgspec.convert(entries, list[r.ExceptionEntry])

    def root_cause(self, job_id: str) -> str | None:
        """Return what failed a job or restarted it last, in one line; None if nothing has."""
        found = self.exceptions(job_id)
        if not found:
            return None
        newest = found[0]
        where = f" in {newest.task_name}" if newest.task_name else ""
        on = f" on {newest.task_manager_id}" if newest.task_manager_id else ""
        return f"{root_of(newest.stacktrace)}{where}{on}"

    def cancel(self, job_id: str, *, timeout_s: float = 60.0) -> None:
        """End a job, without a savepoint, and wait until it has ended. One that has ended stays as it is."""
        self._ask("PATCH", f"/jobs/{job_id}?mode=cancel", dict[str, Any])
        self.wait_for(job_id, *TERMINAL, timeout_s=timeout_s)

    # Savepoints and checkpoints

    def stop_with_savepoint(
        self,
        job_id: str,
        *,
        directory: str | None = None,
        drain: bool = False,
        native: bool = False,
        timeout_s: float = 300.0,
    ) -> str:
        """Stop a job behind a savepoint, with its sinks committed, and return the savepoint's path.

        Parameters
        ----------
        directory
            By default the cluster's ``execution.checkpointing.savepoint-dir``.
        drain
            Let every window fire as if all input had come: for a job that is not to go on.
        native
            In the state backend's own format, which is quicker; by default in the one that another backend reads too. State of
            Flink's asynchronous kind (``enableAsyncState``) has no other.
        """
        told: dict[str, Any] = {"drain": drain, "formatType": _FORMATS[native]}
        if directory is not None:
            told["targetDirectory"] = directory
        location = self._location(job_id, f"/jobs/{job_id}/stop", told, "stop with a savepoint", timeout_s)
        self.wait_for(job_id, "FINISHED", timeout_s=timeout_s)
        return location

    def savepoint(
        self, job_id: str, *, directory: str | None = None, native: bool = False, timeout_s: float = 300.0
    ) -> str:
        """Take a savepoint of a job that goes on, and return its path; see `stop_with_savepoint`."""
        told: dict[str, Any] = {"cancel-job": False, "formatType": _FORMATS[native]}
        if directory is not None:
            told["target-directory"] = directory
        return self._location(job_id, f"/jobs/{job_id}/savepoints", told, "take a savepoint", timeout_s)

    def checkpoint(self, job_id: str, *, full: bool = False, timeout_s: float = 300.0) -> int:
        """Take a checkpoint now and return its number; ``full``: not on top of earlier ones."""
        asked = {"checkpointType": "FULL" if full else "CONFIGURED"}
        path = f"/jobs/{job_id}/checkpoints"
        number: int = self._operation(job_id, path, path, asked, "take a checkpoint", timeout_s)["checkpointId"]
        return number

    def checkpoints(self, job_id: str) -> r.CheckpointStatistics:
        """Return how many checkpoints there were, the last ones, and what the job went on from."""
        return self._get(f"/jobs/{job_id}/checkpoints", r.CheckpointStatistics)

    def checkpoint_config(self, job_id: str) -> r.CheckpointConfig | None:
        """Return how a job takes checkpoints; None if it takes none."""
        path = f"/jobs/{job_id}/checkpoints/config"
        status, content = self._request("GET", path)
        return (
            None
            if status == 404 and b"not enabled" in content
            else self._read("GET", path, status, content, r.CheckpointConfig)
        )

    def vertex_checkpoint(self, job_id: str, number: int, vertex_id: str) -> r.VertexCheckpoint:
        """Return a vertex's part of a checkpoint that is in the history."""
        return self._get(f"/jobs/{job_id}/checkpoints/details/{number}/subtasks/{vertex_id}", r.VertexCheckpoint)

    # Figures

    def back_pressure(self, job_id: str, vertex_id: str) -> r.BackPressure:
        """Return the shares of time that subtasks wait and work."""
        return self._get(f"/jobs/{job_id}/vertices/{vertex_id}/backpressure", r.BackPressure)

    def subtasks(self, job_id: str, vertex_id: str) -> list[r.Subtask]:
        """Return a vertex's subtasks with the records of each."""
        told = self._get(f"/jobs/{job_id}/vertices/{vertex_id}", dict[str, Any])
        return msgspec.convert(told["subtasks"], list[r.Subtask], strict=False)

    def watermarks(self, job_id: str, vertex_id: str) -> dict[int, int]:
        """Return the watermark of each subtask in ms of event time; those that have none yet are left out."""
        told = self._get(f"/jobs/{job_id}/vertices/{vertex_id}/watermarks", list[dict[str, str]])
        values = {int(entry["id"].partition(".")[0]): int(entry["value"]) for entry in told}
        return {subtask: value for subtask, value in values.items() if value > NO_WATERMARK}

    def vertex_metrics(self, job_id: str, vertex_id: str, names: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return metrics of a vertex over its subtasks: ``{"numRecordsOut": {"min": …, "max": …, "sum": …}}``.

        A name is the metric's own, or ``<operator>.<metric>``. What Flink does not know, or not as a number, is left out.
        """
        return self._aggregated(f"/jobs/{job_id}/vertices/{vertex_id}/subtasks/metrics", names)

    def subtask_metrics(self, job_id: str, vertex_id: str, pattern: str) -> dict[str, float]:
        """Return metrics of single subtasks whose names, ``<subtask>.<operator>.<metric>``, a regular expression finds."""
        path = f"/jobs/{job_id}/vertices/{vertex_id}/metrics"
        names = [str(entry["id"]) for entry in self._get(path, list[dict[str, Any]])]
        wanted = [name for name in names if re.search(pattern, name)]
        return self._values(path, wanted) if wanted else {}

    def job_metrics(self, job_id: str, names: Iterable[str]) -> dict[str, float]:
        """Return metrics of the job itself, such as ``numRestarts``."""
        return self._values(f"/jobs/{job_id}/metrics", names)

    def task_manager_metrics(self, task_manager_id: str, names: Iterable[str]) -> dict[str, float]:
        """Return metrics of a TaskManager, such as ``Status.JVM.Memory.Heap.Used``."""
        return self._values(f"/taskmanagers/{quote(task_manager_id)}/metrics", names)

    # How it is done

    def _all_running(self, job_id: str) -> bool:
        return all(vertex.status in ("RUNNING", "FINISHED") for vertex in self.job(job_id).vertices)

    def _because(self, job_id: str) -> str:
        cause = self.root_cause(job_id)
        return f"; it failed last by {cause}." if cause else "."

    def _slots(self) -> str:
        found = self.overview()
        return (
            f" {found.slots_available} of the cluster's {found.slots_total} slots are free."
            if not found.slots_available
            else ""
        )

    def _location(self, job_id: str, path: str, told: Mapping[str, Any], what: str, timeout_s: float) -> str:
        location: str = self._operation(job_id, path, f"/jobs/{job_id}/savepoints", told, what, timeout_s)["location"]
        return location

    def _operation(
        self, job_id: str, path: str, status_path: str, told: Mapping[str, Any], what: str, timeout_s: float
    ) -> dict[str, Any]:
        """Start what takes a while, and return what it came to."""
        request = self._post(path, told, dict[str, str])["request-id"]
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            reply = self._get(f"{status_path}/{request}", dict[str, Any])
            if reply["status"]["id"] == "COMPLETED":
                done: dict[str, Any] = reply.get("operation") or {}
                if failure := done.get("failure-cause"):
                    cause = root_of(failure.get("stack-trace") or failure.get("class") or "")
                    # What failed the job with it says more than that it was restarted.
                    raise EngineError(f"Flink job {job_id} could not {what}: {cause}{self._because(job_id)}")
                return done
            if self._clock.monotonic_s() > deadline_s:
                raise EngineError(
                    f"Flink job {job_id} could not {what} within {timeout_s:g} s; see its back-pressure, and what `gillnet doctor` says."
                )
            self._clock.sleep(POLL_S)

    def _values(self, path: str, names: Iterable[str]) -> dict[str, float]:
        found = self._get(f"{path}?{urlencode({'get': ','.join(names)})}", list[dict[str, Any]])
        values = {str(entry["id"]): number(entry.get("value")) for entry in found}
        return {name: value for name, value in values.items() if value is not None}

    def _aggregated(self, path: str, names: Iterable[str]) -> dict[str, dict[str, float]]:
        told = {}
        for name in names:  # One request each: Flink answers with nothing at all where it does not know one of several.
            query = urlencode({"get": name, "agg": "min,max,sum,avg"})
            for entry in self._get(f"{path}?{query}", list[dict[str, Any]]):
                figures = {kind: number(entry.get(kind)) for kind in ("min", "max", "sum", "avg")}
                told[str(entry["id"])] = {kind: value for kind, value in figures.items() if value is not None}
        return {name: figures for name, figures in told.items() if figures}

    def _get(self, path: str, kind: type[_Reply]) -> _Reply:
        return self._ask("GET", path, kind)

    def _post(self, path: str, told: Mapping[str, Any], kind: type[_Reply]) -> _Reply:
        return self._ask("POST", path, kind, msgspec.json.encode(told))

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[_Reply],
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> _Reply:
        status, content = self._request(method, path, body, content_type)
        return self._read(method, path, status, content, kind)

    def _request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json"
    ) -> tuple[int, bytes]:
        headers = self._headers | ({} if body is None else {"Content-Type": content_type})
        connection = self._connect(self._host, timeout=self._timeout_s)
        try:
            connection.request(method, self._base + path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(
                f"Flink at {self.url} does not answer ({error or type(error).__name__}); see that the cluster runs and that this "
                "is the address of its REST API."
            ) from error
        finally:
            connection.close()

    def _read(self, method: str, path: str, status: int, content: bytes, kind: type[_Reply]) -> _Reply:
        if status >= 400:
            raise EngineError(
                f"Flink at {self.url} refuses {method} {path.partition('?')[0]} ({status}): {_said(content)}"
            )
        try:
            return msgspec.json.decode(content or b"{}", type=kind)
        except msgspec.DecodeError as error:
            raise EngineError(
                f"Flink at {self.url} answers {method} {path.partition('?')[0]} with what is not understood ({error}); is it "
                "Flink's REST API, of version 2?"
            ) from error


NO_WATERMARK = -(2**63)
"""What Flink says where there is no watermark yet."""


def number(value: object) -> float | None:
    """Return a figure as Flink writes it, None for NaN and for what is no number.

    >>> number("1.5"), number("NaN"), number("ok")
    (1.5, None, None)
    """
    try:
        figure = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return None if math.isnan(figure) else figure


def root_of(stack_trace: str) -> str:
    r"""Return the root of a Java stack trace's causes in one line.

    >>> root_of("java.util.concurrent.CompletionException: x\n\tat A.b\nCaused by: java.io.IOException: disk full\n\tat C.d")
    'java.io.IOException: disk full'
    """
    found = [(name, message) for name, message in _CAUSE.findall(stack_trace) if not name.endswith(_WRAPPERS)]
    if not found:
        return " ".join(stack_trace.split())[:600] or "it says nothing"
    name, message = found[-1]
    return f"{name}: {message.strip()}"[:600].rstrip(".") if message else name


def _said(content: bytes) -> str:
    """Return Flink's own words in an answer that refuses."""
    try:
        errors = msgspec.json.decode(content, type=dict[str, Any]).get("errors", [])
    except msgspec.DecodeError:
        return " ".join(content.decode("utf-8", "replace").split())[:300] or "it says nothing"
    texts = [str(text) for text in errors]
    # The first is Flink's summary, the last has the stack trace.
    return f"{root_of(texts[-1])}." if texts else "it says nothing."
