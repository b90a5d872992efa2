"""A schema registry with Confluent's API, asked through confluent-kafka's client: the one place that loads it.

Schemas do not change under their ids, so each is fetched once. What the registry answers is not trusted: the sizes are held
to limits here, and what is in it by the kernel that reads it.
"""

from __future__ import annotations

import base64
import binascii
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from gillnet.core.errors import ConfigurationError, SourceError
from gillnet.core.formats import FormatKind, UnusableSchema, WriterSchema
from gillnet.core.secrets import conceal, is_secret, remember
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from types import ModuleType

PREFIX = "schema.registry."
"""Settings of the registry's client stand among those of Kafka, under this prefix, as other clients have them."""
WAIT_S = 60.0
"""A registry that does not answer for so long ends the run, which goes on from where it was when it is started again."""
REQUEST_S = 10.0
MOST_BYTES = 1 << 20
MOST_REFERENCES = 100

_LONGEST_PAUSE_S = 5.0
_NOT_FOUND = 40403
_VERSION_NOT_FOUND = (40401, 40402)
_NUMBERS = ("timeout", "cache.capacity", "cache.latest.ttl.sec")


class SchemaRegistry:
    """Fetches writers' schemas.

    Parameters
    ----------
    url
        ``http://host:port``, several with commas; without a user or password, which are settings.
    kind
        The format that its schemas must be of.
    settings
        Settings of confluent-kafka's ``SchemaRegistryClient``: ``basic.auth.user.info``, ``ssl.ca.location`` and so on.
    wait_s
        How long to try to reach a registry that does not answer.

    Raises
    ------
    ConfigurationError
        If the client is not installed, or refuses the URL or a setting.
    """

    def __init__(
        self,
        url: str,
        *,
        kind: FormatKind,
        settings: Mapping[str, str] | None = None,
        wait_s: float = WAIT_S,
        clock: Clock | None = None,
    ) -> None:
        check_url(url)
        self._what = f"Schema registry {url}"
        self._kind = kind
        self._wait_s = wait_s
        self._clock = clock or SystemClock()
        self._log = structlog.get_logger("gillnet.registry").bind(registry=url)
        for name, value in (settings or {}).items():
            if is_secret(name):
                remember(value)
                remember(value.partition(":")[2])
        client = _client(self._what)
        self._error: type[Exception] = client.SchemaRegistryError
        numbers = {name: float(value) for name, value in (settings or {}).items() if name in _NUMBERS}
        try:
            self._client: Any = client.SchemaRegistryClient(
                # Retries are ours: they say that the registry is away, and how long.
                {"url": url, "timeout": REQUEST_S, **(settings or {}), **numbers, "max.retries": 0}
            )
        except (ValueError, TypeError, OSError) as error:
            # "from None": the chained exception may show a password.
            raise ConfigurationError(f"{self._what}: its client refuses the settings: {_told(error)}.") from None

    def fetch(self, schema_id: int) -> WriterSchema | None:
        """Return the schema of an id; None if the registry says that it has none.

        Raises
        ------
        UnusableSchema
            If it is of another format or too large, or what it refers to is not there.
        SourceError
            If the registry refuses to answer, or did not for `wait_s` seconds.
        """
        fmt = "serialized" if self._kind == "protobuf" else None
        found = self._ask(lambda: self._client.get_schema(schema_id, fmt=fmt), absent=(_NOT_FOUND,))
        if found is None:
            return None
        schema_type = (found.schema_type or "AVRO").upper()
        if schema_type != self._kind.upper():
            raise UnusableSchema(f"it is of the type {schema_type[:20]}")
        references: dict[tuple[str, int], bytes] = {}
        self._gather(found.references or [], references, fmt, 0)
        schema = WriterSchema(definition=self._bytes(found.schema_str), references=tuple(references.values()))
        if len(schema.definition) + sum(map(len, schema.references)) > MOST_BYTES:
            raise UnusableSchema(f"it is larger than {MOST_BYTES} bytes")
        self._log.info("schema fetched", schema=schema_id, references=len(references))
        return schema

    def _gather(self, wanted: list[Any], found: dict[tuple[str, int], bytes], fmt: str | None, depth: int) -> None:
        """Fetch what a schema refers to, and what that refers to, each once, before what needs it."""
        for reference in wanted:
            key = (reference.subject, reference.version)
            if key in found:
                continue
            if depth > MOST_REFERENCES or len(found) >= MOST_REFERENCES:
                raise UnusableSchema(f"it refers to more than {MOST_REFERENCES} others")

            def ask(key: tuple[str, int] = key) -> Any:
                return self._client.get_version(key[0], key[1], deleted=True, fmt=fmt)

            registered = self._ask(ask, absent=(*_VERSION_NOT_FOUND, _NOT_FOUND))
            if registered is None:
                raise UnusableSchema("a schema that it refers to is not there")
            self._gather(registered.schema.references or [], found, fmt, depth + 1)
            found.setdefault(key, self._bytes(registered.schema.schema_str))

    def _bytes(self, text: str | None) -> bytes:
        if text is None or len(text) > 2 * MOST_BYTES:
            raise UnusableSchema(f"it is empty, or larger than {MOST_BYTES} bytes")
        if self._kind == "avro":
            return text.encode()
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise UnusableSchema("the registry gives no serialized descriptor (format=serialized)") from None

    def _ask(self, ask: Any, *, absent: tuple[int, ...]) -> Any:
        """Ask until there is an answer, or for `wait_s` seconds; None where it is that there is no such thing."""
        began_s, away = self._clock.monotonic_s(), False
        for pause_s in _pauses():
            try:
                answer = ask()
            except self._error as error:
                status, code = error.http_status_code, error.error_code  # type: ignore[attr-defined]
                if status == 404 and code in absent:
                    return None
                if status not in (408, 429) and status < 500:
                    hint = "give schema.registry.basic.auth.user.info" if status in (401, 403) else "check its address"
                    raise SourceError(f"{self._what}: it answers {status}: {_told(error)}; {hint}.") from None
                told = _told(error)
            except Exception as error:  # whatever the HTTP client raises for a connection that fails
                told = _told(error) or type(error).__name__
            else:
                if away:
                    self._log.info("registry is back", away_s=round(self._clock.monotonic_s() - began_s, 1))
                return answer
            if self._clock.monotonic_s() - began_s + pause_s > self._wait_s:
                raise SourceError(
                    f"{self._what}: it did not answer for {self._wait_s:g} s: {told}. No record was lost: start the run again "
                    "when it is back."
                )
            if not away:
                away = True
                self._log.warning("registry is away, waiting", reason=told)
            self._clock.sleep(pause_s)
        raise AssertionError("pauses do not end")


