"""Aggregations and the windows that they stand over."""

from gillnet.api.aggregates import functions
from gillnet.api.aggregates.bind import Aggregate, Aggregation, bind
from gillnet.api.aggregates.windows import WindowSpec, session, sliding, tumbling

__all__ = ["Aggregate", "Aggregation", "WindowSpec", "bind", "functions", "session", "sliding", "tumbling"]
