"""The entry point: ``gillnet``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from gillnet.cli.backfill import backfill
from gillnet.cli.broker import kafka
from gillnet.cli.consistency import repair, verify
from gillnet.cli.demo import demo
from gillnet.cli.doctor import doctor
from gillnet.cli.errors import ReadableErrors
from gillnet.cli.flink import flink
from gillnet.cli.inspect import explain, models, version
from gillnet.cli.lateness import lateness
from gillnet.cli.logs import log_lines
from gillnet.cli.run import run
from gillnet.cli.simulate import simulate
from gillnet.cli.state import state
from gillnet.cli.upgrade import savepoint, upgrade

app = typer.Typer(
    cls=ReadableErrors,
    help="Gillnet catches fraud and bots on live event streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_COMMANDS: dict[Callable[..., None], str] = {
    demo: "Show bots and fraud caught live, in a minute.",
    run: "Run a pipeline.",
    explain: "Print what a pipeline computes.",
    backfill: "Write training rows from the past.",
    verify: "Compare a run with the batch answer.",
    repair: "Correct what late data would have changed.",
    lateness: "Choose a watermark delay from a stream's delays.",
    upgrade: "Go on from a run's state with a changed definition.",
    savepoint: "Keep a run's state for good.",
    doctor: "Say what is the matter with a run, and what to change.",
    simulate: "Write simulated streams to Kafka or files.",
    kafka: "Start a real Kafka broker on this machine.",
    models: "List models: versions, aliases, metrics.",
    version: "Print the version.",
}
for command, summary in _COMMANDS.items():
    # The overview has room for so much; what the command's own help begins with would be cut off there.
    app.command(short_help=summary)(command)
app.add_typer(flink, name="flink", short_help="Run a pipeline on Apache Flink.")
app.add_typer(state, name="state", short_help="Look into a checkpoint's state.")


@app.callback()
def before_a_command() -> None:
    """Send what the command logs to standard error: standard output is for what was asked."""
    log_lines()


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
