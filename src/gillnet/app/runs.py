"""Builds a runtime: opens the sources, checks the model, routes the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

from gillnet.api.pipeline import Pipeline
from gillnet.app.config import RunConfig
from gillnet.app.recording import RunRecorder
from gillnet.app.simulated import SCHEME, SimulatorScheme
from gillnet.app.sinks import SinkRoutes, create_topics
from gillnet.connectors.pulsar_uri import SCHEMES as PULSAR
from gillnet.connectors.uri import open_source, parse_uri
from gillnet.core.errors import ConfigurationError
from gillnet.core.naming import nearest
from gillnet.core.ports import Sink, Source, StateBackend, Transactions
from gillnet.core.time import SystemClock
from gillnet.plan.nodes import PipelinePlan
from gillnet.runtimes.embedded import Alert, Checkpoints, EmbeddedRuntime, Outputs
from gillnet.serving import ModelRegistry, Scorer, check_signature, choose_scorer
from gillnet.simulator.streams import STREAMS
from gillnet.state import CheckpointStore, FileJournal, RocksDBBackend
from gillnet.state.rocksdb import MEMORY
from gillnet.stores.history import HistoryWriter

_GROUPS = {"group": "consumer group", "subscription": "subscription"}

WrapSink = Callable[[str, Sink | None], Sink | None]


def build_runtime(
    pipeline: Pipeline,
    config: RunConfig,
    *,
    on_alerts: Callable[[list[Alert]], None] | None = None,
    on_turn: Callable[[], None] | None = None,
    wrap_sink: WrapSink | None = None,
    lane: int = 0,
) -> EmbeddedRuntime:
    """Open everything that a run needs.

    What is wrong is found before the first record is read: the model, then the sinks' places, then the sources.

    Parameters
    ----------
    pipeline
        What to run.
    config
        Where records come from and go to.
    on_alerts, on_turn
        For a display; see `EmbeddedRuntime`.
    wrap_sink
        Called with an output's name and its sink (None if it goes nowhere) when it is opened; what it returns is used.
    lane
        Its number, where a run is one of several over the partitions of the same topics: their histories are then told apart.

    Raises
    ------
    ConfigurationError
        If a stream has no source, or a URI or setting is wrong.
    ModelError
        If the model is missing, broken, or does not fit the features.
    SourceError, SinkError
        If a source or sink cannot be opened.
    """
    plan = pipeline.plan
    check_streams(plan, config.sources)
    scorer = choose_model_scorer(plan, config.models)
    routes = SinkRoutes(plan, config.sinks, default=config.default_sink, connection=config.connection)
    exactly_once = config.options.delivery == "exactly-once"
    if exactly_once:
        check_exactly_once(config, routes)
    routes.prepare()
    transactions = open_transactions(plan, config, routes) if exactly_once else None

    # Rows are sure to come, so a place that cannot be written stops the start. A side output may never be needed; if its
    # first record comes while the broker is away, it waits as the others do.
    at_start = ("decisions", "alerts")

    def open_output(name: str) -> Sink | None:
        sink = routes.open(name, check=name in at_start, transactions=transactions)
        return sink if wrap_sink is None else wrap_sink(name, sink)

    store = None if config.checkpoints is None else CheckpointStore(config.checkpoints)
    recorder = None if store is None else open_recorder(plan, config, store)
    outputs = Outputs(open_output)
    for name in at_start:
        outputs.wanted(name)
    # Should one of them fail, what was opened before is of no use without the run.
    with ExitStack() as undo:
        undo.callback(outputs.close)
        if transactions is not None:
            undo.callback(transactions.close)
        backend = open_backend(config)
        if backend is not None:
            undo.callback(backend.close)
        checkpoints = None if store is None else open_checkpoints(config, store, transactions, backend)
        sources = open_sources(plan, config)
        for source in sources.values():
            undo.callback(source.close)
        runtime = EmbeddedRuntime(
            plan,
            sources=sources,
            outputs=outputs,
            scorer=scorer,
            options=config.options,
            history=open_history(config, checkpoints, lane),
            checkpoints=checkpoints,
            transactions=transactions,
            backend=backend,
            on_alerts=on_alerts,
            on_turn=in_turn(on_turn, None if recorder is None else recorder.on_turn),
        )
        undo.pop_all()
    if recorder is not None:
        recorder.watch(runtime)
    return runtime


def open_recorder(plan: PipelinePlan, config: RunConfig, store: CheckpointStore) -> RunRecorder | None:
    """Record the run's figures where its checkpoints are; None where these are not on this machine."""
    if store.directory is None:
        return None
    return RunRecorder(store.directory, plan, config.options, backend=config.state.backend)


