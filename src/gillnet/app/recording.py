"""Records a run's figures beside its checkpoints, for `gillnet doctor`: a sample now and then, bounded in time and in bytes.

The loop's thread gives what only it may read, some microseconds' worth; a thread of its own reads the rest and writes. A disk that
hangs holds up that thread alone, and samples are left out meanwhile.
"""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog

from gillnet.core.time import Clock, SystemClock
from gillnet.observability.history import MetricsHistory, Sample
from gillnet.observability.metrics import SHARES
from gillnet.observability.process import cpus, loop_cpu_s, malloc_reader, memory_limit_bytes, process_figures
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded import EmbeddedRuntime, RuntimeOptions

EVERY_S = 10.0
_FIRST_S = 1.0
_CHEAP_S = 0.005
_log = structlog.get_logger("gillnet.metrics")


class RunRecorder:
    """Samples one run.

    Parameters
    ----------
    directory
        Where the history is kept, and whose disk is looked at.
    backend
        The state backend's name.
    every_s
        How often; in a run's first moments more often, so that a short one leaves something too.
    """

    def __init__(
        self,
        directory: Path,
        plan: PipelinePlan,
        options: RuntimeOptions,
        *,
        backend: str = "memory",
        every_s: float = EVERY_S,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._directory = directory
        self._history = MetricsHistory(directory)
        self._every_s = every_s
        self._started_us = self._clock.now_us()
        self._begun_s = self._next_s = self._clock.monotonic_s()
        self._settings: dict[str, Any] | None = settings(plan, options, backend)
        self._runtime: EmbeddedRuntime | None = None
        self._latency: dict[int, int] = {}
        self._malloc = malloc_reader()
        self._constant: dict[str, float | int] = {"cpus": cpus()}
        if (limit := memory_limit_bytes()) is not None:
            self._constant["memory_limit_bytes"] = limit
        self._told_failure = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="gillnet-metrics")
        self._writing: Future[None] | None = None

    def watch(self, runtime: EmbeddedRuntime) -> None:
        """Say whose figures they are, before the run begins."""
        self._runtime = runtime

    def on_turn(self) -> None:
        """Take a sample if one is due; on the loop's thread."""
        now_s = self._clock.monotonic_s()
        if self._runtime is None or now_s < self._next_s or (self._writing is not None and not self._writing.done()):
            return
        self._next_s = now_s + min(self._every_s, max(_FIRST_S, (now_s - self._begun_s) / 4))
        self._writing = self._writer.submit(self._write, self._clock.now_us(), self._of_loop(self._runtime))

    def close(self) -> None:
        """Return when what was begun is written."""
        self._writer.shutdown()

    def _of_loop(self, runtime: EmbeddedRuntime) -> dict[str, float | int]:
        """Read what only the loop's thread may; nothing of it walks over keys."""
        figures: dict[str, float | int] = {}
        for kind, name, keys, events, size in runtime.features.sizes():
            label = f"{{kind={kind},operator={name}}}"
            figures |= {f"state_keys{label}": keys, f"state_events{label}": events, f"state_bytes{label}": size}
        figures["disturbances"] = runtime.features.disturbances
        if (lag := runtime.lag) is not None:
            figures["lag_records"] = lag
        if (spent_s := loop_cpu_s()) is not None:
            figures["loop_cpu_s"] = round(spent_s, 3)
        return figures

    def _write(self, at_us: int, figures: dict[str, float | int]) -> None:
        assert self._runtime is not None, "watch() comes first"
        metrics = self._runtime.metrics
        bins = metrics.latency_ms.bins()
        since = metrics.latency_ms.since(self._latency)
        self._latency = bins
        figures |= metrics.snapshot() | self._constant | process_figures() | self._of_malloc()
        for share, label in SHARES:
            if (value := since.percentile(share)) is not None:
                figures[f"recent_latency_ms_{label}"] = round(value, 3)
        figures["arrow_bytes"] = pa.total_allocated_bytes()
        try:
            figures["disk_free_bytes"] = shutil.disk_usage(self._directory).free
            self._history.append(Sample(at_us, self._started_us, figures, self._settings))
            self._settings, self._told_failure = None, False
        except OSError as error:
            if not self._told_failure:
                _log.warning(
                    "metrics history not written", place=str(self._directory), reason=str(error.strerror or error)
                )
            self._told_failure = True

    def _of_malloc(self) -> dict[str, float | int]:
        if self._malloc is None:
            return {}
        began_s = self._clock.monotonic_s()
        figures = self._malloc()
        if self._clock.monotonic_s() - began_s > _CHEAP_S:
            self._malloc = None  # A heap in so many pieces that counting them would hold up the run.
        return figures


def settings(plan: PipelinePlan, options: RuntimeOptions, backend: str = "memory") -> dict[str, Any]:
    """Return what a run was told, as far as it bears on its state; nothing that could be secret."""
    streams = {
        stream.name: {
            "watermark_delay_us": stream.watermark_delay_us,
            "allowed_lateness_us": stream.allowed_lateness_us,
            "idle_after_us": stream.idle_after_us,
        }
        for stream in plan.streams
    }
    return {"pipeline": plan.name, "options": asdict(options), "streams": streams, "state_backend": backend}
