"""Display of the progress of a training: a bar on a terminal, occasional lines elsewhere, and a summary at the end."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from charlm.cli.options import warn
from charlm.cli.status import StatusLine, bar_text
from charlm.cli.tables import print_table
from charlm.config import NGRAM_CELL, TrainConfig

if TYPE_CHECKING:
    from charlm.engine.runs import Run
    from charlm.training.progress import LossUnits, Progress

SECONDS_BETWEEN_LINES, FRACTION_BETWEEN_LINES = 10.0, 0.05
"""Minimum distance between two lines if stderr is not a terminal, in seconds and as a share of the training."""

FIRST_LINE_SECONDS = 3.0
"""Time of the first line, in seconds since the start."""

SMOOTHING = 0.9
"""Weight of the previous value in the running mean of the training loss that is shown."""


def clock_text(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours if there are any: 2:05 or 1:02:05."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def loss_text(nats: float, units: "LossUnits", digits: int = 4, *, words: bool = False) -> str:
    """Return a text with a loss in nats per token and in bits per character, and for words with the perplexity.

    Args:
        nats: Loss in nats per token.
        units: Conversion to bits per character.
        digits: Number of decimal digits.
        words: Whether the tokens are words.
    """
    perplexity = f"perplexity {math.exp(min(nats, 700)):,.{max(0, digits - 2)}f}, " if words else ""
    return f"{nats:.{digits}f} nats, {perplexity}{units.bits_per_char(nats):.{digits}f} bits/char"


class ProgressView:
    """Display of the progress of a training on stderr.

    Args:
        config: Settings of the training, for its length.
        units: Conversion of a loss to bits per character.
        status: Line for the bar on a terminal.
        quiet: Whether to show nothing but warnings.
    """

    def __init__(self, config: TrainConfig, units: "LossUnits", status: StatusLine, *, quiet: bool) -> None:
        self._config = config
        self._units = units
        self._status = status
        self._quiet = quiet
        self._next_line = (FIRST_LINE_SECONDS, 0.0)  # seconds, fraction
        self._first: Progress | None = None
        self._train_nats = math.nan
        self._val_nats: float | None = None  # on a terminal, the latest one; otherwise, the one since the last line

    def __call__(self, progress: "Progress") -> None:
        """Record the progress, and show it if a display is due."""
        self._first = self._first or progress
        if not math.isnan(progress.train_nats):
            old = progress.train_nats if math.isnan(self._train_nats) else self._train_nats
            self._train_nats = SMOOTHING * old + (1 - SMOOTHING) * progress.train_nats
        if progress.val_nats is not None:
            self._val_nats = progress.val_nats
        if self._quiet:
            return
        if self._status.is_shown:
            if self._status.is_due():
                self._status.show(bar_text(progress.fraction, self._parts(progress), self._status.columns))
        elif progress.seconds >= self._next_line[0] and progress.fraction >= self._next_line[1]:
            self._print(progress)

    def warn(self, message: str) -> None:
        """Print a warning without damaging the bar."""
        self._status.clear()
        warn(message)

    def _print(self, progress: "Progress") -> None:
        if progress.step and self._seconds_left(progress) is None:
            return  # the time left is known after the next update
        self._next_line = (progress.seconds + SECONDS_BETWEEN_LINES, progress.fraction + FRACTION_BETWEEN_LINES)
        click.echo(f"{progress.fraction:4.0%}  {', '.join(self._parts(progress))}", err=True)
        self._val_nats = None

    def _parts(self, progress: "Progress") -> dict[str, int]:
        """Return what there is to say, with the rank at which a bar leaves it out."""
        validation = {} if self._val_nats is None else {f"validation {self._val_nats:.3f}": 2}
        if math.isnan(self._train_nats):  # a pretrained model is validated before the first update
            return {"before the first update": 0, **validation}
        seconds = self._seconds_left(progress)
        nats, bits = loss_text(self._train_nats, self._units, digits=3).split(", ")
        return {
            f"{'?' if seconds is None else clock_text(seconds)} left": 0,
            nats: 1,
            bits: 5,
            **validation,
            f"{progress.tokens_per_second * self._units.chars_per_token:,.0f} chars/s": 4,
            f"epoch {progress.epoch:.1f}": 3,
        }

    def _seconds_left(self, progress: "Progress") -> float | None:
        """Return the time left in seconds, or None if it is unknown.

        It is estimated from the updates since the start of this process. The time before that, for planning or on
        another machine, is not representative.
        """
        if self._config.minutes is not None:
            return max(0.0, self._config.minutes * 60 - progress.seconds)
        first = self._first or progress
        done = progress.fraction - first.fraction
        return (progress.seconds - first.seconds) / done * (1 - progress.fraction) if done > 0 else None


def print_summary(run: "Run", end: "Progress", units: "LossUnits") -> None:
    """Print a summary on stderr: length of the training, model, losses, folder, and the next command to use."""
    from charlm.engine.checkpoint import load_checkpoint, num_parameters

    checkpoint = load_checkpoint(run.model)
    config, words, stopped = checkpoint.config, checkpoint.tokenizer.kind == "word", end.fraction < 1
    speed = f"{end.tokens_per_second * units.chars_per_token:,.0f} chars/s"
    updates = f"{end.step:,} steps, {end.epoch:.2f} epochs, "
    shape = f"{config.cell} {config.num_layers} x {config.hidden_size}, {num_parameters(config):,} parameters"
    if config.cell == NGRAM_CELL:
        assert checkpoint.counts is not None, "checked when the file is read"
        ngram = checkpoint.counts.ngram
        updates, shape = "", f"{ngram.num_ngrams:,} n-grams, order {ngram.order}, {ngram.num_bytes / 1e6:.1f} MB"
    rows = {
        "stopped" if stopped else "trained": f"{clock_text(end.seconds)}, {updates}{speed}",
        "model": f"{shape}, {config.vocab_size:,} tokens",
        **_training_row(end, units, words=words, is_mixture=checkpoint.counts is not None),
        **_validation_rows(run, end, units, words=words),
        **_part_rows(checkpoint.metadata),
        **_adaptive_row(checkpoint.metadata),
        "saved in": str(run.path),
    }
    if stopped or not is_unchanged(run, end):
        rows["next"] = f"charlm train --resume {run.name}" if stopped else f"charlm sample -m {run.name}"
    print_table(list(rows.items()), err=True)


def _training_row(end: "Progress", units: "LossUnits", *, words: bool, is_mixture: bool) -> dict[str, str]:
    """Return the row with the training loss: that of the best model if the training is complete, or else the mean."""
    if end.sample_nats is not None:
        nats, note = end.sample_nats, "sample of the text, without dropout"
        note = f"network alone, {note}" if is_mixture else note
    elif not math.isnan(end.train_nats):
        nats, note = end.train_nats, "latest updates, with dropout"
    else:
        return {}
    return {"training": f"{loss_text(nats, units, words=words)} ({note})"}


def _validation_rows(run: "Run", end: "Progress", units: "LossUnits", *, words: bool) -> dict[str, str]:
    """Return the rows with the best validation loss and, for a pretrained model, the one before the first update."""
    rows = {}
    before = _nats_before(run)
    if before is not None:
        rows["before"] = loss_text(before, units, words=words)
    if end.best_nats is not None:
        best = "(unchanged)" if is_unchanged(run, end) else "(best)"
        rows["validation"] = f"{loss_text(end.best_nats, units, words=words)} {best}"
    return rows


def _part_rows(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the row with the validation losses of network and n-gram model, from the metadata of a model file."""
    match metadata.get("metrics"):
        case {"val_nats_network": float(network), "val_nats_ngram": float(ngram), "ngram_weight": float(weight)}:
            together = f"mean weight {weight:.2f}" if weight else "not used, because they do not help"
            return {"parts": f"network alone {network:.4f} nats, n-grams alone {ngram:.4f} nats ({together})"}
    return {}


def _adaptive_row(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the row with the validation loss of the adaptive model, from the metadata of a model file."""
    match metadata.get("metrics"):
        case {"val_nats_adaptive": float(nats)}:
            return {"adaptive": f"{nats:.4f} nats (validation text, with --adapt)"}
    return {}


def is_unchanged(run: "Run", end: "Progress") -> bool:
    """Return whether no update of a pretrained model has lowered its validation loss, so that none is saved."""
    return end.best_nats is not None and end.best_nats == _nats_before(run)


def _nats_before(run: "Run") -> float | None:
    """Return the validation loss before the first update, in nats per token, if the model was pretrained."""
    first = next(iter(run.read_log()), {}) if run.log.is_file() else {}  # no log if stopped before its first line
    nats = first.get("val_nats")
    return nats if first.get("epoch") == 0 and isinstance(nats, float) else None