def in_turn(*calls: Callable[[], None] | None) -> Callable[[], None] | None:
    """Return what makes several calls, one after the other; None for none."""
    wanted = [call for call in calls if call is not None]
    if len(wanted) < 2:
        return wanted[0] if wanted else None

    def all_of_them() -> None:
        for call in wanted:
            call()

    return all_of_them


def check_exactly_once(config: RunConfig, routes: SinkRoutes) -> None:
    """Hold the places of a run against what exactly-once needs.

    Raises
    ------
    ConfigurationError
        If there are no checkpoints, or an output goes elsewhere than to topics of one Kafka cluster.
    """
    if config.checkpoints is None:
        raise ConfigurationError(
            "delivery exactly-once needs checkpoints, from which a run goes on without saying anything twice: give --checkpoints PLACE."
        )
    routes.cluster()


def open_transactions(plan: PipelinePlan, config: RunConfig, routes: SinkRoutes) -> Transactions:
    """Open the transactions that all outputs of a run are written through: in one Kafka cluster, with a journal beside them.

    Raises
    ------
    ConfigurationError
        If the journal's topic cannot be made.
    SinkError
        If the broker does not answer, or allows no transactions.
    """
    cluster, topics = routes.cluster()
    name = config.options.transactional_id or f"gillnet.{plan.name}"
    journal = f"{name}.journal"
    kept = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}
    create_topics(cluster, {journal: 1}, settings=config.kafka, config=kept)
    from gillnet.connectors.kafka import KafkaTransactions

    return KafkaTransactions(
        bootstrap_servers=cluster,
        transactional_id=name,
        topics=topics,
        journal=journal,
        settings=config.kafka,
    )


def open_backend(config: RunConfig) -> RocksDBBackend | None:
    """Open the state backend, if it is not memory.

    Raises
    ------
    ConfigurationError
        If it is not installed, a setting is wrong, or another run has its directory.
    StateError
        If its directory cannot be written.
    """
    state = config.state
    if state.backend == "rocksdb":
        return RocksDBBackend(state.directory, memory=MEMORY if state.memory is None else state.memory)
    for name in ("memory", "directory"):
        if getattr(state, name) is not None:
            raise ConfigurationError(
                f"state_{name} is the state backend rocksdb's, and this run's is memory; choose --state-backend rocksdb."
            )
    return None


def open_checkpoints(
    config: RunConfig,
    store: CheckpointStore,
    transactions: Transactions | None = None,
    backend: StateBackend | None = None,
) -> Checkpoints:
    """Become the owner of the place of checkpoints, and find the one to go on from.

    The journal is that of the transactions; without them it is beside the checkpoints, where these are in a directory.

    Raises
    ------
    ConfigurationError
        If the place is wrong.
    StateError
        If it cannot be read or written, or none of its checkpoints is whole.
    """
    if lanes := store.lanes():
        raise ConfigurationError(
            f"--checkpoints {config.checkpoints}: they are of a run with workers ({lanes[0]} to {lanes[-1]}), whose state is kept by "
            "partition; go on with --workers, or name an empty place."
        )
    journal = None if store.directory is None else FileJournal(store.directory / "journal")
    return Checkpoints(
        store,
        interval_s=config.options.checkpoint_interval_s,
        journal=journal if transactions is None else transactions.journal,
        backend=backend,
    )


def open_history(config: RunConfig, checkpoints: Checkpoints | None, lane: int = 0) -> HistoryWriter | None:
    """Open the history, if one is kept; from a checkpoint on it goes on as the same run, without what will be read again.

    Raises
    ------
    SinkError
        If it cannot be written.
    """
    if config.history is None:
        return None
    started_us = SystemClock().now_us() if checkpoints is None else checkpoints.started_us
    history = HistoryWriter(config.history, run=started_us + lane)
    if checkpoints is not None and checkpoints.restored is not None:
        history.cut(checkpoints.restored.counts["batches"])
    return history


