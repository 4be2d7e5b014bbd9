"""`charlm sample -i`: a prompt, a text, and the next prompt."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_type_hints

import click

from charlm.config import SampleConfig
from charlm.errors import CharlmError, ConfigError

if TYPE_CHECKING:
    from charlm.engine.sampler import Sampler

HELP = """\
  TEXT          write on from it; an empty line writes from the start of a line
  :again        the same prompt, with the next seed
  :seed N       take seed N next           :n N        write N tokens
  :temp X       temperature                :lines N    end after N lines
  :NAME VALUE   any other setting of charlm sample, as :top-k 20; without a VALUE its default
  :show         the settings               :help       this
  Ctrl-C stops a text, Ctrl-D ends."""


class Session:
    """What is asked for, line by line.

    Args:
        sampler: The model and the first settings.
        write: Writes a text after a prompt.
    """

    def __init__(self, sampler: "Sampler", write: Callable[["Sampler", str], None]) -> None:
        self._sampler = sampler
        self._write = write
        self._prompt = ""
        self._seed = sampler.writers([""])[0].seed

    def run(self) -> None:
        """Answer until the input ends."""
        for line in _read_lines():
            try:
                self._answer(line)
            except CharlmError as error:
                click.echo(f"Error: {error}", err=True)
            except KeyboardInterrupt:
                click.echo()

    def _answer(self, line: str) -> None:
        if not line.startswith(":"):
            self._prompt = line
            self._say()
            return
        name, _, value = line[1:].strip().partition(" ")
        if name == "again":
            self._say()
        elif name == "help":
            click.echo(HELP, err=True)
        elif name == "show":
            click.echo(self._settings(), err=True)
        elif name == "seed" and value.isdecimal():
            self._seed = int(value)
        else:
            self._sampler = replace(self._sampler, config=_changed(self._sampler.config, name, value.strip()))

    def _say(self) -> None:
        """Write a text, each with a seed of its own, which is named so that it can be had again."""
        click.echo(f"[seed {self._seed}]", err=True)
        config = replace(self._sampler.config, seed=self._seed)
        self._seed += 1
        self._write(replace(self._sampler, config=config), self._prompt)

    def _settings(self) -> str:
        config = self._sampler.config
        values = {spec.name: getattr(config, spec.name) for spec in fields(config)} | {"seed": self._seed}
        return "\n".join(
            f"  {name} {value}" for name, value in values.items() if value not in (None, ()) and value is not False
        )


def _changed(config: SampleConfig, name: str, value: str) -> SampleConfig:
    """The settings with one of them changed, by the name it has on the command line."""
    hints = get_type_hints(SampleConfig)
    for spec in fields(SampleConfig):
        rule = spec.metadata.get("rule")
        if rule is None or not {f"-{name}", f"--{name}"} & set(rule.flags):
            continue
        kind = float if "float" in str(hints[spec.name]) else int
        try:
            parsed: Any = kind(value) if value else spec.default
        except ValueError:
            raise ConfigError(f":{name} {value}: not a number") from None
        if spec.name == "greedy":
            parsed = not config.greedy
        return replace(config, **{spec.name: parsed})
    raise ConfigError(f":{name}: no such command; :help lists them")


def _read_lines() -> Iterator[str]:
    """Lines from a terminal, with editing and history, or from a pipe."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.removesuffix("\n")
        return
    with suppress(ImportError):  # not on every system; input() edits with it once it is imported
        import readline  # noqa: F401
    while True:
        try:
            line = input("> ")
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
            continue
        yield line
