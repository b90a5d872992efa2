"""Errors for people: one readable paragraph, no traceback, an exit code that a script can act on."""

from __future__ import annotations

import errno
import os
import sys
import textwrap
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from gillnet.core.errors import ConfigurationError, GillnetError
from gillnet.core.secrets import conceal

DEBUG = "GILLNET_DEBUG"
USAGE, FAILURE = 2, 1
_USAGE_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""Typer's own errors, which it shows itself. Newer versions of Typer carry their own copy of click."""


class ReadableErrors(TyperGroup):
    """Turns the errors of every command into paragraphs; with ``GILLNET_DEBUG=1`` the traceback comes too."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, _USAGE_ERROR):
            raise
        except GillnetError as error:
            _show_traceback()
            say_error(str(error))
            raise typer.Exit(USAGE if isinstance(error, ConfigurationError) else FAILURE) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # The reader of our output went away, as `head` does; click ends quietly.
            _show_traceback()
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            say_error(
                f"Something unexpected happened: {what}. This is a fault of Gillnet or of an adapter; run again with "
                f"{DEBUG}=1 to get the traceback, and report it."
            )
            raise typer.Exit(FAILURE) from error


def say_error(text: str) -> None:
    """Print a paragraph on standard error, wrapped to the terminal."""
    text = conceal(text)
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        console.print(f"[bold red]error:[/] {escape(text)}")
        return
    print(
        "\n".join(textwrap.wrap(f"error: {text}", 120, break_long_words=False, break_on_hyphens=False)), file=sys.stderr
    )


def debugging() -> bool:
    """Whether ``GILLNET_DEBUG`` asks for more than people want to read."""
    return os.environ.get(DEBUG, "") not in ("", "0")


def _show_traceback() -> None:
    if debugging():
        import traceback

        print(conceal(traceback.format_exc()), end="", file=sys.stderr)