def with_groups(plan: PipelinePlan, sources: Mapping[str, str]) -> dict[str, str]:
    """Return the URIs of the sources, each Kafka topic with a consumer group of its own, each Pulsar topic with a subscription.

    A group is balanced anew whenever a reader joins it, and then reads again what was not committed. So the streams of a run
    must not share one, and neither should two pipelines: by default it is ``gillnet.<pipeline>.<stream>``.

    Raises
    ------
    ConfigurationError
        If two streams name the same group at the same brokers.
    """
    uris = dict(sources)
    taken: dict[tuple[str, str], str] = {}
    for stream, uri in sources.items():
        parsed = parse_uri(uri, what=f"Source of {stream}")
        if parsed.scheme not in ("kafka", *PULSAR):
            continue
        kind, place = (
            ("group", parsed.address) if parsed.scheme == "kafka" else ("subscription", parsed.text.partition("?")[0])
        )
        group = parsed.parameters.get(kind, f"gillnet.{plan.name}.{stream}")
        other = taken.setdefault((place, group), stream)
        if other != stream:
            raise ConfigurationError(
                f"Sources of {other} and {stream}: both would read as the {_GROUPS[kind]} {group!r}, whose members share the "
                f"partitions; give each stream a {kind} of its own, such as ?{kind}={group}.{stream}."
            )
        if kind not in parsed.parameters:
            uris[stream] = f"{uri}{'&' if '?' in uri else '?'}{kind}={quote(group)}"
    return uris


def open_sources(plan: PipelinePlan, config: RunConfig) -> dict[str, Source]:
    """Open the source of each stream; if one cannot be, those before it are closed again.

    Raises
    ------
    ConfigurationError
        If a URI is wrong.
    SourceError
        If a source cannot be opened.
    """
    uris = with_groups(plan, config.sources)
    schemes = {SCHEME: SimulatorScheme(uris, lead=plan.root)}
    opened: dict[str, Source] = {}
    try:
        for stream in plan.streams:
            opened[stream.name] = open_source(
                uris[stream.name],
                stream=stream.name,
                schema=stream.schema,
                settings=_source_settings(plan, config, stream.name),
                schemes=schemes,
            )
    except BaseException:
        for source in opened.values():
            source.close()
        raise
    return opened


def _source_settings(plan: PipelinePlan, config: RunConfig, stream: str) -> Mapping[str, str]:
    """Return the settings for the source of a stream.

    A run that goes on from a checkpoint is the same member of its group as the one before it: it takes the partitions at once,
    without waiting until the dead one's session is over, and one that still lives is fenced.
    """
    parsed = parse_uri(config.sources[stream], what="Source")
    if config.checkpoints is None or parsed.scheme != "kafka" or "partition" in parsed.parameters:
        return config.connection(parsed.text)
    return {"group.instance.id": f"gillnet.{plan.name}.{stream}", **config.kafka}


def choose_model_scorer(plan: PipelinePlan, models: Path | None) -> Scorer | None:
    """Load the plan's model and hold it against the plan's features; None if the plan has no model.

    Raises
    ------
    ModelError
        If the model is missing, broken, or does not fit.
    """
    if plan.model is None:
        return None
    model = ModelRegistry(models).load(plan.model.ref)
    # Texts are no model's features by default; they are told, so that a model that wants one as a number hears its type.
    texts = [(feature.name, feature.type) for feature in plan.features if feature.type == "string"]
    check_signature(model, [*plan.model.features, *texts])
    return choose_scorer(model)


def check_streams(plan: PipelinePlan, sources: Mapping[str, str]) -> None:
    """Hold the sources that are given against the plan's streams.

    Raises
    ------
    ConfigurationError
        If a source is for no stream, or a stream has no source.
    """
    names = [stream.name for stream in plan.streams]
    for name in sources:
        if name not in names:
            raise ConfigurationError(f"--source {name}=...: the pipeline has no stream {name!r}{nearest(name, names)}.")
    if missing := [name for name in names if name not in sources]:
        simulated = missing[0] if missing[0] in STREAMS else "payments"
        raise ConfigurationError(
            f"The stream {missing[0]!r} has no source: give one, such as --source {missing[0]}=kafka://localhost:9092/{missing[0]}, "
            f"--source {missing[0]}={missing[0]}.ndjson or, to try it, --source {missing[0]}=simulator:{simulated}."
        )
