"""What charlm learns in some minutes, and what peers do: the same text, split, machine and time, one after the other.

    python -m benchmarks.learning --minutes 0.67 2.5 10 --nanogpt DIR --word-language-model DIR --csv losses.csv

nanoGPT and PyTorch's word_language_model are run from checkouts; without one, a peer is left out.
"""

import argparse
import csv
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import found_by_children
from benchmarks.checkouts import nanogpt, word_language_model
from benchmarks.heldout import LATE, WINDOW, HeldOut, held_out
from benchmarks.peers import Peer, PeerError, Task, Trained, charlm, plain
from benchmarks.report import mean_and_range, table, write_section
from charlm.cli.curves import Curve, loss_range
from charlm.cli.figure import new_figure

CHECKOUTS = {"nanogpt": (nanogpt, "train.py"), "word_language_model": (word_language_model, "main.py")}
"""Peers that need a checkout, and a file that it must have."""

NAMES = ("charlm", "plain", *CHECKOUTS)
SHORTEST = 5000
"""Characters that a text must have, for every program to find its windows in both of its parts."""

HEAD = f"""\
Nats a character on the same held-out text, the last tenth, after as many minutes; the programs ran one after the
other, each with the threads it takes by itself. *Carried*: one pass from the beginning to the end. *Cold*: windows of
{WINDOW} characters, each from the zero state; *late*: the same without the first {LATE} characters of each. In all of
them a text starts behind one newline, and every character counts, as in `charlm score`.

The time runs from the command to its end, loading and the program's own validations included.

"""

NOTES = {
    "charlm": "`charlm train TEXT --minutes M` with nothing else set; its model with the best validation loss",
    "plain": "`benchmarks/plain.py`: 2 x 256 units of nn.LSTM, dropout 0.2, Adam at 2e-3, 32 random windows of 100 "
    "characters from the zero state; its last weights",
    "nanogpt": "its README's recipe for a CPU (4 layers of 128, block 64, batch 12), with as many iterations as fill "
    "the time, timed beforehand, and the decay of its rate ending there; it sees 64 characters and carries no state: "
    "*carried* and *cold* slide a block of 64 by 32 and count its second half, so that 33 to 64 characters stand "
    "before each; its model with the best validation loss",
    "word_language_model": "PyTorch's example with its defaults (LSTM, 2 x 200), characters for words and `<eos>` for "
    "line ends, as many whole epochs as come nearest to the time; its best epoch",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A program's training, and what its model costs on the held-out text."""

    program: str
    minutes: float
    seed: int
    trained: Trained
    loss: HeldOut


def wanted_peers(given: argparse.Namespace) -> dict[str, Peer]:
    """The programs to run, by name; ends the benchmark if one that is asked for lacks its checkout."""
    peers: dict[str, Peer] = {"charlm": charlm, "plain": plain}
    for name, (peer, needed) in CHECKOUTS.items():
        checkout = getattr(given, name)
        option = f"--{name.replace('_', '-')}"
        if checkout is None:
            if name in (given.only or ()):
                sys.exit(f"{name} is run from a checkout: give its folder with {option}")
            print(f"{name} is left out: it is run from a checkout, {option}", file=sys.stderr)
        elif not (checkout / needed).is_file():
            sys.exit(f"{option} {checkout}: no {needed} there")
        else:
            peers[name] = partial(peer, checkout=checkout.resolve())
    return {name: peer for name, peer in peers.items() if name in (given.only or NAMES)}


def run_all(
    given: argparse.Namespace, peers: dict[str, Peer], text: str, folder: Path
) -> tuple[list[Outcome], list[str]]:
    """Train and measure, one after the other; what fails is told and left out.

    Returns:
        What came out, and a line for each failure.
    """
    outcomes, failures = [], []
    for minutes in given.minutes:
        for seed in range(1, given.seeds + 1):
            for name, peer in peers.items():
                place = folder / f"{name}-{minutes:g}-{seed}"
                place.mkdir()
                task = Task(text=text, minutes=minutes, seed=seed, folder=place)
                try:
                    trained = peer(task)
                    loss = held_out(trained.score, task.valid)
                except PeerError as error:
                    failures.append(f"{name}, {minutes:g} minutes: {error}")
                    print(failures[-1], file=sys.stderr)
                    continue
                outcomes.append(Outcome(program=name, minutes=minutes, seed=seed, trained=trained, loss=loss))
                print(f"{name}, {minutes:g} minutes, seed {seed}: {trained.seconds:.1f} s, {loss}", file=sys.stderr)
                if given.keep is None:
                    shutil.rmtree(place)
    return outcomes, failures


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The table: by minutes, then by program, seeds together."""
    groups: dict[tuple[float, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.minutes, outcome.program), []).append(outcome)
    return [
        [
            f"{minutes:g}",
            program,
            mean_and_range([outcome.loss.carried for outcome in group], ".3f"),
            mean_and_range([outcome.loss.cold for outcome in group], ".3f"),
            mean_and_range([outcome.loss.late for outcome in group], ".3f"),
            f"{sum(outcome.trained.seconds for outcome in group) / len(group):.0f}",
            f"{sum(outcome.trained.chars for outcome in group) / len(group) / 1e6:.2f}",
            f"{group[0].trained.parameters:,}",
        ]
        for (minutes, program), group in groups.items()
    ]


HEADER = ("minutes", "program", "carried", "cold", "late", "seconds used", "million characters learnt", "parameters")


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """All losses over time: each program's own, and in the end what its kept model costs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("program", "minutes", "seed", "kind", "seconds", "nats_per_char"))
        for outcome in outcomes:
            trained, loss = outcome.trained, outcome.loss
            ends = {"carried": loss.carried, "cold": loss.cold, "late": loss.late}
            curves = trained.curves | {kind: [(trained.seconds, nats)] for kind, nats in ends.items()}
            for kind, points in curves.items():
                for seconds, nats in points:
                    line = (f"{outcome.minutes:g}", outcome.seed, kind, f"{seconds:.2f}", f"{nats:.5f}")
                    writer.writerow((outcome.program, *line))


def draw(figure: Any, path: Path, outcomes: Sequence[Outcome]) -> None:  # noqa: ANN401 - matplotlib need not be there
    """The validation losses that each program logged, and as a dot what its kept model costs, carried."""
    from matplotlib import colormaps

    ends = [Curve(run="", kind="", points=[(each.trained.seconds, each.loss.carried)]) for each in outcomes]
    logs = [Curve(run="", kind="", points=points) for each in outcomes if (points := each.trained.curves["validation"])]
    axes = figure.add_subplot(
        xlabel="seconds", ylabel="held-out loss (nats a character)", xscale="log", ylim=loss_range(ends + logs)
    )
    named: set[str] = set()
    for outcome in outcomes:
        color = colormaps["tab10"](NAMES.index(outcome.program))
        label = None if outcome.program in named else outcome.program
        named.add(outcome.program)
        points = outcome.trained.curves["validation"] + [(outcome.trained.seconds, outcome.loss.carried)]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1, label=label)
        axes.plot(*points[-1], color=color, marker="o")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path)


