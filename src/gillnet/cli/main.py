"""The entry point: ``gillnet``."""

from __future__ import annotations

import typer

from gillnet.cli.broker import kafka
from gillnet.cli.demo import demo
from gillnet.cli.errors import ReadableErrors
from gillnet.cli.inspect import explain, models, version
from gillnet.cli.run import run
from gillnet.cli.simulate import simulate

app = typer.Typer(
    cls=ReadableErrors,
    help="Gillnet catches fraud and bots on live event streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, run, explain, simulate, kafka, models, version):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
