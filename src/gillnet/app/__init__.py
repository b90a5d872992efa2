"""The composition root: a user's file and a configuration in, a runtime with its adapters out.

Its place in the flow: around it. It is the one layer that knows both the ports and their adapters; it shows nothing and
parses no command line.
"""

from gillnet.app.config import RunConfig, load_config
from gillnet.app.loading import load_pipeline
from gillnet.app.runs import build_runtime, choose_model_scorer, open_sources
from gillnet.app.sinks import SinkRoutes, output_names

__all__ = [
    "RunConfig",
    "SinkRoutes",
    "build_runtime",
    "choose_model_scorer",
    "load_config",
    "load_pipeline",
    "open_sources",
    "output_names",
]
