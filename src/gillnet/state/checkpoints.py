"""Checkpoints: whole, consistent cuts of a run, in a directory or an object store, from which the run goes on.

```text
PLACE/owner.json                             the run that may write here: a number that goes up with each start
PLACE/checkpoint-000000012/state.bin         the engine's snapshot
PLACE/checkpoint-000000012/manifest.json     written last: what the files must be, where the sources stood, the counts
PLACE/shared/<sha256>                        files of keys that a state backend keeps, shared by checkpoints (`shared`)
```
A checkpoint without a manifest that names itself by its checksum does not exist: a torn one is passed over, and so is one whose
files were changed, each with a warning, and the one before it is used. A run that finds a later owner stops: two runs that wrote
checkpoints of one pipeline would each undo the other's (a zombie is fenced).

It knows neither what a snapshot holds nor who reads it. Nothing here is pickled or evaluated.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import structlog
from pyarrow import fs

from gillnet.core.errors import ConfigurationError, FencedError, StateError
from gillnet.core.files import private, sync_directory
from gillnet.core.ports import StateBackend
from gillnet.core.secrets import without_parameters
from gillnet.state.shared import KEYS, SHARED, SharedFiles, StoredFile

FORMAT = 1
STATE = "state.bin"
MANIFEST = "manifest.json"
OWNER = "owner.json"
KEPT = 3

_NAME = re.compile(r"checkpoint-(\d{9})")
_LANE = re.compile(r"partition-\d{5}")
_BLOCK = 1 << 22
_log = structlog.get_logger("gillnet.state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is known of one cut.

    Attributes
    ----------
    number
        Counts up, over all runs.
    taken_us
        Processing time of the cut, microseconds UTC.
    started_us
        When the first run began whose state this is: the state was empty then.
    pipeline
        The pipeline's name.
    marks
        By stream, the place after the last record that is in the state, by partition.
    counts
        What the run had counted, for it to go on counting.
    journal
        Where the journal stood at the cut: its kind, position and last record; empty for a run without one.
    files
        What it consists of.
    plan
        The pipeline's plan as JSON, so that the state can be read without its definition; empty in one of an earlier version.
    warming
        Features that miss what was not kept before an upgrade, each with the event time from which on it is complete; None where
        that is for each key once it has paused.
    upgraded
        Whether an upgrade wrote it: then no step of its journal may lie behind it, for those are of the plan before.
    """

    number: int
    taken_us: int
    started_us: int
    pipeline: str
    marks: Mapping[str, Mapping[int, int]]
    counts: Mapping[str, Any] = field(default_factory=dict)
    journal: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[StoredFile, ...] = ()
    plan: str = ""
    warming: Mapping[str, int | None] = field(default_factory=dict)
    upgraded: bool = False

    @property
    def key_files(self) -> tuple[StoredFile, ...]:
        """Return the files of a state backend's keys; none where the snapshot has all keys."""
        return tuple(file for file in self.files if file.name.startswith(KEYS))

    @property
    def bytes(self) -> int:
        """Return the size of its files."""
        return sum(file.bytes for file in self.files)


