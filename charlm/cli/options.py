"""Options that several commands share, options generated from settings classes, and help texts with headings."""

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.shell_completion import CompletionItem

from charlm.cli.completions import COMPLETERS
from charlm.cli.durations import parse_duration
from charlm.config import DECODING_ERRORS, MAX_INPUT_CHARS, MAX_THREADS, TABLE_FORMATS
from charlm.errors import CharlmError, Note
from charlm.settings import Rule, Settings
from charlm.text.escapes import unescape
from charlm.text.printable import escape_unprintable

F = TypeVar("F", bound=Callable[..., Any])

MAX_HELP_WIDTH = 100
"""Maximum width of a help text in columns."""

TYPED = "charlm.typed"
"""Key of click's shared data for the settings that `show_as_typed` names."""

MAX_TOP = 10**6
"""Maximum number of rows that `--top` may ask for."""


class Number(click.FloatRange):
    """Finite number. Ranges alone do not exclude `nan`, which is neither inside nor outside a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the number."""
        converted = super().convert(value, param, ctx)
        if converted != converted:
            self.fail(f"{value} is not a number.", param, ctx)
        return converted


number = Number(-1e16, 1e16)
"""Type of options that take any finite number."""


class Duration(Number):
    """Duration with a unit, such as `90s`, or a number of seconds. The value is a finite number of seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """Return the number of seconds; end with a usage error if the text is not a duration."""
        try:
            seconds = parse_duration(value) if isinstance(value, str) else value
        except ValueError:
            message = f"{value!r} is not a duration: write 90s, 2m, 1h or 1h30m, or a number of seconds."
            self.fail(escape_unprintable(message), param, ctx)
        return super().convert(seconds, param, ctx)


METAVARS = {int: "N", float: "X", Duration: "TIME"}
"""Placeholders of numbers in help texts."""


class EscapedText(click.types.StringParamType):
    r"""Type of options whose value is text, in which escape sequences such as `\\n` are replaced."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        """Return the text that a value stands for; end with a usage error if a backslash begins no escape sequence."""
        try:
            return unescape(value)
        except ValueError as error:
            self.fail(escape_unprintable(str(error)), param, ctx)


class GroupedOption(click.Option):
    """Option that the help lists under a heading.

    If its value is text without a default, such as a model, a file or a prompt, a second value is a usage error: click
    would ignore the first one without a message. A number may be given again, to replace that of a shell alias.

    Args:
        group: The heading; empty for the general options at the end.
    """

    def __init__(self, *args: Any, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group
        is_text = isinstance(self.type, click.types.StringParamType | click.Path) and not self.is_flag
        self.only_once = is_text and not self.multiple and not kwargs.get("default")
        if self.only_once:
            self.multiple = True  # the parser keeps all values
            self.default = None
            self.single_default = kwargs.get("default")

    def process_value(self, ctx: click.Context, value: Any) -> Any:  # noqa: ANN401
        """Return the value of the option; end with a usage error if there are several but only one is possible.

        An empty name of a file is an error too. `Path` would take it for the current folder.
        """
        is_name = isinstance(self.type, click.Path) or self.metavar in {"FILE", "FOLDER"}
        if is_name and (value == "" or (isinstance(value, list | tuple) and "" in value)):
            raise click.BadParameter("the name is empty", ctx, self)
        converted = super().process_value(ctx, value)
        if not self.only_once:
            return converted
        if len(converted) > 1:
            raise click.UsageError(f"{self.opts[-1]} is given more than once; give one value", ctx)
        return converted[0] if converted else self.single_default

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the values that begin with a text; a placeholder such as CORPUS says which values there are."""
        completer = COMPLETERS.get(self.metavar or "")
        return super().shell_complete(ctx, incomplete) if completer is None else completer(ctx, self, incomplete)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return names and help text; a default that the text describes and click's note on the range are one note."""
        record = super().get_help_record(ctx)
        return record and (record[0], record[1].replace("]  [", "; "))

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401 - a private type of click
        """Return click's notes on the option, in which the range of a number names the option's placeholder."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.type, Duration) and self.type.max is None:  # a setting, whose help text has the range
            extra.pop("range", None)
        elif "range" in extra:
            extra["range"] = extra["range"].replace("x", self.metavar or "x")
        return extra


class GroupedCommand(click.Command):
    """Command whose help lists its options under headings.

    Args:
        groups: Headings in the order of the help. Other headings follow in the order of their first option.
    """

    def __init__(self, *args: Any, groups: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups
        self.context_settings.setdefault("max_content_width", MAX_HELP_WIDTH)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in self.groups}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):
                groups.setdefault(getattr(param, "group", ""), []).append(record)
        general = groups.pop("", [])
        for name, records in [*groups.items(), ("General" if groups else "Options", general)]:
            with formatter.section(name):
                formatter.write_dl(records)


command = functools.partial(click.command, cls=GroupedCommand)
"""Decorator of every command."""


def option(*flags: str, group: str = "", **kwargs: Any) -> Callable[[F], F]:
    """Return a decorator that adds an option under a heading of the help."""
    return click.option(*flags, cls=GroupedOption, group=group, **kwargs)


model_option = option(
    "-m",
    "--model",
    "model",
    metavar="FILE|RUN",
    help="Model file, folder of a run, or name of a run in ./checkpoints.  [default: the newest run there, or else the "
    "included model]",
)
json_option = option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
quiet_option = option("-q", "--quiet", is_flag=True, help="Print no notes and no progress on stderr.")
encoding_option = option(
    "--encoding", default="utf-8", show_default=True, help="Encoding of texts without a byte order mark."
)
threads_option = option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    metavar="N",
    help="Number of threads.  [default: chosen for the model and the machine]",
)
max_input_option = option(
    "--max-input",
    type=click.IntRange(1, 2**40),
    metavar="N",
    default=MAX_INPUT_CHARS,
    show_default=True,
    help="Maximum length in characters of a text that must be in memory as a whole.",
)


def table_option(group: str) -> Callable[[F], F]:
    """Return a decorator that adds `--table`, the format of a table, under a heading of the help."""
    return option(
        "--table",
        type=click.Choice(TABLE_FORMATS),
        group=group,
        help="Format of the input of --field: tab-separated (tsv) or comma-separated (csv) with quotation marks, JSON "
        "lines, or tab-separated without quotation marks (plain).  [default: by the name of the file, or tsv]",
    )


def resume_option(group: str) -> Callable[[F], F]:
    """Return a decorator that adds `--resume`, the run to continue, under a heading of the help."""
    return option(
        "--resume",
        is_flag=False,
        flag_value="",
        metavar="[RUN]",
        group=group,
        help="Continue a run exactly where it stopped. Without RUN: the newest run.",
    )


def glove_option(group: str) -> Callable[[F], F]:
    """Return a decorator that adds `--glove`, a file of word vectors, under a heading of the help."""
    return option(
        "--glove",
        type=click.Path(path_type=Path),
        metavar="FILE",
        group=group,
        help="Initialise the embeddings from word vectors in GloVe's or word2vec's format; plain, .gz or .zip.",
    )


corpus_option = option(
    "--corpus",
    multiple=True,
    metavar="CORPUS",
    help="Text to compare with, as for charlm train.  [default: the training text stored with the model]",
)


def errors_option(default: str) -> Callable[[F], F]:
    """Return a decorator that adds `--errors`, the treatment of bytes that are not valid in the encoding."""
    return option(
        "--errors",
        type=click.Choice(DECODING_ERRORS),
        default=default,
        show_default=True,
        help="Handling of bytes that are not valid in the encoding, as for Python's bytes.decode.",
    )


def top_option(rows: str) -> Callable[[F], F]:
    """Return a decorator that adds `--top`, the number of rows to print."""
    number_range = click.IntRange(1, MAX_TOP)
    return option(
        "--top", type=number_range, metavar="N", default=10, show_default=True, help=f"Number of {rows} to show."
    )


def settings_options(settings: type[Settings], automatic: Mapping[str, str] | None = None) -> Callable[[F], F]:
    """Return a decorator that adds an option for each field of a settings class that has a flag.

    Options that are not given are None, so that the default of the class or an automatic choice applies.

    Args:
        settings: The class.
        automatic: Descriptions of the automatic choice, by field name, for fields that are chosen automatically if they
            are not given.
    """
    hints = get_type_hints(settings)
    flags = {spec.name: flag for spec, rule in _rules(settings) if (flag := _flag(rule))}

    def decorate(command: F) -> F:
        for spec, rule in reversed(list(_rules(settings))):
            kinds = [kind for kind in get_args(hints[spec.name]) or (hints[spec.name],) if kind is not type(None)]
            kind: Any = click.Choice(rule.choices) if rule.choices else Duration if rule.is_duration else kinds[0]
            metavar, placeholder = rule.metavar or METAVARS.get(kind), METAVARS.get(kind, "")
            kind = EscapedText() if rule.has_escapes else Duration() if rule.is_duration else kind
            extra: dict[str, Any] = {"is_flag": True} if kind is bool else {"type": kind, "metavar": metavar}
            if kind is Path:
                extra["type"] = click.Path(path_type=Path)
            text = re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[1]), rule.help)
            shown = f"{text}{_notes(spec, rule, placeholder, automatic or {})}"
            command = option(*rule.flags, spec.name, default=None, help=shown, group=rule.group, **extra)(command)
        return command

    return decorate


def _rules(settings: type[Settings]) -> Iterator[tuple["Field[Any]", Rule]]:
    """Yield the fields that have a flag, with their rules."""
    for spec in fields(settings):
        rule: Rule | None = spec.metadata.get("rule")
        if rule is not None and rule.flags:
            yield spec, rule


def _flag(rule: Rule) -> str:
    """Return the name under which messages and help texts mention an option."""
    return rule.flags[-1].partition("/")[0]


def _notes(spec: "Field[Any]", rule: Rule, metavar: str, automatic: Mapping[str, str]) -> str:
    """Return click's notes on an option: the default and the range."""
    notes = [f"default: {default}" if (default := _default_text(spec, automatic)) else "", rule.interval(metavar)]
    return f"  [{'; '.join(filter(None, notes))}]" if any(notes) else ""


