"""What a run is told besides its pipeline: from ``gillnet.toml``, and from the command line, which wins.

```toml
models = "models"                        # the model registry
history = "history"                      # every accepted event, as Parquet
checkpoints = "checkpoints"              # from which a run goes on after it ended; or s3://bucket/path

[sources]
payments = "kafka://broker:9093/payments?group=fraud"

[sinks]
default = "kafka://broker:9093/{name}"   # every output; {name} is the output's name
alerts = "-"

[kafka]                                  # librdkafka's settings, as they are
"security.protocol" = "SASL_SSL"
"sasl.password" = "${KAFKA_PASSWORD}"    # from the environment

[pulsar]
token = "${PULSAR_TOKEN}"                # or token_file; for `gillnet.connectors.pulsar.client.SETTINGS`
admin_url = "http://broker:8080"

[options]
latency_budget = "10ms"
state_backend = "rocksdb"                # keys that are cold on this machine's disk: pip install 'gillnet[rocksdb]'
state_memory = "512MB"
state_directory = "state"
```
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gillnet.core.errors import ConfigurationError, DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.secrets import is_secret, remember, without_parameters
from gillnet.core.time import MILLISECOND, SECOND, duration_us
from gillnet.runtimes.embedded import RuntimeOptions

DEFAULT_FILE = "gillnet.toml"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECTIONS = ("sources", "sinks", "kafka", "pulsar", "options", "models", "history", "checkpoints")
_PATHS = ("models", "history", "checkpoints")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateConfig:
    """Where the state of keys is kept.

    Attributes
    ----------
    backend
        ``memory``, or ``rocksdb`` for state larger than memory and checkpoints of what has changed.
    memory
        Bytes of memory that ``rocksdb`` may take for state; None for its default.
    directory
        Where ``rocksdb`` keeps its files; None for a temporary directory.
    """

    backend: str = "memory"
    memory: int | None = None
    directory: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that a run needs besides its pipeline.

    Attributes
    ----------
    sources
        URI by stream.
    sinks
        URI by output.
    default_sink
        For every output without a URI of its own: a URI with ``{name}``, or a directory; None for none.
    kafka
        librdkafka's settings, passed through.
    pulsar
        The settings of Pulsar's clients.
    models
        The model registry's directory; None for the packaged models only.
    history
        Where accepted events are kept as Parquet; None for nowhere.
    checkpoints
        Where checkpoints are kept, a directory or a URI; None for state that ends with the run.
    state
        Where the state of keys is kept.
    options
        How the run behaves.
    """

    # Not in its `repr`: they may hold what `${NAME}` stood for.
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    sinks: Mapping[str, str] = field(default_factory=dict, repr=False)
    default_sink: str | None = field(default=None, repr=False)
    kafka: Mapping[str, str] = field(default_factory=dict, repr=False)
    pulsar: Mapping[str, str] = field(default_factory=dict, repr=False)
    models: Path | None = None
    history: Path | None = None
    checkpoints: str | None = field(default=None, repr=False)
    state: StateConfig = field(default_factory=StateConfig)
    options: RuntimeOptions = field(default_factory=RuntimeOptions)

    def connection(self, uri: str) -> Mapping[str, str]:
        """Return the settings of the connector that a URI names."""
        return self.pulsar if uri.startswith(("pulsar:", "pulsar+ssl:")) else self.kafka

    def changed(
        self,
        *,
        sources: Iterable[str] = (),
        sinks: Iterable[str] = (),
        settings: Iterable[str] = (),
        default_sink: str | None = None,
        models: Path | None = None,
        history: Path | None = None,
        checkpoints: str | None = None,
    ) -> RunConfig:
        """Return the configuration with what the command line says.

        Parameters
        ----------
        sources, sinks
            ``name=URI`` each.
        settings
            ``section.key=value`` each: ``kafka.security.protocol=SSL``, ``options.latency_budget=5ms``.

        Raises
        ------
        ConfigurationError
            If one has no ``=``, or its key is unknown.
        """
        sections: dict[str, dict[str, Any]] = {"kafka": {}, "pulsar": {}, "options": {}}
        for text in settings:
            key, value = _pair(text, what="--set", example="kafka.security.protocol=SSL")
            section, dot, name = key.partition(".")
            if section not in sections or not dot or not name:
                known = (
                    "kafka.<setting>",
                    "pulsar.<setting>",
                    *(f"options.{option}" for option in (*_OPTIONS, *_STATE)),
                )
                raise ConfigurationError(f"--set {key}=...: the key {key!r} is unknown{nearest(key, known)}.")
            sections[section][name] = value
            if is_secret(name):
                remember(value)
        return replace(
            self,
            sources={
                **self.sources,
                **_pairs(sources, what="--source", example="payments=kafka://localhost:9092/payments"),
            },
            sinks={**self.sinks, **_pairs(sinks, what="--sink", example="decisions=kafka://localhost:9092/decisions")},
            kafka={**self.kafka, **sections["kafka"]},
            pulsar={**self.pulsar, **sections["pulsar"]},
            default_sink=default_sink or self.default_sink,
            models=models or self.models,
            history=history or self.history,
            checkpoints=checkpoints or self.checkpoints,
            state=_state(self.state, sections["options"], what="--set"),
            options=_options(self.options, sections["options"], what="--set"),
        )