def check_url(url: str) -> None:
    """Refuse what is no address of a registry, without showing what it holds.

    Raises
    ------
    ConfigurationError
        If it holds a user or password, or is no HTTP address.
    """
    for part in url.split(","):
        try:
            split = urlsplit(part.strip())
        except ValueError:
            split = urlsplit("")
        if "@" in split.netloc:
            raise ConfigurationError(
                "registry=...: a URL must not hold a user or password, since logs and process lists show it; "
                'give them as a setting: [kafka] "schema.registry.basic.auth.user.info" = "${REGISTRY_USER_INFO}".'
            )
        if split.scheme not in ("http", "https") or not split.netloc or split.query:
            raise ConfigurationError("registry=...: write the registry's address, such as http://localhost:8081.")


def registry_settings(settings: Mapping[str, str] | None) -> dict[str, str]:
    """Return the registry's settings from among Kafka's."""
    return {name.removeprefix(PREFIX): value for name, value in (settings or {}).items() if name.startswith(PREFIX)}


def _pauses() -> Iterator[float]:
    pause_s = 0.1
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _told(error: Exception) -> str:
    return " ".join(conceal(str(error)[:300]).split()).rstrip(".")


def _client(what: str) -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Its dependencies tell each other of what they will drop.
            from confluent_kafka import schema_registry
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{what}: its client is not installed; run `pip install 'gillnet[schema-registry]'`."
        ) from error
    return schema_registry
