"""What every librdkafka client here shares: settings, readable errors, and whether a broker can be reached.

Secrets in the settings must not reach a message, a log line or a ``repr``; `readable` is the one way from an error of
librdkafka to text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from gillnet.connectors.registry import PREFIX as REGISTRY_PREFIX
from gillnet.core.errors import ConfigurationError
from gillnet.core.secrets import BLOT, conceal, is_secret, remember

if TYPE_CHECKING:
    from gillnet.core.time import Clock

Client = TypeVar("Client")
Settings = Mapping[str, str]

# librdkafka's own log lines go to the logging module, where a host can turn them on; by default Gillnet says what
# matters.
librdkafka_log = logging.getLogger("gillnet.librdkafka")
librdkafka_log.addHandler(logging.NullHandler())

# A broker that comes back should be noticed within about a second; librdkafka's default lets ten pass.
COMMON_SETTINGS: dict[str, Any] = {
    "client.id": "gillnet",
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1_000,
    "allow.auto.create.topics": "false",
}


SILENT_S = 5.0
"""A broker that answers nothing for so long is told of as away."""

SETTLED_S = 1.0
"""A broker that was away is back when it has answered, and nothing told otherwise for so long: the longest pause between two
tries to connect. What librdkafka's queues still hold of the time before, acknowledgements and errors, is served by then."""


def readable(error: object, settings: Settings | None) -> str:
    """Write an error of librdkafka as text, with the values of secret settings blotted out."""
    if isinstance(error, KafkaException) and error.args:
        error = error.args[0]
    text = error.str() if isinstance(error, KafkaError) else str(error)
    for name, value in (settings or {}).items():
        if is_secret(name) and value:
            text = text.replace(value, BLOT)
    return " ".join(conceal(text).split()).rstrip(".")


def check_settings(settings: Settings | None, *, reserved: Mapping[str, str], what: str) -> dict[str, str]:
    """Return a copy of the pass-through settings.

    Raises
    ------
    ConfigurationError
        If a setting is one that Gillnet itself must decide; the message says what to use in its place.
    """
    for name in settings or {}:
        if name in reserved:
            raise ConfigurationError(f"{what}: the setting {name!r} is not passed through: {reserved[name]}.")
    for name, value in (settings or {}).items():
        if is_secret(name):
            remember(value)
    # The schema registry's are its client's.
    return {name: value for name, value in (settings or {}).items() if not name.startswith(REGISTRY_PREFIX)}


def make_client(
    make: Callable[[dict[str, Any]], Client], config: dict[str, Any], *, settings: Settings, what: str
) -> Client:
    """Make a librdkafka client from Gillnet's ``config``, which ``settings`` overrides.

    Raises
    ------
    ConfigurationError
        If librdkafka knows no such setting, or refuses a value.
    """
    try:
        return make({**COMMON_SETTINGS, "logger": librdkafka_log, **config, **settings})
    except (KafkaException, ValueError, TypeError) as error:
        # "from None": the chained exception would show the values that `readable` keeps out.
        raise ConfigurationError(
            f"{what}: librdkafka refuses the settings: {readable(error, settings)}. "
            "Its settings are listed in librdkafka's CONFIGURATION.md."
        ) from None


def connection_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that say how to reach the broker, of any client's, for another kind of client."""
    wanted = ("security.", "sasl.", "ssl.", "enable.ssl", "socket.", "broker.", "client.", "metadata.", "api.")
    return {name: value for name, value in settings.items() if name.startswith(wanted)}


def is_incremental(settings: Settings) -> bool:
    """Whether the group's protocol hands partitions over one by one; librdkafka then wants other calls."""
    return (
        "cooperative" in settings.get("partition.assignment.strategy", "")
        or settings.get("group.protocol") == "consumer"
    )


class BrokerWatch:
    """Notices that no broker can be reached, says so once, and says when one is back.

    Given to librdkafka as ``error_cb``; it is called on the thread that polls the client.

    Attributes
    ----------
    fatal
        The error after which the client can do nothing more.
    reason
        The last error that librdkafka told, as readable text.
    """

    def __init__(self, *, topic: str, role: str, settings: Settings, clock: Clock) -> None:
        self._log = structlog.get_logger("gillnet.kafka").bind(topic=topic, role=role)
        self._settings = settings
        self._clock = clock
        self._away_since_s: float | None = None
        self._told_s = 0.0  # When it was last told that no broker answers,
        self._answered_s: float | None = None  # and when one first answered after that.
        self.fatal: KafkaError | None = None
        self.reason = ""

    def __call__(self, error: KafkaError) -> None:
        """Take an error event of librdkafka."""
        if error.fatal():
            self.fatal = error
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # That one only counts the brokers; the cause came before it.
            self.reason = readable(error, self._settings)
        else:
            self.silent(self.reason or readable(error, self._settings))

    def silent(self, reason: str) -> None:
        """Note that a broker takes what it is sent and answers nothing, which librdkafka tells late or never."""
        self._told_s, self._answered_s = self._clock.monotonic_s(), None
        if self._away_since_s is None:
            self._away_since_s = self._told_s
            self._log.warning("broker is away, waiting", reason=reason)

    @property
    def away(self) -> bool:
        """Whether no broker could be reached when librdkafka last told."""
        return self._away_since_s is not None

    @property
    def settling(self) -> bool:
        """Whether a broker that was away has answered, and is not yet believed to be back."""
        return self._answered_s is not None

    def seen(self) -> None:
        """Note that a broker has answered."""
        if self._away_since_s is not None and self._answered_s is None:
            self._answered_s = self._clock.monotonic_s()
        self.settle()

    def settle(self) -> None:
        """Believe that a broker is back, if it has answered and nothing told otherwise since. Call it now and then."""
        if self._away_since_s is None or self._answered_s is None:
            return
        if self._clock.monotonic_s() - self._told_s >= SETTLED_S:
            self._log.info("broker is back", away_s=round(self._answered_s - self._away_since_s, 1))
            self._away_since_s = self._answered_s = None


def check_topic(
    client: Any,
    topic: str,
    *,
    timeout_s: float,
    watch: BrokerWatch,
    settings: Settings,
    what: str,
    error_class: type[Exception],
) -> list[int]:
    """Ask a broker for the topic's partitions, so that a wrong address or name stops the start and not the run.

    Raises
    ------
    SourceError, SinkError
        As ``error_class`` says: if no broker answers within ``timeout_s``, or it knows no such topic.
    """
    try:
        metadata = client.list_topics(topic, timeout=timeout_s)
    except KafkaException as error:
        client.poll(0)  # Serves error_cb, which knows the cause (refused, not resolved, wrong password, ...).
        reason = watch.reason or readable(error, settings)
        raise error_class(
            f"{what}: no broker answered within {timeout_s:g} s: {reason}. "
            "Check the address and, for TLS or SASL, the settings; `gillnet kafka` starts a local broker."
        ) from None
    told = metadata.topics[topic].error
    if told is not None and told.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
        raise error_class(
            f"{what}: the topic does not exist. Correct its name, or create it "
            "(gillnet.connectors.kafka.ensure_topics, or kafka-topics --create)."
        )
    if told is not None and not told.retriable():
        raise error_class(f"{what}: {readable(told, settings)}.")
    return sorted(metadata.topics[topic].partitions)