def known_settings() -> frozenset[str]:
    """Return the names of everything that a configuration may set: sections, and ``options.<name>``."""
    return frozenset({*_SECTIONS, *(f"options.{name}" for name in (*_OPTIONS, *_STATE))})


def load_config(path: str | Path | None = None) -> RunConfig:
    """Read a configuration file.

    Parameters
    ----------
    path
        The file; None takes ``gillnet.toml`` in the current directory if there is one.

    Raises
    ------
    ConfigurationError
        If the file is missing, is no TOML, or has an unknown key.
    """
    if path is None:
        if not Path(DEFAULT_FILE).is_file():
            return RunConfig()
        path = DEFAULT_FILE
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(f"There is no configuration file {path}.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: the configuration cannot be read: {error}.") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: the configuration cannot be read: it is nested too deep.") from None
    return _from_toml(content, path)


def _from_toml(content: Mapping[str, Any], path: Path) -> RunConfig:
    for key, value in content.items():
        if key not in _SECTIONS:
            raise ConfigurationError(f"{path}: the key {key!r} is unknown{nearest(key, _SECTIONS)}.")
        if key not in _PATHS and not isinstance(value, dict):
            raise ConfigurationError(f"{path}: {key!r} is a section; write it as [{key}].")
    sinks = _texts(content.get("sinks", {}), what=f"{path}: [sinks]")
    default = sinks.pop("default", None)
    return RunConfig(
        sources=_texts(content.get("sources", {}), what=f"{path}: [sources]"),
        sinks=sinks,
        default_sink=default,
        kafka=_texts(_flat(content.get("kafka", {})), what=f"{path}: [kafka]"),
        pulsar=_texts(content.get("pulsar", {}), what=f"{path}: [pulsar]"),
        models=_directory(content, "models", path),
        history=_directory(content, "history", path),
        checkpoints=_place(content, "checkpoints", path),
        state=_state(StateConfig(), content.get("options", {}), what=f"{path}: [options]", beside=path.parent),
        options=_options(RuntimeOptions(), content.get("options", {}), what=f"{path}: [options]"),
    )


def _directory(content: Mapping[str, Any], key: str, path: Path) -> Path | None:
    name = content.get(key)
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f'{path}: {key} is a directory\'s name, such as {key} = "{key}".')
    # Beside the file, so that it means the same from wherever the run is started.
    return None if name is None else path.parent / name


def _place(content: Mapping[str, Any], key: str, path: Path) -> str | None:
    """Return a directory, or a URI as it is."""
    name = content.get(key)
    if isinstance(name, str) and "://" in name:
        return _expanded(name, what=f"{path}: {key}")
    directory = _directory(content, key, path)
    return None if directory is None else str(directory)


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested tables: TOML reads ``security.protocol = "SSL"`` as a table in a table, librdkafka has dotted names."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _texts(section: Mapping[str, Any], *, what: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    for key, value in section.items():
        if isinstance(value, bool):
            texts[key] = str(value).lower()
        elif isinstance(value, (str, int, float)):
            texts[key] = _expanded(str(value), what=f"{what} {key}")
            if is_secret(key):
                remember(texts[key])
        else:
            raise ConfigurationError(f"{what} {key}: a {type(value).__name__} is not a text.")
    return texts


def _expanded(text: str, *, what: str) -> str:
    """Put in what ``${NAME}`` stands for, so that a file need not hold a password."""

    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigurationError(f"{what}: the environment variable {match[1]} is not set.")
        if is_secret(match[1]):
            remember(os.environ[match[1]])
        return os.environ[match[1]]

    return _VARIABLE.sub(variable, text)


