"""Command line of charlm. Each command is a module of this folder, which is imported only when the command runs.

Here belong options, the output of commands, and the translation of errors to messages about options. What a command
computes is in the other folders.
"""

import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from charlm._version import __version__
from charlm.cli.signals import exit_on_sigterm
from charlm.cli.streams import output_errors, standard_streams
from charlm.errors import CharlmError, PeerLostError
from charlm.text.printable import escape_unprintable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "train": "Train a model on a text.",
    "sample": "Generate text.",
    "score": "Score each line of a text.",
    "next": "Show the most probable next tokens.",
    "classify": "Sort texts into classes: train a classifier, use it, test it.",
    "novelty": "Measure how much of a text is copied from the training text.",
    "info": "Show the metadata of a model.",
    "ls": "List the runs and the included models.",
    "vectors": "Export word vectors, or compare words.",
    "export": "Write a model as a web page or an ONNX graph.",
    "plot": "Plot the loss curves of runs.",
    "corpus": "List the named corpora, or print one.",
    "lesson": "List the lessons, or run one.",
    "completion": "Print the script that completes commands in a shell.",
}
"""Summaries of the commands by name. `charlm --help` shows them without importing the commands."""

EXIT_INTERRUPTED = 130

REPORT_DELAY_SECONDS = 1.0
"""Time by which process 0 of a distributed training reports an error before the other processes, in seconds."""


class LazyGroup(click.Group):
    """Group that imports a command when it is called, and reports expected errors in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as click has it
        """Run the program."""
        with standard_streams():
            return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"charlm.cli.{cmd_name}"), cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return the commands and options that begin with a text, without importing the commands."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=COMMANDS[name]) for name in COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; `charlm help train` is the same as `charlm train --help`."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or suggest similar ones."""
        name = args[0]
        if ctx.resilient_parsing and name not in COMMANDS:  # a shell completes the words after it
            return None, None, []
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            similar = difflib.get_close_matches(name, COMMANDS, n=3)
            hint = f"did you mean {' or '.join(similar)}?" if similar else "`charlm --help` lists the commands"
            ctx.fail(f"No such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the command line."""
        with _escaped_usage_errors(), output_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Run a command. Expected errors become one line on stderr and an exit code."""
        try:
            with _escaped_usage_errors(), output_errors(), exit_on_sigterm():
                return super().invoke(ctx)
        except CharlmError as error:
            _let_process_0_report_first(error)
            click.echo(f"Error: {escape_unprintable(self._worded(ctx, error))}", err=True)
            ctx.exit(error.exit_code)
        except (click.exceptions.Exit, click.Abort):
            raise
        except (OSError, MemoryError, ImportError, RuntimeError, SystemError) as error:
            message = _describe_failure(error)
            if message is None:
                raise
            click.echo(f"Error: {escape_unprintable(message)}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)

    def _worded(self, ctx: click.Context, error: CharlmError) -> str:
        """Return an error's message with the command's options in place of the library's names."""
        from charlm.cli.options import worded

        return worded(error, self.get_command(ctx, ctx.invoked_subcommand or ""))


def _describe_failure(error: Exception) -> str | None:
    """Return one line for a failure of the system, or None if the error is a defect of the program."""
    try:
        from charlm.cli.failures import describe_failure

        return describe_failure(error)
    except (MemoryError, SystemError):  # there is no memory left even for a detailed message
        return "not enough memory"


@contextmanager
def _escaped_usage_errors() -> Iterator[None]:
    """Escape unprintable characters in click's messages, which repeat the user's input."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:  # its message is a help text, which has newlines
        raise
    except click.ClickException as error:
        error.message = escape_unprintable(error.message)  # type: ignore[misc]
        _let_process_0_report_first(error)
        raise


def _let_process_0_report_first(error: Exception) -> None:
    """Wait before an error is reported, depending on the process of a distributed training.

    torchrun ends all processes when the first one has failed. Because of the wait, an error that occurs in all
    processes is reported once, by process 0. An error that occurs in one process is reported before the `PeerLostError`
    of the others.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        first = os.environ.get("RANK") == "0"
        delay = 2 * REPORT_DELAY_SECONDS if isinstance(error, PeerLostError) else 0 if first else REPORT_DELAY_SECONDS
        time.sleep(delay)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the versions of charlm, Python, NumPy and PyTorch without importing them."""
    if not value or ctx.resilient_parsing:
        return
    import platform
    from importlib.metadata import PackageNotFoundError, version

    parts = [f"Python {platform.python_version()}"]
    for package in ("numpy", "torch"):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"{package} not installed")
    click.echo(f"charlm {__version__} ({', '.join(parts)})")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the versions of charlm and of the packages that compute, and exit.",
)
def main() -> None:
    """Train, sample and score recurrent language models of characters or words.

    \b
    Example:
      charlm train shakespeare --minutes 2
      charlm sample --temp 0.8 -n 500
      charlm score --total hamlet.txt
    """
