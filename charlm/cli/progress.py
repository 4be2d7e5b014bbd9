"""Shows how a training goes: a bar on a terminal, a plain line now and then elsewhere, a summary at the end."""

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from charlm.cli.options import warn
from charlm.config import TrainConfig

if TYPE_CHECKING:
    from charlm.engine.checkpoint import Checkpoint
    from charlm.engine.runs import Run
    from charlm.training.progress import Progress

PLAIN_LINE_EVERY = 10.0
"""Seconds between lines where stderr is no terminal, and at least a twentieth of the budget."""


def clock_text(seconds: float) -> str:
    """Minutes and seconds, and hours if there are any, as 2:05 or 1:02:05."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def loss_text(nats: float, chars_per_token: float, digits: int = 4, *, words: bool = False) -> str:
    """A loss in nats a token and in bits a character, and as the perplexity of a word."""
    perplexity = f"perplexity {math.exp(min(nats, 700)):,.{max(0, digits - 2)}f}, " if words else ""
    return f"{nats:.{digits}f} nats, {perplexity}{nats / math.log(2) / chars_per_token:.{digits}f} bits/char"


class ProgressView:
    """Draws a training's progress on stderr; a context manager.

    Args:
        config: For the budget.
        chars_per_token: Characters that a token stands for, 1 in character models.
        quiet: Draw nothing.
    """

    def __init__(self, config: TrainConfig, chars_per_token: float, *, quiet: bool) -> None:
        self._config = config
        self._chars_per_token = chars_per_token
        self._quiet = quiet
        self._bar: Any = None
        self._next_line = (3.0, 0.0)  # seconds, fraction
        self._next_draw = 0.0
        self._began: Progress | None = None
        self._train_nats = math.nan
        self._val_nats: float | None = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from tqdm import tqdm

            layout = "{percentage:3.0f}%|{bar:8}| {desc}"
            self._bar = tqdm(total=1.0, bar_format=layout, dynamic_ncols=True, leave=False, file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: "Progress") -> None:
        """Take in where the training stands, and draw it if it is time to."""
        self._began = self._began or progress
        if not math.isnan(progress.train_nats):
            old = self._train_nats
            self._train_nats = progress.train_nats if math.isnan(old) else 0.9 * old + 0.1 * progress.train_nats
        if progress.val_nats is not None:
            self._val_nats = progress.val_nats
        if self._quiet:
            return
        if self._bar is not None:
            if time.monotonic() >= self._next_draw:
                self._next_draw = time.monotonic() + 0.1
                self._bar.n = progress.fraction
                self._bar.set_description_str(self._line(progress))
        elif progress.seconds >= self._next_line[0] and progress.fraction >= self._next_line[1]:
            if progress.step and self._seconds_left(progress) is None:
                return  # the next update will tell
            self._next_line = (progress.seconds + PLAIN_LINE_EVERY, progress.fraction + 0.05)
            click.echo(f"{progress.fraction:4.0%}  {self._line(progress)}", err=True)

    def warn(self, message: str) -> None:
        """Say what cannot wait, past the bar."""
        if self._bar is not None:
            self._bar.clear()
        warn(message)

    def _line(self, progress: "Progress") -> str:
        validation = "" if self._val_nats is None else f", validation {self._val_nats:.3f}"
        if math.isnan(self._train_nats):  # before the first update of a model that has learnt before
            return f"before the first update{validation}"
        seconds = self._seconds_left(progress)
        left = "?" if seconds is None else clock_text(seconds)
        return (
            f"{left} left, {loss_text(self._train_nats, self._chars_per_token, digits=3)}{validation}, "
            f"{progress.tokens_per_second * self._chars_per_token:,.0f} chars/s, epoch {progress.epoch:.1f}"
        )

    def _seconds_left(self, progress: "Progress") -> float | None:
        """By the clock, or by the updates seen: planning, or another machine before a resume, foretells nothing."""
        if self._config.minutes is not None:
            return max(0.0, self._config.minutes * 60 - progress.seconds)
        began = self._began or progress
        done = progress.fraction - began.fraction
        return (progress.seconds - began.seconds) / done * (1 - progress.fraction) if done > 0 else None


def print_summary(
    run: "Run", checkpoint: "Checkpoint", end: "Progress", chars_per_token: float, *, stopped: bool
) -> None:
    """Say on stderr what was trained, how well, and what to do with it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from charlm.text.printable import escape_unprintable

    config, words = checkpoint.config, checkpoint.tokenizer.kind == "word"
    parameters = sum(int(tensor.size) for tensor in checkpoint.tensors.values())
    table = Table(show_header=False, box=None, pad_edge=False, title_justify="left")
    rows = {
        "stopped" if stopped else "trained": f"{clock_text(end.seconds)}, {end.step:,} steps, {end.epoch:.2f} epochs, "
        f"{end.tokens_per_second * chars_per_token:,.0f} chars/s",
        "model": f"{config.cell} {config.num_layers} x {config.hidden_size}, {parameters:,} parameters, "
        f"{config.vocab_size:,} tokens",
        "training": loss_text(end.train_nats, chars_per_token, words=words),
    }
    if (before := _nats_before(run)) is not None:
        rows["before"] = loss_text(before, chars_per_token, words=words)
    if end.best_nats is not None:
        best = "(as before: no update was better, so none is kept)" if end.best_nats == before else "(best)"
        rows["validation"] = f"{loss_text(end.best_nats, chars_per_token, words=words)} {best}"
    rows["kept in"] = str(run.path)
    rows["next"] = f"charlm train --resume {run.name}" if stopped else f"charlm sample -m {run.name}"
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(escape_unprintable(value)))
    Console(stderr=True).print(table)


def _nats_before(run: "Run") -> float | None:
    """The validation loss before the first update, nats a token, if the model had learnt before."""
    first = next(iter(run.read_log()), {}) if run.log.is_file() else {}  # none, if stopped before that
    nats = first.get("val_nats")
    return nats if first.get("step") == 0 and isinstance(nats, float) else None
