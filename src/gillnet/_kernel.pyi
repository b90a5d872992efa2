"""The Rust kernel's Python skin, typed."""

from collections.abc import Sequence

import pyarrow

__version__: str

class Batch:
    @staticmethod
    def from_pyarrow(batch: pyarrow.RecordBatch) -> Batch: ...
    def to_pyarrow(self) -> pyarrow.RecordBatch: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def column_names(self) -> list[str]: ...

class JsonDecoder:
    def __new__(
        cls,
        schema_json: bytes,
        *,
        keys: Sequence[str] = ...,
        id: str | None = None,  # noqa: A002
        max_record_bytes: int = ...,
        max_depth: int = ...,
    ) -> JsonDecoder: ...
    def decode(
        self, values: list[bytes] | tuple[bytes, ...]
    ) -> tuple[Batch, pyarrow.Array | None, list[tuple[int, str, str]]]: ...

class JsonEncoder:
    def __new__(cls, spec_json: bytes) -> JsonEncoder: ...
    def encode(self, batch: Batch) -> list[bytes]: ...

def encode_keys(batch: Batch, column: str) -> list[bytes | None]: ...
def rejection_reasons() -> list[str]: ...
