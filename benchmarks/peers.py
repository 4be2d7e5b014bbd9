"""Programs that learn characters, run as their users run them for some minutes, and then made to score a text."""

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from benchmarks.heldout import Costs, Scorer, recurrent_costs, rows_scorer
from benchmarks.plain import PlainModel, vocabulary
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.runs import Run
from charlm.engine.scorer import ModelScorer

TRAIN_SHARE = 0.9
"""Of the text, by position; the rest is held out. nanoGPT's split."""

Curves = dict[str, list[tuple[float, float]]]
"""By kind, `training` or `validation`: pairs of seconds and nats a character, as a program's own log has them."""


class PeerError(Exception):
    """A peer that cannot be run, and why, in a line."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training.

    Attributes:
        text: All of the text.
        minutes: How long, from the command to its end.
        seed: Counts from 1.
        folder: Where to do it; empty.
    """

    text: str
    minutes: float
    seed: int
    folder: Path

    @property
    def seconds(self) -> float:
        """The minutes in seconds."""
        return 60 * self.minutes

    @cached_property
    def train(self) -> str:
        """What is learnt."""
        return self.text[: int(len(self.text) * TRAIN_SHARE)]

    @cached_property
    def valid(self) -> str:
        """What is held out."""
        return self.text[int(len(self.text) * TRAIN_SHARE) :]

    def write(self, name: str, text: str) -> Path:
        """Write a file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a training.

    Attributes:
        seconds: From the command to its end.
        parameters: How many it learnt.
        chars: Characters it learnt from, each as often as it was read.
        curves: The losses on the way.
        score: The model that it kept.
    """

    seconds: float
    parameters: int
    chars: int
    curves: Curves
    score: Scorer


Peer = Callable[[Task], Trained]


def stamped_lines(command: Sequence[str], folder: Path) -> Generator[tuple[float, str]]:
    """Run a program in a folder: the lines it prints, with the seconds since its start; an empty one at its end.

    Closed before, it ends the program.

    Raises:
        PeerError: If the program fails.
    """
    began = time.monotonic()
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    assert process.stdout is not None, "a pipe was asked for"
    try:
        last = ""
        for line in process.stdout:
            last = line.strip() or last
            yield time.monotonic() - began, line.rstrip()
        if process.wait():
            raise PeerError(f"{' '.join(command[1:3])} failed: {last}")
        yield time.monotonic() - began, ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def charlm(task: Task) -> Trained:
    """`charlm train` with nothing set but the time and the seed; it keeps the best of its validations."""
    files = [task.write(name, text).name for name, text in (("train.txt", task.train), ("valid.txt", task.valid))]
    command = [sys.executable, "-m", "charlm", "train", files[0], "--validation", files[1], "--name", "run", "-q"]
    budget = ["--minutes", f"{task.minutes:g}", "--seed", str(task.seed)]
    *_, (seconds, _) = stamped_lines([*command, *budget], task.folder)
    run = Run(task.folder / "checkpoints" / "run")
    log = run.read_log()
    curves = {
        kind: [(entry["seconds"], entry[key]) for entry in log if entry.get(key) is not None]
        for kind, key in (("training", "train_nats"), ("validation", "val_nats"))
    }
    return Trained(
        seconds=seconds,
        parameters=sum(tensor.size for tensor in load_checkpoint(run.model).tensors.values()),
        chars=round(log[-1]["epoch"] * len(task.train)),
        curves=curves,
        score=charlm_scorer(RecurrentNetwork.load(run.model)),
    )


def charlm_scorer(network: RecurrentNetwork) -> Scorer:
    """Score with charlm's own engine, by its own rule."""
    scorer = ModelScorer(network)

    def score(texts: Sequence[str]) -> list[Costs]:
        if len(texts) == 1:
            return [scorer.start_stream().feed(texts[0]).nats]
        return [costs.nats for costs in scorer.score_lines(texts)]

    return score


def plain(task: Task) -> Trained:
    """`benchmarks.plain`; it keeps its last weights."""
    train, valid = task.write("train.txt", task.train), task.write("valid.txt", task.valid)
    command = [sys.executable, "-m", "benchmarks.plain", train.name, valid.name, "--minutes", f"{task.minutes:g}"]
    curves: Curves = defaultdict(list)
    chars = 0
    for seconds, line in stamped_lines([*command, "--seed", str(task.seed), "--began", str(time.time())], task.folder):
        entry = json.loads(line) if line.startswith("{") else {}  # and not a warning
        chars = entry.pop("chars", chars)
        for kind, nats in entry.items():
            curves[kind].append((seconds, nats))
    numbers = vocabulary(task.text)
    model = PlainModel(len(numbers))
    model.load_state_dict(load_file(task.folder / "model.safetensors"))
    model.eval()
    score = rows_scorer(recurrent_costs(model), lambda text: [numbers[char] for char in text])
    return Trained(seconds=seconds, parameters=count_parameters(model), chars=chars, curves=curves, score=score)


def count_parameters(model: nn.Module) -> int:
    """The weights of a network, those in two places once."""
    return sum(weight.numel() for weight in model.parameters())


def means(points: list[tuple[float, float]], most: int = 100) -> list[tuple[float, float]]:
    """At most so many points, each the mean of those that it stands for, at the time of their last."""
    size = -(-len(points) // most) or 1
    groups = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
