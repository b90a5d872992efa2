"""The state backend `rocksdb`: keys that are cold, in a RocksDB of this machine (`pip install 'gillnet[rocksdb]'`).

It stands behind the kernel's port (`gillnet.core.ports.StateBackend`) and knows neither what a name nor what a state means. Its
files are no place of safety: they begin empty, or as a checkpoint has them, and go with the run. So nothing is logged ahead (no
WAL) and nothing synced but for checkpoints.

Two column families, written together: *keys*, from name to state, and *expiry*, the order in which keys may be forgotten.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import ConfigurationError, StateError

if TYPE_CHECKING:
    from types import ModuleType

MEMORY = 512 << 20
"""Bytes of memory for state, unless said otherwise."""
LEAST_MEMORY = 64 << 20

_EXPIRY = "expiry"
# Parts of the memory. What is left of it beside the keys' part is the allocator's and RocksDB's own: with state of ten times the
# memory, its indices and filters are a fifth of it.
_KEYS_SHARE, _CACHE_SHARE, _WRITE_BUFFER_SHARE = 0.4, 0.125, 1 / 32
_LEAST_WRITE_BUFFER = 8 << 20
_BLOCK_BYTES = 4 << 10
_FILE_BYTES = 32 << 20
_BLOOM_BITS = 10
# Fresh files that wait to be merged into the old ones: merged, almost all of those are written again, since keys come in no order.
# Ten times RocksDB's own number, for a tenth of that work, and of what a checkpoint writes after it; a read passes their filters,
# which costs less than the merges did.
_FRESH_FILES, _SLOW_AT, _STOP_AT = 40, 80, 160
# A file in which so many of so many entries, one after the other, are deleted is compacted.
_DELETED_OF, _DELETED = 10_000, 5_000


class RocksDBBackend:
    """Keeps cold keys in a RocksDB.

    Parameters
    ----------
    directory
        Where its files lie, made private (0700); None for a temporary directory. One run at a time.
    memory
        Bytes of memory for state, the block cache and the write buffers included.

    Attributes
    ----------
    budget
        Bytes that are left for the engine's own state.

    Raises
    ------
    ConfigurationError
        If rocksdict is not installed, another run is in the directory, or there is too little memory.
    StateError
        If the directory cannot be written.

    Notes
    -----
    A key that comes back costs a look into at most one block of each level whose bloom filter does not say no, and is
    decompressed (lz4); one that is not there costs the filters alone.
    """

    def __init__(self, directory: Path | None = None, *, memory: int = MEMORY) -> None:
        self._rocksdict = _import_rocksdict()
        if memory < LEAST_MEMORY:
            raise ConfigurationError(f"state_memory: {memory} bytes are too few; give {LEAST_MEMORY >> 20}MB or more.")
        self.memory = memory
        self.budget = int(memory * _KEYS_SHARE)
        self._temporary = directory is None
        self.directory, self._lock = _taken(directory)
        self._cache = self._rocksdict.Cache(int(memory * _CACHE_SHARE))
        self._unlogged = self._rocksdict.WriteOptions()
        self._unlogged.disable_wal = True
        self._cuts = count(1)
        self._restored = False
        self._db: Any = None
        self._expiry: Any = None
        self._expiry_handle: Any = None
        self._open()

    def __repr__(self) -> str:
        return f"RocksDBBackend({str(self.directory)!r})"

    @property
    def holds(self) -> bool:
        """Whether keys of a checkpoint are here."""
        return self._restored

    def fetch(self, names: list[bytes]) -> list[bytes | None]:
        """Return the state of each name, None for a name that is not here."""
        states: list[bytes | None] = self._do("read", lambda: self._db.get(names))
        return states

    def keep(self, names: list[bytes], states: list[bytes], expiries: list[bytes]) -> None:
        """Keep states, and when they expire."""
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        deque(map(batch.put, names, states), maxlen=0)
        deque(map(batch.put, expiries, repeat(b""), repeat(self._expiry_handle)), maxlen=0)
        self._do("write", lambda: self._db.write(batch, self._unlogged))

    def expiries(self, begin: bytes, end: bytes, most: int) -> list[bytes]:
        """Return the first expiries of a range."""
        until = self._rocksdict.ReadOptions()
        until.set_iterate_upper_bound(end)
        found: list[bytes] = self._do(
            "read", lambda: list(islice(self._expiry.keys(from_key=begin, read_opt=until), most))
        )
        return found

    def names_from(self, begin: bytes, most: int) -> tuple[list[bytes], list[bytes]]:
        """Return the first names from ``begin`` on, and their states."""
        found = self._do("read", lambda: list(islice(self._db.items(from_key=begin or None), most)))
        return [name for name, _ in found], [state for _, state in found]

    def forget(self, names: list[bytes], expiries: list[bytes]) -> None:
        """Forget names and expiries; RocksDB's compactions give the disk back."""
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        deque(map(batch.delete, names), maxlen=0)
        deque(map(batch.delete, expiries, repeat(self._expiry_handle)), maxlen=0)
        self._do("write", lambda: self._db.write(batch, self._unlogged))

    def restore(self, bring: Callable[[Path], None]) -> None:
        """Let ``bring`` put the files of a cut in place, and go on from them."""
        self._close()
        shutil.rmtree(self._files)
        self._files.mkdir(mode=0o700)
        bring(self._files)
        self._restored = any(self._files.iterdir())
        self._open()

    def cut(self) -> Path:
        """Return a directory with hard links to the files that hold what is here now.

        Notes
        -----
        What is in the write buffers is written first: that is what a cut costs, and it is bounded by them.
        """
        directory = self.directory / f"cut-{next(self._cuts):09}"
        self._do("write", lambda: self._rocksdict.Checkpoint(self._db).create_checkpoint(str(directory)))
        for name in directory.iterdir():
            if name.suffix == ".log":
                name.unlink()  # Nothing is logged; RocksDB makes one all the same.
        return directory

    def compact(self) -> None:
        """Give the disk of everything that was forgotten or replaced back now; O(state)."""
        for family in (self._db, self._expiry):
            self._do("write", family.flush)
            self._do("write", partial(family.compact_range, None, None))

    def disk_bytes(self) -> int:
        """Return the bytes of the files."""
        total = 0
        for path in self._files.iterdir():
            with suppress(FileNotFoundError):  # Compactions remove files at any time.
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Close and remove the files."""
        self._close()
        with suppress(OSError):
            shutil.rmtree(self.directory if self._temporary else self._files)
        for cut in self.directory.glob("cut-*"):
            shutil.rmtree(cut, ignore_errors=True)
        os.close(self._lock)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = self._expiry = self._expiry_handle = None

    @property
    def _files(self) -> Path:
        return self.directory / "keys"

    def _open(self) -> None:
        # The order of expiry is walked along, never asked for one name.
        options, order = self._options(self.memory, _BLOOM_BITS), self._options(self.memory // 4, None)
        families = {"default": options, _EXPIRY: order}
        self._db = self._do("open", lambda: self._rocksdict.Rdict(str(self._files), options, families))
        self._expiry = self._db.get_column_family(_EXPIRY)
        self._expiry_handle = self._db.get_column_family_handle(_EXPIRY)

    def _options(self, memory: int, bloom_bits: int | None) -> Any:
        rocksdict = self._rocksdict
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_block_size(_BLOCK_BYTES)
        if bloom_bits is not None:
            table.set_bloom_filter(bloom_bits, False)
        # Filters and indices beside the cache, about 4 bytes a key: inside it keys would push them out, and a read costs twice as much.
        table.set_cache_index_and_filter_blocks(False)
        table.set_format_version(5)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_size(max(int(memory * _WRITE_BUFFER_SHARE), _LEAST_WRITE_BUFFER))
        options.set_max_write_buffer_number(2)
        options.set_level_zero_file_num_compaction_trigger(_FRESH_FILES)
        options.set_level_zero_slowdown_writes_trigger(_SLOW_AT)
        options.set_level_zero_stop_writes_trigger(_STOP_AT)
        # zstd at the last level: files a tenth smaller, and twice the CPU of an event.
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_target_file_size_base(_FILE_BYTES)
        options.set_level_compaction_dynamic_level_bytes(True)
        options.add_compact_on_deletion_collector_factory(_DELETED_OF, _DELETED, 0.5)
        options.set_max_background_jobs(2)
        options.set_max_open_files(512)
        options.set_keep_log_file_num(1)
        options.set_stats_dump_period_sec(0)
        return options

    def _do(self, what: str, work: Callable[[], Any]) -> Any:
        # rocksdict raises plain Exceptions.
        try:
            return work()
        except Exception as error:
            reason = " ".join(str(error).split())
            raise StateError(
                f"State backend rocksdb: cannot {what} {self._files}: {reason}; look at the disk's room and rights, and start "
                "again: the run goes on from its last checkpoint"
            ) from error


def _taken(directory: Path | None) -> tuple[Path, int]:
    """Return the directory, empty and private, and the lock that no other run has."""
    if directory is None:
        directory = Path(tempfile.mkdtemp(prefix="gillnet-state-"))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigurationError(
                f"state_directory {directory}: another run keeps its state there; give each run a directory of its own."
            ) from None
        # What a run left that was killed.
        for old in (directory / "keys", *directory.glob("cut-*")):
            shutil.rmtree(old, ignore_errors=True)
        (directory / "keys").mkdir(mode=0o700)
    except OSError as error:
        raise StateError(f"state_directory {directory}: cannot be written: {error.strerror}.") from error
    return directory, lock


def _import_rocksdict() -> ModuleType:
    try:
        import rocksdict
    except ImportError as error:
        raise ConfigurationError(
            "state_backend 'rocksdb': rocksdict is not installed; run `pip install 'gillnet[rocksdb]'`, or use the backend 'memory'."
        ) from error
    return rocksdict
