"""The command line. Each command lives in a module of its own, imported only when it runs."""

import errno
import importlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from charlm import __version__
from charlm.cli.signals import sigterm_unwinds
from charlm.errors import CharlmError, PeerLostError
from charlm.text.printable import escape_unprintable

COMMANDS = {
    "train": "Train a model on a text.",
    "sample": "Write text with a model.",
    "score": "Say how probable a model finds each line of a text.",
    "next": "Print the likeliest next tokens after a prompt.",
    "novelty": "Say how much of a text is copied from the training text.",
    "info": "Print what a model file says of itself.",
    "vectors": "Write a model's word vectors, or find a word's neighbours.",
    "plot": "Draw the losses of runs.",
    "corpus": "List the named corpora, or print one.",
    "lesson": "List the lessons, or run one.",
}
"""Names and one-line helps, here so that `charlm --help` imports no command."""

EXIT_INTERRUPTED = 130

OTHERS_WAIT = 1.0
"""Seconds by which the first of several processes is ahead in telling what went wrong."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and which turns errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"charlm.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the command line."""
        with _safe_to_show():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run a command; what it can expect to go wrong becomes one line on stderr and an exit code."""
        for stream in (sys.stdout, sys.stderr, sys.stdin):
            # Text goes in and out as it is, whatever the locale says: UTF-8, newlines as newlines, and bytes that
            # are no UTF-8 come out as they went in.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
        try:
            with _safe_to_show(), sigterm_unwinds():
                result = super().invoke(ctx)
            sys.stdout.flush()
        except CharlmError as error:
            _let_others_speak_first(error)
            click.echo(f"Error: {escape_unprintable(str(error))}", err=True)
            ctx.exit(error.exit_code)
        except MemoryError:
            click.echo("Error: not enough memory for this; give smaller numbers or a shorter text", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            # Nobody reads on: a quiet end. Python flushes stdout once more at exit, which must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        return result


@contextmanager
def _safe_to_show() -> Iterator[None]:
    """Take the escape sequences out of click's messages, which repeat what they complain of."""
    try:
        yield
    except click.ClickException as error:
        error.message = escape_unprintable(error.message)  # type: ignore[misc]
        _let_others_speak_first(error)
        raise


def _let_others_speak_first(error: Exception) -> None:
    """Wait, if this is one of several processes: torchrun ends all of them when the first one has failed.

    So what all of them would say is said once, by the first; what one of them alone has to say comes before the
    complaints of those that miss it.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        first = os.environ.get("RANK") == "0"
        time.sleep(2 * OTHERS_WAIT if isinstance(error, PeerLostError) else 0 if first else OTHERS_WAIT)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="charlm", message="%(prog)s %(version)s")
def main() -> None:
    """Train, sample and score recurrent language models of characters or words.

    \b
    Example:
      charlm train shakespeare --minutes 2
      charlm sample --temp 0.8 -n 500
      charlm score --total hamlet.txt
    """