def report(given: argparse.Namespace, text: str, outcomes: Sequence[Outcome], failures: Sequence[str]) -> None:
    """Write the section of what was run."""
    source = given.text or "tiny Shakespeare"
    name, title = "learning", "Learning against the clock"
    if given.text:
        name, title = f"learning-{given.text.stem}", f"{title}: {given.text.name}"
        source = given.text.name
    ran = [program for program in NAMES if any(outcome.program == program for outcome in outcomes)]
    notes = "\n".join(f"- **{program}**: {NOTES[program]}." for program in ran)
    seeds = "one seed" if given.seeds == 1 else f"{given.seeds} seeds, their mean and range"
    body = f"{HEAD}The text is {source}, {len(text):,} characters; {seeds}; {os.cpu_count()} cores.\n\n"
    body += f"{table(HEADER, rows(outcomes))}\n\n{notes}\n"
    body += "".join(f"\nNot measured: {failure}.\n" for failure in failures)
    write_section(name, title, body, packages=("torch", "numpy"))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of tinyshakespeare.txt")
    parser.add_argument("--text", type=Path, help="another text")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.67, 2.5, 10.0], help="of each training")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each program for each time")
    parser.add_argument("--only", nargs="+", choices=NAMES, help="programs to run; all if left out")
    parser.add_argument("--nanogpt", type=Path, help="checkout of karpathy/nanoGPT")
    parser.add_argument("--word-language-model", type=Path, help="checkout of pytorch/examples/word_language_model")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep models and logs in this new folder")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all losses over time")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the losses over time, .png or .svg")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for, print the table and write it."""
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a training that went on would disturb the next one
    source = given.text or given.data / "tinyshakespeare.txt"
    if not source.is_file():
        sys.exit(
            f"{source} is missing: " + ("give another" if given.text else "give the folder of the data with --data")
        )
    text = source.read_text(encoding="utf-8")
    if len(text) < SHORTEST:
        sys.exit(f"{source}: {len(text):,} characters are too few to compare anything, {SHORTEST:,} is the least")
    peers = wanted_peers(given)
    try:
        figure = given.picture and new_figure(given.picture, "--picture")
    except click.ClickException as error:
        sys.exit(error.format_message())
    if given.csv and not given.csv.parent.is_dir():
        sys.exit(f"--csv {given.csv}: there is no folder {given.csv.parent}")
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=False)
    found_by_children()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes, failures = run_all(given, peers, text, (given.keep or Path(scratch)).resolve())
    if not outcomes:
        sys.exit("nothing was measured")
    if given.csv:
        write_csv(given.csv, outcomes)
    if given.picture:
        draw(figure, given.picture, outcomes)
    report(given, text, outcomes, failures)


if __name__ == "__main__":
    main()
