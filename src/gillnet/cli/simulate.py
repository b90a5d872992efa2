"""``gillnet simulate``: payments, clicks and their labels into Kafka or files."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gillnet.app.simulated import read_rate, simulation_config
from gillnet.app.writing import SimulatedWriter
from gillnet.cli.signals import stop_on_signals
from gillnet.simulator import SimulationConfig
from gillnet.simulator.streams import STREAMS, StreamName

_D = SimulationConfig()


class What(StrEnum):
    """The streams to write."""

    PAYMENTS = "payments"
    CLICKS = "clicks"
    LABELS = "labels"
    ALL = "all"


_WRITTEN: dict[What, tuple[StreamName, ...]] = {
    What.PAYMENTS: ("payments", "labels"),
    What.CLICKS: ("clicks", "visitor_labels"),
    What.LABELS: ("labels",),
    What.ALL: STREAMS,
}


def simulate(
    what: Annotated[What, typer.Argument(help="payments, clicks, the payments' labels alone, or all.")] = What.ALL,
    to: Annotated[
        str, typer.Option(metavar="URI", help="A directory, a URI with {name} for the stream, or - (one stream).")
    ] = "simulated",
    rate: Annotated[
        float | None, typer.Option(help="Payments a second (clicks, if alone); without: as fast as possible.")
    ] = None,
    labels: Annotated[bool, typer.Option(help="Write labels and visitor_labels too.")] = True,
    blocked: Annotated[
        str | None, typer.Option(metavar="URI", help="A run's decisions: payments that it blocked get no label.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="kafka.<librdkafka's setting>.")
    ] = None,
    max_records: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many records of the first stream.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Everything follows from it.")] = _D.seed,
    duration: Annotated[str, typer.Option(help="The span of event time.")] = str(_D.duration),
    start_us: Annotated[int, typer.Option(help="Its begin, microseconds since 1970 UTC.")] = _D.start_us,
    cards: Annotated[int, typer.Option(help="Cards in the population.")] = _D.cards,
    merchants: Annotated[int, typer.Option(help="Merchants in the population.")] = _D.merchants,
    payments_per_day: Annotated[int, typer.Option(help="Mean payments a day.")] = _D.payments_per_day,
    sessions_per_day: Annotated[
        int, typer.Option(help="Mean browsing sessions without payment a day.")
    ] = _D.sessions_per_day,
    bots_per_day: Annotated[int, typer.Option(help="Mean bot runs a day.")] = _D.bots_per_day,
    card_skew: Annotated[float, typer.Option(help="Zipf exponent over cards.")] = _D.card_skew,
    merchant_skew: Annotated[float, typer.Option(help="Zipf exponent over merchants.")] = _D.merchant_skew,
    fraud_rate: Annotated[float, typer.Option(help="Share of payments that are fraud.")] = _D.fraud_rate,
    difficulty: Annotated[float, typer.Option(help="0: loud fraud; 1: stealthy fraud.")] = _D.difficulty,
    bot_difficulty: Annotated[
        float, typer.Option(help="0: plain script; 1: jittered; 2: replayed people.")
    ] = _D.bot_difficulty,
    late_share: Annotated[float, typer.Option(help="Share of records that are late, up to 24 h.")] = _D.late_share,
    duplicate_share: Annotated[float, typer.Option(help="Share of records that come twice.")] = _D.duplicate_share,
    malformed_share: Annotated[float, typer.Option(help="Malformed records, as a share.")] = _D.malformed_share,
    disorder_s: Annotated[float, typer.Option(help="Seconds by which neighbours change places.")] = _D.disorder_s,
    drift_at: Annotated[str | None, typer.Option(help="When after the start fraud changes its manners.")] = None,
    drift_strength: Annotated[float, typer.Option(help="How far it goes; 1 clearly.")] = _D.drift_strength,
    label_delay: Annotated[str, typer.Option(help="Median time to a chargeback.")] = str(_D.label_delay),
    label_maturity: Annotated[str, typer.Option(help="Time after which a payment counts as legitimate.")] = str(
        _D.label_maturity
    ),
) -> None:
    """Write simulated payments and clicks, with their labels, to Kafka or files.

    The same options give the same bytes. With several streams, they keep step: nothing overtakes what came before it.
    What becomes of a payment is not known of one that was blocked: --blocked tells which those are.
    """
    given = dict(locals())
    parameters = {name: str(given[name]) for name in SimulationConfig.__dataclass_fields__ if given[name] is not None}
    config = simulation_config(parameters, what="simulate")
    if rate is not None:
        read_rate(str(rate), what="--rate")
    whole = what is What.LABELS or (labels and to != "-")
    streams = _WRITTEN[what] if whole else _without_labels(_WRITTEN[what])
    with stop_on_signals() as stop:
        writer = SimulatedWriter(
            config, streams, to=to, rate=rate, settings=settings or (), max_records=max_records, blocked=blocked
        )
        written = writer.run(stop.is_set)
    _report(written, writer.places)


def _without_labels(streams: tuple[StreamName, ...]) -> tuple[StreamName, ...]:
    return tuple(stream for stream in streams if stream in ("payments", "clicks"))


def _report(written: dict[str, int], places: dict[str, str]) -> None:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("stream")
    table.add_column("records", justify="right")
    table.add_column("written to")
    for name, count in written.items():
        table.add_row(name, f"{count:,}", places[name])
    Console(stderr=True, width=None if Console(stderr=True).is_terminal else 160).print(table)
