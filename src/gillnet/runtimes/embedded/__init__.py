"""The embedded runtime: a plan in one process, in adaptive micro-batches."""

from gillnet.runtimes.embedded.checkpoints import Checkpoints
from gillnet.runtimes.embedded.options import RuntimeOptions
from gillnet.runtimes.embedded.outputs import Outputs
from gillnet.runtimes.embedded.runtime import EmbeddedRuntime
from gillnet.runtimes.embedded.stages import Alert, ScoringStage

__all__ = ["Alert", "Checkpoints", "EmbeddedRuntime", "Outputs", "RuntimeOptions", "ScoringStage"]
