"""``gillnet kafka``: a real broker on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gillnet.cli.signals import stop_on_signals
from gillnet.connectors.local_kafka import LocalKafka

_DIRECTORY = Path(".gillnet") / "kafka"


def kafka(
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port on 127.0.0.1; 0 takes a free one.")] = 9092,
    keep: Annotated[bool, typer.Option("--keep", help="Keep topics in .gillnet/kafka, for the next start.")] = False,
) -> None:
    """Start a real Kafka broker on this machine, and stop it with Ctrl-C.

    The first start fetches Apache Kafka with Maven (54 MB). Needs Java 17.
    """
    typer.echo("Starting Apache Kafka ...", err=True)
    broker = LocalKafka(port=port, directory=_DIRECTORY.resolve() if keep else None)
    with stop_on_signals() as stop, broker:
        servers = broker.bootstrap_servers
        typer.echo(f"bootstrap.servers={servers}")
        typer.echo(
            f"\nKafka is running; {'its topics stay in ' + str(_DIRECTORY) if keep else 'its topics go when it stops'}. "
            f"In another terminal:\n"
            f"  gillnet simulate all --to kafka://{servers}/{{name}} --rate 500\n"
            f"  gillnet run payments --source payments=kafka://{servers}/payments --source clicks=kafka://{servers}/clicks "
            f"--sinks kafka://{servers}/{{name}}\n"
            "Ctrl-C stops it.",
            err=True,
        )
        while not stop.wait(0.5):
            if broker.pid is None:
                typer.echo(f"The broker has ended by itself; its log: {broker.log_path}", err=True)
                raise typer.Exit(1)
    typer.echo("stopped", err=True)
