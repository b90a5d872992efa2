"""The model registry: a directory that keeps numbered model versions and the aliases that point to them.

```
<directory>/<name>/<version>/model.ubj     a version, written once and never changed
<directory>/<name>/aliases.json            {"champion": 3, "challenger": 4}
```

A version appears whole or not at all (it is written beside its place and renamed), and an alias moves at once. The
models that ship in the package are found in the same way, after the user's own.
"""

from __future__ import annotations

import fcntl
import importlib.resources
import json
import os
import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import ModelError
from gillnet.serving.boosters import SUFFIXES
from gillnet.serving.model import Model, load_model, save_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DEFAULT_ALIAS = "champion"
"""The alias that a bare name stands for."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_MODEL_FILES = ("model.ubj", "model.json")


class ModelRegistry:
    """Model versions by name, number and alias.

    Parameters
    ----------
    directory
        The user's registry; created by the first `publish`. None for the packaged models only.

    Examples
    --------
    >>> registry = ModelRegistry("models")  # doctest: +SKIP
    >>> version = registry.publish(booster, "fraud", signature=[("spend_5m", "decimal(2)")])  # doctest: +SKIP
    >>> registry.set_alias("fraud", "champion", version)  # doctest: +SKIP
    >>> registry.load("fraud@champion").label  # doctest: +SKIP
    'fraud@1'
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self._directory = None if directory is None else Path(directory)
        packaged = Path(str(importlib.resources.files("gillnet.serving") / "models"))
        self._places = [packaged] if self._directory is None else [self._directory, packaged]

    def load(self, reference: str) -> Model:
        """Read the model that ``fraud@champion``, ``fraud@3``, ``fraud`` or a path to a .ubj or .json file names.

        Raises
        ------
        ModelError
            If there is no such model, version or alias (the message lists those that there are), or its file is broken.
        """
        if Path(reference).suffix in SUFFIXES:
            return load_model(reference)
        name, version, path = self.resolve(reference)
        return load_model(path).named(name, version)

    def resolve(self, reference: str) -> tuple[str, int, Path]:
        """Find name, version and file of a reference, without reading the model.

        Raises
        ------
        ModelError
            As `load`.
        """
        name, _, selector = reference.partition("@")
        _check_name(name, "model name")
        version = int(selector) if selector.isdecimal() else self._aliased(name, selector or DEFAULT_ALIAS)
        for place in self._places:
            for file in _MODEL_FILES:
                path = place / name / str(version) / file
                if path.is_file():
                    return name, version, path
        raise ModelError(f"There is no model '{reference}' in {self._where()}. {self._offer(name)}")

    def names(self) -> list[str]:
        """List the names of all models, sorted."""
        found = {entry.name for place in self._places if place.is_dir() for entry in place.iterdir() if entry.is_dir()}
        return sorted(name for name in found if _NAME.fullmatch(name) and self.versions(name))

    def versions(self, name: str) -> list[int]:
        """List a model's versions, ascending; empty if there is no such model."""
        _check_name(name, "model name")
        found = {
            int(entry.name)
            for place in self._places
            if (place / name).is_dir()
            for entry in (place / name).iterdir()
            if entry.name.isdecimal() and any((entry / file).is_file() for file in _MODEL_FILES)
        }
        return sorted(found)

    def aliases(self, name: str) -> dict[str, int]:
        """Return a model's aliases; the user's registry wins over the package."""
        _check_name(name, "model name")
        merged: dict[str, int] = {}
        for place in reversed(self._places):
            merged.update(_read_aliases(place / name / "aliases.json"))
        return merged

    def publish(
        self,
        booster: Any,
        name: str,
        *,
        signature: Sequence[tuple[str, str]],
        metadata: Mapping[str, Any] | None = None,
        reference: Mapping[str, float] | None = None,
    ) -> int:
        """Keep a trained booster as the next version of ``name``; see `save_model` for the parameters.

        Returns
        -------
        int
            The new version: one above the highest, packaged ones included. No alias moves.

        Raises
        ------
        ModelError
            If the registry has no directory of its own, or the model cannot be saved.
        """
        home = self._home(name)
        with _locked(home), tempfile.TemporaryDirectory(dir=home, prefix=".publishing-") as temporary:
            prepared = Path(temporary) / "version"
            prepared.mkdir()
            save_model(booster, prepared / "model.ubj", signature=signature, metadata=metadata, reference=reference)
            version = max(self.versions(name), default=0) + 1
            prepared.rename(home / str(version))
        return version

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version, at once.

        Raises
        ------
        ModelError
            If there is no such version, or the alias is not a name.
        """
        _check_name(alias, "alias")
        if alias.isdecimal():
            raise ModelError(f"The alias '{alias}' would read as a version; choose a word such as 'champion'.")
        self.resolve(f"{name}@{version}")
        home = self._home(name)
        with _locked(home):
            path = home / "aliases.json"
            aliases = {**_read_aliases(path), alias: version}
            _write_atomically(path, json.dumps(aliases, indent=2, sort_keys=True) + "\n")

    def _aliased(self, name: str, alias: str) -> int:
        _check_name(alias, "alias")
        aliases = self.aliases(name)
        if alias not in aliases:
            raise ModelError(f"There is no model '{name}@{alias}' in {self._where()}. {self._offer(name)}")
        return aliases[alias]

    def _offer(self, name: str) -> str:
        versions, aliases = self.versions(name), self.aliases(name)
        if versions:
            known = [str(version) for version in versions] + sorted(aliases)
            return f"Of '{name}' there are: {', '.join(known)}."
        names = self.names()
        return f"Known models: {', '.join(names)}." if names else "It holds no model yet; publish one first."

    def _where(self) -> str:
        return "the packaged models" if self._directory is None else f"{self._directory} or the packaged models"

    def _home(self, name: str) -> Path:
        _check_name(name, "model name")
        if self._directory is None:
            raise ModelError("The packaged models cannot be changed; give ModelRegistry a directory to keep models in.")
        home = self._directory / name
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"The model registry {self._directory} cannot be written: {error}.") from error
        return home


def _check_name(name: str, what: str) -> None:
    # Names become directories, so nothing that could lead out of the registry is one.
    if not _NAME.fullmatch(name):
        raise ModelError(f"The {what} {name!r} is not valid: use 1 to 64 of a-z, 0-9, '_' and '-', such as 'fraud'.")


def _read_aliases(path: Path) -> dict[str, int]:
    try:
        return {str(alias): int(version) for alias, version in json.loads(path.read_text("utf-8")).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"The aliases file {path} is broken ({error}). Mend it, or delete it and set the aliases again."
        ) from error


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Keep two processes from taking the same version or losing each other's alias."""
    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".aliases-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