def _pair(text: str, *, what: str, example: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key and value):
        # A setting without its name may be a password.
        told = without_parameters(key) if equals or what != "--set" else "..."
        raise ConfigurationError(f"{what} {told!r}: write name=value, such as {what} {example}.")
    return key, value


def _pairs(texts: Iterable[str], *, what: str, example: str) -> dict[str, str]:
    return dict(_pair(text, what=what, example=example) for text in texts)


def _milliseconds(value: Any, what: str) -> float:
    return duration_us(value, what=what) / MILLISECOND


def _seconds(value: Any, what: str) -> float:
    return duration_us(value, what=what) / SECOND


def _whole(value: Any, what: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if number < 0 or isinstance(value, (bool, float)):
        raise ConfigurationError(f"{what}: {value!r} is not a whole number, 0 or more.")
    return number


def _emit(value: Any, what: str) -> str:
    if value not in ("all", "flagged"):
        raise ConfigurationError(f"{what}: {value!r} is unknown; choose all or flagged.")
    return str(value)


def _detail(value: Any, what: str) -> str:
    if value not in ("audit", "decision"):
        raise ConfigurationError(f"{what}: {value!r} is unknown; choose audit or decision.")
    return str(value)


def _delivery(value: Any, what: str) -> str:
    if value not in ("at-least-once", "exactly-once"):
        raise ConfigurationError(f"{what}: {value!r} is unknown; choose at-least-once or exactly-once.")
    return str(value)


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value):
        raise ConfigurationError(f"{what}: {value!r} is no name; write letters, digits, '.', '_' and '-'.")
    return value


_OPTIONS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "latency_budget": ("latency_budget_ms", _milliseconds),
    "turn": ("turn_ms", _milliseconds),
    "max_batch_records": ("max_batch_records", _whole),
    "delivery": ("delivery", _delivery),
    "transactional_id": ("transactional_id", _name),
    "transaction_interval": ("transaction_interval_ms", _milliseconds),
    "commit_interval": ("commit_interval_s", _seconds),
    "checkpoint_interval": ("checkpoint_interval_s", _seconds),
    "revision_interval": ("revision_interval_s", _seconds),
    "emit": ("emit", _emit),
    "detail": ("detail", _detail),
    "top_reasons": ("top_reasons", _whole),
    "max_records": ("max_records", _whole),
}


_STATE = ("state_backend", "state_memory", "state_directory")
_BACKENDS = ("memory", "rocksdb")
_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB|TB)?", re.IGNORECASE)
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def _bytes(value: Any, what: str) -> int:
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(f"{what}: {value!r} is no size; write it as 512MB or 4GB.")
    return int(match[1]) * _UNITS[(match[2] or "B").upper()]


def _state(state: StateConfig, section: Mapping[str, Any], *, what: str, beside: Path | None = None) -> StateConfig:
    changes: dict[str, Any] = {}
    if (backend := section.get("state_backend")) is not None:
        if backend not in _BACKENDS:
            raise ConfigurationError(f"{what} state_backend: {backend!r} is unknown; choose memory or rocksdb.")
        changes["backend"] = backend
    if (memory := section.get("state_memory")) is not None:
        changes["memory"] = _bytes(memory, f"{what} state_memory")
    if (directory := section.get("state_directory")) is not None:
        if not isinstance(directory, str) or not directory:
            raise ConfigurationError(f"{what} state_directory: {directory!r} is no directory's name.")
        changes["directory"] = Path(directory) if beside is None else beside / directory
    return replace(state, **changes)


def _options(options: RuntimeOptions, section: Mapping[str, Any], *, what: str) -> RuntimeOptions:
    changes: dict[str, Any] = {}
    for key, value in section.items():
        if key in _STATE:
            continue
        if key not in _OPTIONS:
            raise ConfigurationError(f"{what}: the option {key!r} is unknown{nearest(key, (*_OPTIONS, *_STATE))}.")
        attribute, read = _OPTIONS[key]
        try:
            changes[attribute] = read(value, f"{what} {key}")
        except DefinitionError as error:
            raise ConfigurationError(str(error)) from error
    if changes.get("latency_budget_ms") == 0 or changes.get("max_batch_records") == 0:
        raise ConfigurationError(f"{what}: latency_budget and max_batch_records must be above 0.")
    return replace(options, **changes)
