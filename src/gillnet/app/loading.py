"""Finds the pipeline that a user names: in a Python file, or in an importable module."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from gillnet.api.pipeline import Pipeline
from gillnet.core.errors import ConfigurationError, DefinitionError, GillnetError
from gillnet.core.naming import nearest

if TYPE_CHECKING:
    from types import ModuleType

BUNDLED = ("payments", "bots", "takeover")
"""Scenarios that ship with Gillnet, as ``gillnet.scenarios.<name>``."""


def load_pipeline(ref: str) -> Pipeline:
    """Return the pipeline that a reference names.

    Parameters
    ----------
    ref
        A Python file (``app.py``) or a module (``gillnet.scenarios.payments``), with ``:name`` behind it where it has several
        pipelines at top level.

    Raises
    ------
    ConfigurationError
        If there is no such file, module or pipeline, or there are several.
    DefinitionError
        If the file is wrong; the message names its line.
    """
    place, name = _split(ref)
    module = _run_file(Path(place)) if _is_file(place) else _import_module(place)
    return _choose(module, place, name)


def _split(ref: str) -> tuple[str, str | None]:
    place, colon, name = ref.rpartition(":")
    if colon and name.isidentifier():
        return place, name
    return ref, None


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or Path(place).is_file()


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        there = [entry.name for entry in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, there, n=1)
        hint = f"did you mean {path.parent / close[0]}?" if close else "give a Python file that defines a pipeline."
        raise ConfigurationError(f"There is no file {path}; {hint}")
    path = path.resolve()
    # A name of its own, so that app.py shadows no module called app; the same file is the same module.
    name = f"_gillnet_app_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is not a Python file; name it with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # The file may import its neighbours, as under `python app.py`.
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise DefinitionError(_told(error, path)) from error
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is neither a Python file nor a module; write app.py or package.module.")
    if name in BUNDLED:
        name = f"gillnet.scenarios.{name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise DefinitionError(_told(error, None, name)) from error
        raise ConfigurationError(
            f"There is no module {name!r}: {error.name!r} cannot be found. Give a path such as app.py, an installed module, "
            f"or one of the bundled scenarios ({', '.join(BUNDLED)})."
        ) from error
    except Exception as error:
        raise DefinitionError(_told(error, None, name)) from error


def _told(error: Exception, path: Path | None, module: str = "") -> str:
    """Write an error of a user's file as one paragraph that names the user's line, innermost."""
    what = str(path) if path else f"Module {module}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if path is not None and frame.filename == str(path)]
    if not own:
        own = [frame for frame in frames if "importlib" not in frame.filename and "gillnet/app/" not in frame.filename]
    where = f"{own[-1].filename}, line {own[-1].lineno}" if own else what
    kind = "" if isinstance(error, GillnetError) else f"{type(error).__name__}: "
    code = f" (in `{own[-1].line}`)" if own and own[-1].line and kind else ""
    return f"{where}: {kind}{' '.join(str(error).split())}{code}"


def _choose(module: ModuleType, place: str, name: str | None) -> Pipeline:
    found = {
        key: value for key, value in vars(module).items() if isinstance(value, Pipeline) and not key.startswith("_")
    }
    if name is not None:
        if name not in found:
            raise ConfigurationError(f"{place} has no pipeline {name!r} at top level{nearest(name, found)}.")
        return found[name]
    distinct = {id(pipeline) for pipeline in found.values()}
    if not found:
        raise ConfigurationError(
            f"{place} has no pipeline at top level; write one, such as `pipeline = gn.Pipeline(features)`."
        )
    if len(distinct) > 1:
        names = sorted(found)
        raise ConfigurationError(
            f"{place} has several pipelines ({', '.join(names)}); choose one, as {place}:{names[0]}."
        )
    return next(iter(found.values()))