def _default_text(spec: "Field[Any]", automatic: Mapping[str, str]) -> str:
    if spec.name in automatic:
        return automatic[spec.name]
    if spec.default is MISSING or spec.default is None:
        return ""
    return {True: "on", False: "off"}[spec.default] if isinstance(spec.default, bool) else str(spec.default)


def flag_names(command: click.Command | None) -> dict[str, str]:
    """Return the names of a command's options and arguments on the command line, by their names in the library."""
    if isinstance(command, click.Group):
        return {name: flag for sub in command.commands.values() for name, flag in flag_names(sub).items()}
    names: dict[str, str] = {}
    for param in command.params if command is not None else ():
        option_names = [opt for opt in param.opts if opt.startswith("--")] or param.opts
        names[param.name or ""] = option_names[0] if isinstance(param, click.Option) else param.human_readable_name
    return names


def show_as_typed(field: str, flag: str, value: str) -> None:
    """Show a setting in messages as the option and the value by which the user has set it, in another unit."""
    click.get_current_context().meta.setdefault(TYPED, {})[field] = (flag, value)


def worded(message: CharlmError | Note, command: click.Command | None) -> str:
    """Return a message of the library with a command's options in place of the names of settings and arguments."""
    typed: dict[str, tuple[str, str]] = click.get_current_context().meta.get(TYPED, {})
    text = message.worded(flag_names(command) | {field: flag for field, (flag, _) in typed.items()})
    for flag, value in typed.values():
        text = re.sub(rf"(?<!\S){flag} [\d.e+-]+(?=[ :])", f"{flag} {value}", text)
    return text


