"""Decides where each output of a run goes, and opens it when the first record comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from gillnet.connectors.pulsar_uri import SCHEMES as PULSAR
from gillnet.connectors.uri import open_sink, parse_uri
from gillnet.core.errors import ConfigurationError
from gillnet.core.naming import nearest
from gillnet.core.ports import Sink, Transactions
from gillnet.core.secrets import without_parameters
from gillnet.plan.nodes import PipelinePlan

SIDE_OUTPUTS = ("malformed", "duplicate", "late", "too_late")
_MAIN = ("decisions", "alerts", "sessions", "matches")
# The largest record that a Kafka sink writes (16 MiB), and room for the headers that say why it is there.
_SIDE_MESSAGE_BYTES = (16 << 20) + (64 << 10)
_SUFFIXES = (".ndjson", ".ndjson.gz", ".jsonl", ".json", ".gz", ".csv", ".parquet")


def output_names(plan: PipelinePlan) -> list[str]:
    """Return the names of a plan's outputs: rows first, then each stream's side outputs."""
    missing = set() if plan.sessions is not None else {"sessions"}
    if not plan.has_patterns:
        missing.add("matches")
    main = [name for name in _MAIN if name not in missing]
    if plan.revisions:
        main.insert(1, "decisions.revisions")
    main += [f"joins.{join.name}" for join in plan.joins]
    return main + [f"{stream.name}.{kind}" for stream in plan.streams for kind in SIDE_OUTPUTS]


class SinkRoutes:
    """The URI of each output, and the way to open it.

    Side outputs that have no URI go next to the main one: ``kafka://host/decisions`` brings
    ``kafka://host/payments.malformed``, ``out/decisions.ndjson`` brings ``out/payments.malformed.ndjson``.

    Parameters
    ----------
    plan
        The pipeline's plan, which says what outputs there are.
    sinks
        URI by output.
    default
        For the other outputs: a URI with ``{name}``, or a directory.
    connection
        Gives the settings of the connector that a URI names.

    Raises
    ------
    ConfigurationError
        If an output is unknown, two outputs would go to one file, or the default names no place for each.
    """

    def __init__(
        self,
        plan: PipelinePlan,
        sinks: Mapping[str, str],
        *,
        default: str | None = None,
        connection: Callable[[str], Mapping[str, str]] = lambda _: {},
    ) -> None:
        names = output_names(plan)
        for name in sinks:
            if name not in names:
                raise ConfigurationError(f"--sink {name}=...: there is no output {name!r}{nearest(name, names)}.")
        self._connection = connection
        pattern = None if default is None else place_pattern(default, what="--sinks")
        beside = _beside(next((sinks[name] for name in _MAIN if name in sinks), ""))
        self.uris: dict[str, str] = {}
        for name in names:
            template = pattern if pattern is not None or name in _MAIN else beside
            if uri := sinks.get(name) or (template.replace("{name}", name) if template else None):
                self.uris[name] = uri
        _check_distinct(self.uris)

    @property
    def uses_stdout(self) -> bool:
        """Whether an output goes to standard output, which then is no place for a display."""
        return "-" in self.uris.values()

    def prepare(self) -> None:
        """Create the Kafka topics that are missing, and the directories of files.

        Raises
        ------
        ConfigurationError
            If a broker refuses or does not answer, or a directory cannot be made.
        """
        topics: dict[str, list[str]] = {}
        aside: dict[str, list[str]] = {}
        for name, uri in self.uris.items():
            parsed = parse_uri(uri, what="Sink")
            if parsed.scheme == "kafka" and parsed.address and parsed.path.strip("/"):
                group = aside if name.rpartition(".")[2] in SIDE_OUTPUTS else topics
                group.setdefault(parsed.address, []).append(parsed.path.strip("/"))
            elif parsed.scheme == "file" and parsed.path not in ("", "-"):
                make_directory(Path(parsed.path).parent)
        for servers, names in topics.items():
            create_topics(servers, names, settings=self._connection("kafka:"))
        for servers, names in aside.items():
            _create_side_topics(servers, names, settings=self._connection("kafka:"))

    def cluster(self) -> tuple[str, list[str]]:
        """Return the one Kafka cluster that every output goes to, and the topics there.

        Raises
        ------
        ConfigurationError
            If an output goes elsewhere, or there is none.
        """
        places = {name: parse_uri(uri, what="Sink") for name, uri in self.uris.items()}
        if not places:
            raise ConfigurationError(
                "delivery exactly-once: no output has a sink; give one, such as --sinks kafka://localhost:9092/{name}."
            )
        first = next((parsed for parsed in places.values() if parsed.scheme == "kafka"), None)
        for name, parsed in places.items():
            if first is None or parsed.scheme != "kafka" or parsed.address != first.address:
                raise ConfigurationError(
                    f"--sink {name}={parsed.text}: with delivery exactly-once every output is a topic of one Kafka cluster, which has "
                    "transactions; name one there, or choose delivery at-least-once."
                )
        assert first is not None
        return first.address, sorted({parsed.path.strip("/") for parsed in places.values()})

    def open(self, name: str, *, check: bool = True, transactions: Transactions | None = None) -> Sink | None:
        """Open an output's sink; None if it goes nowhere. For `gillnet.runtimes.embedded.Outputs`.

        With ``transactions`` it is one of theirs. ``check=False`` asks nothing of the broker: for an output whose first record comes
        while the run goes on, and the broker may be away.
        """
        uri = self.uris.get(name)
        if uri is None:
            return None
        if transactions is not None:
            return transactions.sink(parse_uri(uri, what="Sink").path.strip("/"))
        return open_sink(uri, settings=self._connection(uri), check=check)


def _create_side_topics(servers: str, names: list[str], *, settings: Mapping[str, str]) -> None:
    """Create topics that take a record of any size that a source gives, where the broker allows that."""
    try:
        create_topics(servers, names, settings=settings, config={"max.message.bytes": str(_SIDE_MESSAGE_BYTES)})
    except ConfigurationError:
        create_topics(servers, names, settings=settings)


def create_topics(
    servers: str,
    names: Sequence[str] | Mapping[str, int],
    *,
    settings: Mapping[str, str],
    config: Mapping[str, str] | None = None,
) -> None:
    """Create the topics that are missing, with these topic settings.

    Raises
    ------
    ConfigurationError
        If the Kafka client is not installed, or the broker refuses or does not answer.
    """
    try:
        from gillnet.connectors.kafka import ensure_topics
    except ModuleNotFoundError as error:
        raise ConfigurationError("The Kafka client is not installed; run `pip install 'gillnet[kafka]'`.") from error
    ensure_topics(names, bootstrap_servers=servers, settings=settings, config=config, timeout_s=15.0)


def place_pattern(default: str, *, what: str) -> str:
    """Return the pattern that gives each output a place; a directory gets a file for each."""
    if "{name}" in default:
        return default
    parsed = parse_uri(default, what=what)
    if parsed.scheme == "file" and parsed.path != "-" and not parsed.path.endswith(_SUFFIXES):
        return f"{default.rstrip('/')}/{{name}}.ndjson"
    raise ConfigurationError(
        f"{what} {without_parameters(default)}: all outputs would go to one place; write {{name}} for the output's name, such as "
        "kafka://localhost:9092/{name}, or give a directory."
    )


def _beside(uri: str) -> str | None:
    """Return the pattern of the places next to a URI; None if it has no neighbours (standard output, memory)."""
    if not uri or uri == "-":
        return None
    parsed = parse_uri(uri, what="Sink")
    if parsed.scheme == "kafka":
        parts = urlsplit(uri)
        return urlunsplit((parts.scheme, parts.netloc, "/{name}", parts.query, ""))
    if parsed.scheme in PULSAR:
        return f"{parsed.shown.rpartition('/')[0]}/{{name}}"
    if parsed.scheme == "file":
        path, question, query = uri.partition("?")
        place = PurePosixPath(path)
        suffix = "".join(place.suffixes[-2:]) if path.endswith(".gz") else place.suffix or ".ndjson"
        return f"{path[: len(path) - len(place.name)]}{{name}}{suffix}{question}{query}"
    return None


def _check_distinct(uris: Mapping[str, str]) -> None:
    # Decisions and side outputs have different shapes. Standard output may take several, for people.
    taken: dict[str, str] = {}
    for name, uri in uris.items():
        other = taken.setdefault(uri, name)
        if other != name and uri not in ("-", "memory:"):
            raise ConfigurationError(
                f"The outputs {other!r} and {name!r} would both go to {without_parameters(uri)}; give each a place of its own."
            )


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, with a readable error."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"The directory {directory} cannot be made: {error.strerror}.") from error
