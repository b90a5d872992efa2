"""Choosing a watermark delay from what a stream's delays have been: ``gillnet lateness``.

Its place in the flow: beside it. Records are read as a run would read them, and written nowhere. `reading` brings them into
the order of arrival, `delays` works out what each watermark delay would have done, `scores` what the features would have
missed, and `report` and `page` say so.
"""

from gillnet.lifecycle.lateness.reading import StreamEvents, read_stream
from gillnet.lifecycle.lateness.report import Budget, LatenessReport, measure, recommend

__all__ = ["Budget", "LatenessReport", "StreamEvents", "measure", "read_stream", "recommend"]