def wait_note(files: Sequence[str], *, quiet: bool) -> None:
    """Print a note if input will be read from the terminal."""
    if not quiet and (not files or "-" in files) and sys.stdin.isatty():
        note("reading from the terminal; press Ctrl-D to end the text")


def note(message: str, *, quiet: bool = False) -> None:
    """Print a note on stderr. A `Note` of the library names settings, which become the command's options."""
    if not quiet:
        if isinstance(message, Note):
            message = worded(message, click.get_current_context().command)
        click.echo(f"Note: {escape_unprintable(message)}", err=True)


def noter(*, quiet: bool) -> Callable[[str], None]:
    """Return a function that prints a note, or nothing if `quiet`."""
    return functools.partial(note, quiet=quiet)


def warn(message: str) -> None:
    """Print a warning on stderr, even if notes are switched off."""
    click.echo(f"Warning: {escape_unprintable(message)}", err=True)


def note_unknown(tokens: Sequence[str], *, quiet: bool = False) -> None:
    """Print a note that names the tokens of a prompt that the model does not know."""
    if tokens:
        named = ", ".join(map(repr, tokens[:10])) + (f" and {len(tokens) - 10} more" if len(tokens) > 10 else "")
        note(f"not in the model's vocabulary, read as the unknown token: {named}", quiet=quiet)
