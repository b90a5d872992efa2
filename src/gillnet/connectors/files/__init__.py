"""Files as streams: NDJSON (also ``-`` for standard input and output), CSV and Parquet; ``.gz`` by suffix."""

from gillnet.connectors.files.parts import PartSink
from gillnet.connectors.files.sink import FileSink, WriteMode
from gillnet.connectors.files.source import FileFormat, FileSource

__all__ = ["FileFormat", "FileSink", "FileSource", "PartSink", "WriteMode"]
