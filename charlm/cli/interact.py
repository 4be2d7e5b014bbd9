"""Interactive session of `charlm sample -i`, which reads prompts and commands line by line."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from charlm.cli.options import flag_names
from charlm.cli.streams import stdin_lines
from charlm.errors import CharlmError, ConfigError
from charlm.sample_config import SampleConfig
from charlm.settings import Rule
from charlm.text.printable import escape_unprintable

if TYPE_CHECKING:
    from charlm.engine.sampler import Sampler

HELP = '''\
  TEXT          continue TEXT; an empty line starts at the start of a line
  """           begin or end a prompt of several lines
  :again        continue the last prompt with the next seed
  :seed N       use seed N for the next text      :n N        generate N tokens
  :temp X       set the temperature               :lines N    stop after N newlines
  :NAME VALUE   set another option of charlm sample, as in :top-k 20; without VALUE, restore its default
  :forget       with --adapt: forget all prompts so far
  :greedy       always take the most probable token, or sample again; 1 is on, 0 is off
  :show         show the settings                 :help       show this help
  :quit         end the session, as :q and Ctrl-D do; Ctrl-C stops a text'''

QUOTES = '"""'
"""Mark that begins and ends a prompt of several lines."""

QUIT = (":q", ":quit", ":exit")
"""Commands that end the session."""


class Session:
    """Interactive session, which answers prompts and commands line by line.

    Args:
        sampler: The model and the initial settings.
        write: Function that generates and writes the samples of a prompt.
    """

    def __init__(self, sampler: "Sampler", write: Callable[["Sampler", str], None]) -> None:
        self._sampler = sampler
        self._write = write
        self._prompt = ""
        self._seed = sampler.start([""])[0].seed
        self._lines: list[str] | None = None  # of a prompt of several lines that has not ended

    def run(self) -> None:
        """Answer lines until the input ends. Errors and Ctrl-C end only the current text."""
        for line in _read_lines(lambda: "> " if self._lines is None else "... "):
            if line is None:
                self._lines = None
                continue
            if self._lines is None and line.strip() in QUIT:
                return
            try:
                self._answer(line)
            except CharlmError as error:
                click.echo(f"Error: {escape_unprintable(error.worded(_names()))}", err=True)
            except KeyboardInterrupt:
                click.echo()
        if self._lines is not None:
            click.echo(f"Error: the input ended within a prompt of several lines; end it with {QUOTES}", err=True)

    def _answer(self, line: str) -> None:
        if self._lines is not None or line.startswith(QUOTES):
            self._collect(line)
            return
        if not line.startswith(":"):
            self._prompt = line
            self._continue_prompt()
            return
        name, _, value = line[1:].strip().partition(" ")
        if name == "again":
            self._generate()
        elif name == "help":
            click.echo(HELP, err=True)
        elif name == "show":
            click.echo(self._shown_settings(), err=True)
        elif name == "forget":
            self._forget()
        elif name == "seed" and value.isdecimal():
            self._seed = int(value)
        else:
            self._sampler = replace(self._sampler, config=_changed(self._sampler.config, name, value.strip()))

    def _collect(self, line: str) -> None:
        """Add a line to a prompt of several lines, and answer the prompt if the line ends it."""
        if self._lines is None:
            self._lines, line = [], line.removeprefix(QUOTES)
            if not line:
                return
        ends = line.endswith(QUOTES)
        line = line.removesuffix(QUOTES)
        if line or not ends:
            self._lines.append(line)
        if ends:
            self._prompt, self._lines = "\n".join(self._lines), None
            self._continue_prompt()

    def _generate(self) -> None:
        """Generate a text with the next seed. The seed is printed, so that the text can be generated again."""
        click.echo(f"[seed {self._seed}]", err=True)
        config = replace(self._sampler.config, seed=self._seed)
        self._seed += 1
        self._write(replace(self._sampler, config=config), self._prompt)

    def _forget(self) -> None:
        """Forget the prompts that the model has learned from."""
        from charlm.engine.adaptive_predictor import AdaptivePredictor

        if not isinstance(self._sampler.predictor, AdaptivePredictor):
            raise ConfigError(":forget: nothing has been learned; start the session with `adapt`", fields=["adapt"])
        self._sampler.predictor.forget()

    def _continue_prompt(self) -> None:
        """Generate a text after a new prompt. A model that adapts learns the prompt for all later ones."""
        from charlm.engine.adaptive_predictor import AdaptivePredictor

        try:
            self._generate()
        finally:
            if isinstance(self._sampler.predictor, AdaptivePredictor):
                self._sampler.predictor.learn(f"{self._prompt}\n")

    def _shown_settings(self) -> str:
        config = self._sampler.config
        values = {spec.name: getattr(config, spec.name) for spec in fields(config)} | {"seed": self._seed}
        return "\n".join(
            f"  {name} {value}" for name, value in values.items() if value not in (None, ()) and value is not False
        )


def _changed(config: SampleConfig, name: str, value: str) -> SampleConfig:
    """Return the settings with one of them changed.

    Args:
        config: The settings.
        name: Name of an option without its dashes.
        value: New value; empty for the default. An on-off option is on with 1, off with 0, and switched
            without a value.

    Raises:
        ConfigError: If there is no such option, or the value is not a number or is out of range.
    """
    hints = get_type_hints(SampleConfig)
    for spec in fields(SampleConfig):
        rule: Rule | None = spec.metadata.get("rule")
        if rule is None or not {f"-{name}", f"--{name}"} & set(rule.flags):
            continue
        parse = float if "float" in str(hints[spec.name]) else int
        try:
            parsed: Any = parse(value) if value else spec.default
        except ValueError:
            raise ConfigError(f":{name} {value}: not a number") from None
        if hints[spec.name] is bool:
            if value not in ("", "0", "1"):
                raise ConfigError(f":{name} {value}: must be 1 for on, or 0 for off")
            parsed = value == "1" if value else not getattr(config, spec.name)
        return replace(config, **{spec.name: parsed})
    raise ConfigError(f":{name}: no such command; :help lists them")


def _names() -> dict[str, str]:
    """Return the names of settings in error messages: those of commands if they exist, otherwise those of options."""
    rules: dict[str, Rule] = {spec.name: spec.metadata["rule"] for spec in fields(SampleConfig) if spec.metadata}
    commands = {name: f":{rule.flags[-1].lstrip('-')}" for name, rule in rules.items()}
    return {**flag_names(click.get_current_context().command), **commands}


def _read_lines(marker: Callable[[], str]) -> Iterator[str | None]:
    """Yield lines from a terminal, with editing and history, or from a pipe.

    Args:
        marker: Returns what a terminal shows before the next line.

    Yields:
        The lines without their newlines; None if Ctrl-C was pressed instead of entering a line.
    """
    if not sys.stdin.isatty():
        yield from stdin_lines()
        return
    with suppress(ImportError):  # not available on every system; once imported, input() uses it
        import readline  # noqa: F401
    while True:
        line: str | None = None
        try:
            line = input(marker())
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
        yield line
