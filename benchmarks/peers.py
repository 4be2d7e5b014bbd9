"""Training of charlm and of a plain PyTorch program as users would start them, and scorers of the trained models."""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import nn

from benchmarks.heldout import Costs, Scorer, recurrent_costs, rows_scorer
from benchmarks.plain import PlainModel, vocabulary
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.predictor import Predictor
from charlm.engine.runs import Run
from charlm.engine.scorer import ModelScorer

TRAIN_SHARE = 0.9
"""Share of the text, from its start, that is used for training. The rest is held out, as in nanoGPT."""

MAX_POINTS = 100
"""Maximum number of points in a smoothed loss curve."""

Points = list[tuple[float, float]]
"""Loss curve: pairs of seconds since the start and loss in nats per character."""

Curves = dict[str, Points]
"""Curves from a program's own log, by kind: `training` or `validation`."""


class PeerError(Exception):
    """A program cannot be run or has failed; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training to be done.

    Attributes:
        text: The whole text.
        minutes: Time from the command to its end.
        seed: Number of the training, from 1.
        folder: Empty folder for its files.
        chars: Number of characters that charlm has read in this time with this seed; None if it has not been run.
    """

    text: str
    minutes: float
    seed: int
    folder: Path
    chars: int | None = None

    @property
    def seconds(self) -> float:
        """Time from the command to its end in seconds."""
        return 60 * self.minutes

    @cached_property
    def train(self) -> str:
        """Training text."""
        return self.text[: int(len(self.text) * TRAIN_SHARE)]

    @cached_property
    def valid(self) -> str:
        """Held-out text."""
        return self.text[int(len(self.text) * TRAIN_SHARE) :]

    def write(self, name: str, text: str) -> Path:
        """Write a file in the folder, and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Result of a training.

    Attributes:
        seconds: Time from the command to its end.
        cpu_seconds: Processor time of the command, summed over its threads.
        parameters: Number of weights.
        chars: Number of characters read in training, repetitions included.
        curves: Losses during the training.
        score: Scorer with the model that the program saved.
    """

    seconds: float
    cpu_seconds: float
    parameters: int
    chars: int
    curves: Curves
    score: Scorer


Peer = Callable[[Task], Trained]
"""Function that runs a training program."""


def timed_lines(command: Sequence[str], folder: Path) -> Generator[tuple[float, str]]:
    """Run a program, and yield each line that it prints with the seconds since its start; at its end an empty line.

    Closing the generator kills the program.

    Raises:
        PeerError: If the program fails.
    """
    start = time.monotonic()
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    assert process.stdout is not None, "stdout is a pipe"
    try:
        last = ""
        for line in process.stdout:
            last = line.strip() or last
            yield time.monotonic() - start, line.rstrip()
        if process.wait():
            raise PeerError(f"{' '.join(command[1:3])} failed: {last}")
        yield time.monotonic() - start, ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Finished(NamedTuple):
    """Program that has ended.

    Attributes:
        lines: The lines that it printed, each with the seconds since its start.
        seconds: Time from its start to its end.
        cpu_seconds: Its processor time, summed over its threads.
    """

    lines: list[tuple[float, str]]
    seconds: float
    cpu_seconds: float


def run_to_end(command: Sequence[str], folder: Path) -> Finished:
    """Run a program to its end.

    Raises:
        PeerError: If the program fails.
    """
    cpu_before = _cpu_seconds_of_children()
    *lines, (seconds, _) = timed_lines(command, folder)
    return Finished(lines, seconds, _cpu_seconds_of_children() - cpu_before)


def _cpu_seconds_of_children() -> float:
    """Return the processor time of all programs that this process has run and waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def charlm(task: Task) -> Trained:
    """Run `charlm train` with only time and seed set. It saves the model with the best validation loss."""
    files = [task.write(name, text).name for name, text in (("train.txt", task.train), ("valid.txt", task.valid))]
    command = [sys.executable, "-m", "charlm", "train", files[0], "--validation", files[1], "--name", "run", "-q"]
    budget = ["--minutes", f"{task.minutes:g}", "--seed", str(task.seed)]
    finished = run_to_end([*command, *budget], task.folder)
    run = Run(task.folder / "checkpoints" / "run")
    log = run.read_log()
    curves = {
        kind: [(entry["seconds"], entry[key]) for entry in log if entry.get(key) is not None]
        for kind, key in (("training", "train_nats"), ("validation", "val_nats"))
    }
    return Trained(
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        parameters=sum(tensor.size for tensor in load_checkpoint(run.model).tensors.values()),
        chars=round(log[-1]["epoch"] * len(task.train)),
        curves=curves,
        score=charlm_scorer(open_predictor(load_checkpoint(run.model))),
    )


def charlm_scorer(predictor: Predictor) -> Scorer:
    """Return a scorer that uses charlm's engine and scoring rule."""
    scorer = ModelScorer(predictor)

    def score(texts: Sequence[str]) -> list[Costs]:
        if len(texts) == 1:
            return [scorer.start_stream().feed(texts[0]).nats]
        return [costs.nats for costs in scorer.score_lines(texts)]

    return score


def plain(task: Task) -> Trained:
    """Run `benchmarks.plain` for the training time. It saves its last weights."""
    return _run_plain(task, "--minutes", f"{task.minutes:g}", "--start", str(time.time()))


def plain_equal_chars(task: Task) -> Trained:
    """Run `benchmarks.plain` until it has read as many characters as charlm. It saves its last weights."""
    if task.chars is None:
        raise PeerError("plain-equal-chars needs a training of charlm before it")
    return _run_plain(task, "--chars", str(task.chars))


def _run_plain(task: Task, *budget: str) -> Trained:
    train, valid = task.write("train.txt", task.train), task.write("valid.txt", task.valid)
    command = [sys.executable, "-m", "benchmarks.plain", train.name, valid.name, "--seed", str(task.seed), *budget]
    finished = run_to_end(command, task.folder)
    curves: Curves = defaultdict(list)
    chars = 0
    for seconds, line in finished.lines:
        entry = json.loads(line) if line.startswith("{") else {}  # other lines are warnings
        chars = entry.pop("chars", chars)
        for kind, nats in entry.items():
            curves[kind].append((seconds, nats))
    char_ids = vocabulary(task.text)
    model = PlainModel(len(char_ids))
    model.load_state_dict(load_file(task.folder / "model.safetensors"))
    model.eval()
    return Trained(
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        parameters=count_parameters(model),
        chars=chars,
        curves=curves,
        score=rows_scorer(recurrent_costs(model), lambda text: [char_ids[char] for char in text]),
    )


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights. Shared weights count once."""
    return sum(weight.numel() for weight in model.parameters())


def smooth(points: Points) -> Points:
    """Return at most `MAX_POINTS` points: means of consecutive losses, each at the time of the last of them."""
    size = -(-len(points) // MAX_POINTS) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