class CheckpointStore:
    """Keeps the checkpoints of one pipeline.

    Parameters
    ----------
    place
        A directory, or the URI of one in an object store: ``s3://bucket/path?region=…``, as PyArrow's filesystems read it.
        Credentials come from the environment, never from here.
    keep
        How many checkpoints stay; older ones are removed after a new one is complete.

    Raises
    ------
    ConfigurationError
        If the place is no such URI.
    StateError
        If it cannot be read or written.
    """

    def __init__(self, place: str | Path, *, keep: int = KEPT) -> None:
        if keep < 1:
            raise ConfigurationError(f"Checkpoints {place}: keep={keep} must be 1 or more.")
        self.place = without_parameters(str(place)) if "://" in str(place) else str(place)
        self.keep = keep
        self._files, self._root = _filesystem(str(place))
        self._local = isinstance(self._files, fs.LocalFileSystem)
        self._owner: int | None = None
        self.directory: Path | None = Path(self._root) if self._local else None
        """The directory on this machine; None for an object store."""
        self.written_bytes = 0
        """Bytes of all files written here so far; less than those of the checkpoints, where these share some."""
        self._shared = SharedFiles(self._files, self._root, self.directory)

    def __repr__(self) -> str:
        return f"CheckpointStore(place={self.place!r})"

    # Reading

    def numbers(self) -> list[int]:
        """Return the numbers of the checkpoints that are there, complete or not, newest first."""
        with self._errors("read"):
            selector = fs.FileSelector(self._root, allow_not_found=True)
            found = (_NAME.fullmatch(info.base_name) for info in self._files.get_file_info(selector))
            return sorted((int(match[1]) for match in found if match), reverse=True)

    def checkpoints(self) -> Iterator[Checkpoint]:
        """Yield the checkpoints whose manifest is whole, newest first. Their files are not looked at."""
        for number in self.numbers():
            try:
                yield self._manifest(number)
            except StateError as error:
                _log.warning("checkpoint passed over", checkpoint=number, reason=str(error))

    def latest(self, backend: StateBackend | None = None) -> tuple[Checkpoint, bytes] | None:
        """Return the newest checkpoint that is whole, and its state; None if there is none.

        Parameters
        ----------
        backend
            The state backend of the run: it goes on from the checkpoint's keys.

        Raises
        ------
        ConfigurationError
            If the checkpoint has keys of a backend, and the run has none.
        StateError
            If there are checkpoints and none is whole: to begin with empty state in silence would lose what they held.
        """
        numbers = self.numbers()
        for number in numbers:
            try:
                checkpoint = self._manifest(number)
                state = self.state(checkpoint)
                self._restore_keys(checkpoint, backend)
                return checkpoint, state
            except StateError as error:
                _log.warning("checkpoint passed over, taking the one before it", checkpoint=number, reason=str(error))
        if any(self._has_manifest(number) for number in numbers):
            raise StateError(
                f"Checkpoints {self.place}: none of {len(numbers)} is whole; restore the place from a copy, or name an empty place to "
                "begin anew with the sources' committed offsets."
            )
        return None

    def find(self, number: int | None = None) -> Checkpoint:
        """Return a checkpoint that is complete, by default the newest; for those who only look, beside a run that writes.

        Raises
        ------
        StateError
            If there is none, or not that one.
        """
        complete = [there for there in self.numbers() if self._has_manifest(there)]
        if not complete and (lanes := self.lanes()):
            raise StateError(
                f"Checkpoints {self.place}: they are of a run with workers, one place for each partition; name one of "
                f"{self.place}/{lanes[0]} to {lanes[-1]}."
            )
        if not complete:
            raise StateError(
                f"Checkpoints {self.place}: there is no complete one; a run with --checkpoints leaves them there."
            )
        if number is not None and number not in complete:
            there = ", ".join(str(number) for number in sorted(complete))
            raise StateError(f"Checkpoints {self.place}: there is no complete checkpoint {number}; there are {there}.")
        return self._manifest(complete[0] if number is None else number)

    def lanes(self) -> list[str]:
        """Return the names of the places here that are a partition's, of a run with workers."""
        with self._errors("read"):
            found = self._files.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
            return sorted(info.base_name for info in found if _LANE.fullmatch(info.base_name))

    def bring_keys(self, checkpoint: Checkpoint, directory: Path) -> None:
        """Put the files of a checkpoint's keys into a directory of this machine, and see that each is whole.

        Raises
        ------
        StateError
            If one is missing, torn or changed.
        """
        with self._errors(f"read {SHARED}"):
            for stored in checkpoint.key_files:
                self._shared.bring(stored, directory)

    def _restore_keys(self, checkpoint: Checkpoint, backend: StateBackend | None) -> None:
        if backend is None:
            if checkpoint.key_files:
                raise ConfigurationError(
                    f"Checkpoint {checkpoint.number} of {self.place} was written with the state backend rocksdb, and this run's is "
                    "memory; go on with --state-backend rocksdb."
                )
            return

        backend.restore(lambda directory: self.bring_keys(checkpoint, directory))

    def state(self, checkpoint: Checkpoint) -> bytes:
        """Return a checkpoint's state, after a look at its checksum.

        Raises
        ------
        StateError
            If it is missing, torn or changed.
        """
        for stored in checkpoint.files:
            if stored.name == STATE:
                return self._read(stored, f"{_directory(checkpoint.number)}/{STATE}")
        raise StateError(
            f"Checkpoint {checkpoint.number} of {self.place} names no {STATE}; it is not one of this version."
        )

    def _read(self, stored: StoredFile, path: str) -> bytes:
        with self._errors(f"read {path}"), self._files.open_input_stream(f"{self._root}/{path}") as stream:
            data: bytes = stream.read()
        if len(data) != stored.bytes or hashlib.sha256(data).hexdigest() != stored.sha256:
            raise StateError(
                f"{self.place}/{path} is torn or was changed: its length or checksum is not its manifest's."
            )
        return data

    def _has_manifest(self, number: int) -> bool:
        with self._errors("read"):
            info = self._files.get_file_info(f"{self._root}/{_directory(number)}/{MANIFEST}")
            return bool(info.type == fs.FileType.File)

    def _manifest(self, number: int) -> Checkpoint:
        path = f"{_directory(number)}/{MANIFEST}"
        with self._errors(f"read {path}"), self._files.open_input_stream(f"{self._root}/{path}") as stream:
            data = stream.read()
        return _parsed(data, number, what=f"{self.place}/{path}")

    # Writing

    def own(self) -> None:
        """Become the one run that writes here; an earlier one that still lives is refused from now on."""
        with self._errors("write"):
            self._files.create_dir(self._root, recursive=True)
            if self.directory is not None:
                self.directory.chmod(0o700)
        self._owner = self._owner_now() + 1
        self._write(OWNER, json.dumps({"owner": self._owner}).encode())

    def next_number(self) -> int:
        """Return the number of the next checkpoint: above every one that is there, complete or not."""
        return max(self.numbers(), default=0) + 1

    def prepare(self, number: int) -> Path | None:
        """Make room for a checkpoint; return where its state may be written on this machine, None for an object store."""
        with self._errors("write"):
            self._files.create_dir(f"{self._root}/{_directory(number)}", recursive=True)
            if self.directory is None:
                return None
            (self.directory / _directory(number)).chmod(0o700)
        return self.directory / _directory(number) / STATE

    def complete(self, checkpoint: Checkpoint, state: Path, keys: Path | None = None) -> Checkpoint:
        """Put a checkpoint's state in place, then its manifest; it exists from then on. Older ones than are kept go.

        Parameters
        ----------
        checkpoint
            Without files.
        state
            Where its state lies: what `prepare` gave, synced; or any file, which is uploaded.
        keys
            A directory with the files of a backend's keys at the same cut.

        Raises
        ------
        StateError
            If it cannot be written.
        FencedError
            If another run has become the owner.
        """
        self._check_owner()
        directory = _directory(checkpoint.number)
        stored = self._put(state, f"{directory}/{STATE}")
        shared, written = self._put_keys(keys)
        self.written_bytes += stored.bytes + written
        whole = Checkpoint(**{**_fields(checkpoint), "files": (stored, *shared)})
        self._write(f"{directory}/{MANIFEST}", _sealed(whole))
        self._clean(checkpoint.number)
        return whole

    def _put_keys(self, keys: Path | None) -> tuple[list[StoredFile], int]:
        if keys is None:
            return [], 0
        with self._errors(f"write {SHARED}"):
            return self._shared.put(keys)

    def abandon(self, number: int) -> None:
        """Remove what was written of a checkpoint that will not be completed."""
        with self._errors("write"):
            self._files.delete_dir(f"{self._root}/{_directory(number)}")

    def _put(self, state: Path, path: str) -> StoredFile:
        digest, size = hashlib.sha256(), 0
        in_place = self.directory is not None and state == self.directory / path
        with self._errors(f"write {path}"), state.open("rb") as source:
            target = None if in_place else self._files.open_output_stream(f"{self._root}/{path}")
            try:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
                    if target is not None:
                        target.write(block)
            finally:
                if target is not None:
                    target.close()
        return StoredFile(STATE, size, digest.hexdigest())

    def _write(self, path: str, data: bytes) -> None:
        """Write a small file so that it is there whole or not at all."""
        with self._errors(f"write {path}"):
            if self.directory is None:
                with self._files.open_output_stream(f"{self._root}/{path}") as stream:
                    stream.write(data)  # An object store shows an object when it is whole.
                return
            target = self.directory / path
            torn = target.with_suffix(".tmp")
            with open(torn, "wb", opener=private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            torn.rename(target)
            sync_directory(target.parent)

    def _clean(self, newest: int) -> None:
        """Remove old checkpoints, and torn ones: those before the newest that have no manifest."""
        complete = [number for number in self.numbers() if number <= newest and self._has_manifest(number)]
        oldest = complete[: self.keep][-1]
        for number in self.numbers():
            if number < oldest or (number < newest and number not in complete):
                self.abandon(number)
        self._clean_shared()

    def _clean_shared(self) -> None:
        """Remove shared files that no checkpoint names; none while a manifest cannot be read, which may name any."""
        named: list[StoredFile] = []
        for number in filter(self._has_manifest, self.numbers()):
            try:
                named.extend(self._manifest(number).files)
            except StateError:
                return
        with self._errors(f"clean up {SHARED}"):
            self._shared.clean(named)

    def _owner_now(self) -> int:
        with self._errors("read"):
            if self._files.get_file_info(f"{self._root}/{OWNER}").type != fs.FileType.File:
                return 0
            with self._files.open_input_stream(f"{self._root}/{OWNER}") as stream:
                text = stream.read()
        try:
            return int(json.loads(text)["owner"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise StateError(f"{self.place}/{OWNER} is no owner's file; is this a place of checkpoints?") from None

    def _check_owner(self) -> None:
        if self._owner is None or self._owner_now() != self._owner:
            raise FencedError(
                f"Checkpoints {self.place}: another run has taken over; this one stops, so that the two do not undo each other's work. "
                "Run a pipeline once for each place of checkpoints."
            )

    def _errors(self, what: str) -> _Errors:
        return _Errors(f"Checkpoints {self.place}: cannot {what}")


class _Errors:
    """Says of an error of the filesystem what was to be done."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (OSError, pa.ArrowException)):
            reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
            raise StateError(f"{self._what}: {reason}.") from error


def _filesystem(place: str) -> tuple[Any, str]:
    if "://" not in place:
        return fs.LocalFileSystem(), str(Path(place).absolute())
    scheme, _, rest = place.partition("://")
    if "@" in rest.partition("/")[0]:
        raise ConfigurationError(
            f"Checkpoints {scheme}://...: a URI must not hold a user or password, since logs and process lists show it; "
            "object stores' clients take them from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)."
        )
    shown = without_parameters(place)
    try:
        files, root = fs.FileSystem.from_uri(place)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).replace(place, shown).split())
        raise ConfigurationError(
            f"Checkpoints {shown!r}: {reason}. Give a directory, or a URI such as s3://bucket/path."
        ) from None  # The chained exception would show the parameters.
    return files, root.rstrip("/")


def _directory(number: int) -> str:
    return f"checkpoint-{number:09}"


def _fields(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}


def _sealed(checkpoint: Checkpoint) -> bytes:
    body = asdict(checkpoint)
    body["marks"] = {
        stream: {str(partition): place for partition, place in mark.items()}
        for stream, mark in checkpoint.marks.items()
    }
    text = json.dumps({"format": FORMAT, **body}, sort_keys=True, separators=(",", ":"))
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "checkpoint": text}).encode()


class _Sealed(msgspec.Struct):
    """A manifest's text, and its checksum."""

    sha256: str
    checkpoint: str


class _Format(msgspec.Struct):
    """What is read first of a checkpoint."""

    format: int


def _parsed(data: bytes, number: int, *, what: str) -> Checkpoint:
    try:
        outer = msgspec.json.decode(data, type=_Sealed)
        if hashlib.sha256(outer.checkpoint.encode()).hexdigest() != outer.sha256:
            raise ValueError("checksum")
        if msgspec.json.decode(outer.checkpoint, type=_Format).format != FORMAT:
            raise StateError(f"{what} is of another version than {FORMAT}, the one that this build reads.")
        # Every field has the type that it is said to have, or the manifest is refused.
        checkpoint = msgspec.json.decode(outer.checkpoint, type=Checkpoint)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{what} is torn or was changed.") from error
    if checkpoint.number != number:
        raise StateError(f"{what} is that of checkpoint {checkpoint.number}; it was moved.")
    return checkpoint
