"""Training of charlm and of a plain PyTorch program as users would start them, and scorers of the trained models."""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import nn

from benchmarks.heldout import Costs, Scorer, recurrent_costs, rows_scorer
from benchmarks.plain import PlainModel, vocabulary
from charlm.engine.adaptive_predictor import AdaptivePredictor, adaptation_of
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
class Texts:
    """Texts of a comparison.

    Attributes:
        train: Training text.
        valid: Text on which a program chooses its model.
        test: Text that is scored.
    """

    train: str
    valid: str
    test: str

    @classmethod
    def split(cls, text: str) -> "Texts":
        """Return the parts of a text, the last of which is both validation text and test text."""
        train, valid = text[: int(len(text) * TRAIN_SHARE)], text[int(len(text) * TRAIN_SHARE) :]
        return cls(train=train, valid=valid, test=valid)

    @property
    def seen(self) -> str:
        """Training text and validation text, which a program may read."""
        return self.train + self.valid


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training to be done.

    Attributes:
        texts: The texts.
        minutes: Time from the command to its end.
        seed: Number of the training, from 1.
        folder: Empty folder for its files.
        charlm: Result of charlm after this time with this seed; None if it has not been run.
    """

    texts: Texts
    minutes: float
    seed: int
    folder: Path
    charlm: "Trained | None" = None

    @property
    def seconds(self) -> float:
        """Time from the command to its end in seconds."""
        return 60 * self.minutes

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
        other_scores: Scorers that use this model in other ways, by name.
    """

    seconds: float
    cpu_seconds: float
    parameters: int
    chars: int
    curves: Curves
    score: Scorer
    other_scores: Mapping[str, Scorer] = field(default_factory=dict)


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
    return _run_charlm(task, "--minutes", f"{task.minutes:g}")


def charlm_network(task: Task) -> Trained:
    """Return charlm's model without its n-grams."""
    return _other_score(task, "network")


def charlm_ngram(task: Task) -> Trained:
    """Run `charlm train` for counts alone. It takes as long as it takes."""
    return _run_charlm(task, "--cell", "ngram")


def charlm_adaptive(task: Task) -> Trained:
    """Return charlm's model, which counts the text that it reads."""
    return _other_score(task, "adaptive")


def _other_score(task: Task, name: str) -> Trained:
    if task.charlm is None:
        raise PeerError(f"charlm-{name} needs a training of charlm before it")
    return replace(task.charlm, score=task.charlm.other_scores[name])


def _run_charlm(task: Task, *options: str) -> Trained:
    texts = (("train.txt", task.texts.train), ("valid.txt", task.texts.valid))
    files = [task.write(name, text).name for name, text in texts]
    command = [sys.executable, "-m", "charlm", "train", files[0], "--validation", files[1], "--name", "run", "-q"]
    finished = run_to_end([*command, "--seed", str(task.seed), *options], task.folder)
    run = Run(task.folder / "checkpoints" / "run")
    log = run.read_log()
    curves = {
        kind: [(entry["seconds"], entry[key]) for entry in log if entry.get(key) is not None]
        for kind, key in (("training", "train_nats"), ("validation", "val_nats"))
    }
    checkpoint = load_checkpoint(run.model)
    model = open_predictor(checkpoint)
    network = replace(checkpoint, counts=None) if checkpoint.tensors else checkpoint
    others = {"network": open_predictor(network), "adaptive": AdaptivePredictor(model, adaptation_of(checkpoint))}
    return Trained(
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        parameters=sum(tensor.size for tensor in checkpoint.tensors.values()),
        chars=round(log[-1]["epoch"] * len(task.texts.train)),
        curves=curves,
        score=charlm_scorer(model),
        other_scores={name: charlm_scorer(predictor) for name, predictor in others.items()},
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
    if task.charlm is None:
        raise PeerError("plain-equal-chars needs a training of charlm before it")
    return _run_plain(task, "--chars", str(task.charlm.chars))


def _run_plain(task: Task, *budget: str) -> Trained:
    train, valid = task.write("train.txt", task.texts.train), task.write("valid.txt", task.texts.valid)
    command = [sys.executable, "-m", "benchmarks.plain", train.name, valid.name, "--seed", str(task.seed), *budget]
    finished = run_to_end(command, task.folder)
    curves: Curves = defaultdict(list)
    chars = 0
    for seconds, line in finished.lines:
        entry = json.loads(line) if line.startswith("{") else {}  # other lines are warnings
        chars = entry.pop("chars", chars)
        for kind, nats in entry.items():
            curves[kind].append((seconds, nats))
    char_ids = vocabulary(task.texts.seen)
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
