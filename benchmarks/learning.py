"""Held-out loss of charlm and of other programs after the same training time, on the same text and machine.

    python -m benchmarks.learning --minutes 0.67 2.5 10 --nanogpt DIR --word-language-model DIR --csv losses.csv
    python -m benchmarks.learning --minutes 0.67 --seeds 3 --name learning-seeds --only charlm charlm-network plain
    python -m benchmarks.learning --text train.txt --validation valid.txt --test test.txt --name learning-treebank

nanoGPT and PyTorch's word_language_model are run from checkouts of their repositories. A program whose checkout is not
given is left out.
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
import torch

from benchmarks import add_project_to_pythonpath
from benchmarks.checkouts import NANOGPT_DEMO, NANOGPT_GPU, NANOGPT_TUNED, nanogpt, word_language_model
from benchmarks.heldout import LATE, WINDOW, HeldOut, held_out
from benchmarks.peers import (
    Peer,
    PeerError,
    Task,
    Texts,
    Trained,
    charlm,
    charlm_adaptive,
    charlm_network,
    charlm_ngram,
    plain,
    plain_equal_chars,
)
from benchmarks.report import mean_and_range, table, write_section
from charlm.cli.curves import Curve, loss_range
from charlm.cli.figure import new_figure

CHECKOUTS = {
    "nanogpt-demo": (nanogpt, "nanogpt", "train.py"),
    "nanogpt-tuned": (partial(nanogpt, settings=NANOGPT_TUNED), "nanogpt", "train.py"),
    "nanogpt-gpu": (partial(nanogpt, settings=NANOGPT_GPU), "nanogpt", "train.py"),
    "word_language_model": (word_language_model, "word_language_model", "main.py"),
}
"""Programs that need a checkout: how to run them, the option for the checkout, and a file that it must contain."""

BUILT_IN: dict[str, Peer] = {
    "charlm": charlm,
    "charlm-adaptive": charlm_adaptive,
    "charlm-network": charlm_network,
    "charlm-ngram": charlm_ngram,
    "plain": plain,
    "plain-equal-chars": plain_equal_chars,
}
"""Programs that need no checkout."""

NAMES = (*BUILT_IN, *CHECKOUTS)

MIN_CHARS = 5000
"""Minimum length of a text in characters, so that both of its parts are long enough for every program's windows."""

INTRODUCTION = f"""\
Loss in nats per character on the same held-out text after the same training time. The programs ran one after the other,
each with its own default number of threads. *Carried*: the text is read once from start to end.
*Cold*: it is read in windows of {WINDOW} characters, each from the zero state. *Late*: as cold, without the first
{LATE} characters of each window. Every text starts after one newline and every character counts, as in `charlm score`.

The training time is that of the whole command: start-up and the program's own validations included. *CPU seconds* is
the processor time of all threads.

"""

HEADER = (
    *("minutes", "program", "carried", "cold", "late", "seconds used", "CPU seconds"),
    *("million characters read", "parameters"),
)

CHANGES = ", ".join(f"{name} {value}" for name, value in NANOGPT_TUNED.items() if NANOGPT_DEMO.get(name) != value)

NANOGPT_MEASUREMENT = """\
The number of iterations is what fits in the time, by a measurement beforehand, and the learning rate decays until the \
last one. The model has no state: for *carried* and *cold*, blocks are moved by half of their length, and the second \
half of each is counted, so that each character has more than half a block of context. The model with the best \
validation loss"""

NOTES = {
    "charlm": "`charlm train TEXT --minutes M` with default settings: network and counts; the model with the best "
    "validation loss",
    "charlm-adaptive": "the same model, which counts the text that it reads (`--adapt`). This is dynamic evaluation: "
    "compare it with no other row",
    "charlm-network": "the network of the same model, without its n-grams",
    "charlm-ngram": "`charlm train TEXT --cell ngram`, the counts alone, in the time that they need",
    "plain": "`benchmarks/plain.py`, whose training loop has 20 lines: nn.LSTM of 1 x 256 units, 16 streams of 64 "
    "characters per update with carried state, Adam with a learning rate that falls from 0.008 to 0 along a cosine, no "
    "dropout; the last weights",
    "plain-equal-chars": "the same program, for as many characters as charlm has read with the same seed, however long "
    "it takes",
    "nanogpt-demo": "nanoGPT with the settings that its README gives for a demonstration on a CPU (4 layers of 128, "
    f"block 64, batch 12, learning rate 1e-3). {NANOGPT_MEASUREMENT}",
    "nanogpt-tuned": "nanoGPT with better settings for a CPU, chosen by trainings on tiny Shakespeare; different from "
    f"the demonstration: {CHANGES}. {NANOGPT_MEASUREMENT}",
    "nanogpt-gpu": "nanoGPT with the settings of `config/train_shakespeare_char.py`, which is made for a GPU (6 layers "
    f"of 384, block 256, batch 64), without compilation. {NANOGPT_MEASUREMENT}",
    "word_language_model": "PyTorch's example with default settings (LSTM, 2 x 200), with characters as words and "
    "`<eos>` for newlines. The number of whole epochs is the one whose time is closest to the training time. The model "
    "of the best epoch",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one training.

    Attributes:
        program: One of `NAMES`.
        minutes: Training time that was given.
        seed: Number of the training, from 1.
        trained: What the program did.
        loss: Loss of its model on the held-out text.
    """

    program: str
    minutes: float
    seed: int
    trained: Trained
    loss: HeldOut


def find_peers(args: argparse.Namespace) -> dict[str, Peer]:
    """Return the programs to run, by name. Exit if a program was asked for by name but has no checkout."""
    peers = dict(BUILT_IN)
    for name, (peer, repository, needed) in CHECKOUTS.items():
        checkout = getattr(args, repository)
        option = f"--{repository.replace('_', '-')}"
        if checkout is None:
            if name in (args.only or ()):
                sys.exit(f"{name} needs a checkout of its repository: set {option}")
            print(f"{name} is left out because it has no checkout; set {option}", file=sys.stderr)
        elif not (checkout / needed).is_file():
            sys.exit(f"{option} {checkout}: has no file {needed}; give a checkout of {repository}")
        else:
            peers[name] = partial(peer, checkout=checkout.resolve())
    return {name: peer for name, peer in peers.items() if name in (args.only or NAMES)}


def run_all(
    args: argparse.Namespace, peers: dict[str, Peer], texts: Texts, folder: Path
) -> tuple[list[Outcome], list[str]]:
    """Run all trainings, one after the other. Failed ones are reported and left out.

    Returns:
        The outcomes, and a line for each failure.
    """
    outcomes, failures = [], []
    for minutes in args.minutes:
        for seed in range(1, args.seeds + 1):
            ours = None
            for name, peer in peers.items():
                task_folder = folder / f"{name}-{minutes:g}-{seed}"
                task_folder.mkdir()
                task = Task(texts=texts, minutes=minutes, seed=seed, folder=task_folder, charlm=ours)
                try:
                    trained = peer(task)
                    loss = held_out(trained.score, texts.test[: args.score_chars])
                except PeerError as error:
                    failures.append(f"{name}, {minutes:g} minutes: {error}")
                    print(failures[-1], file=sys.stderr)
                    continue
                ours = trained if name == "charlm" else ours
                outcomes.append(Outcome(program=name, minutes=minutes, seed=seed, trained=trained, loss=loss))
                print(f"{name}, {minutes:g} minutes, seed {seed}: {trained.seconds:.1f} s, {loss}", file=sys.stderr)
                if args.keep is None:
                    shutil.rmtree(task_folder)
    return outcomes, failures


def table_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return the rows of the table: one per time and program, with the mean over seeds."""
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
            mean_and_range([outcome.trained.seconds for outcome in group], ".0f"),
            mean_and_range([outcome.trained.cpu_seconds for outcome in group], ".0f"),
            mean_and_range([outcome.trained.chars / 1e6 for outcome in group], ".2f"),
            f"{group[0].trained.parameters:,}",
        ]
        for (minutes, program), group in sorted(groups.items(), key=lambda item: (item[0][0], NAMES.index(item[0][1])))
    ]


def write_csv(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write all losses with their times: those that the programs logged, and the final ones on the held-out text."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("program", "minutes", "seed", "kind", "seconds", "nats_per_char"))
        for outcome in outcomes:
            trained, loss = outcome.trained, outcome.loss
            final = {"carried": loss.carried, "cold": loss.cold, "late": loss.late}
            curves = trained.curves | {kind: [(trained.seconds, nats)] for kind, nats in final.items()}
            for kind, points in curves.items():
                for seconds, nats in points:
                    line = (f"{outcome.minutes:g}", outcome.seed, kind, f"{seconds:.2f}", f"{nats:.5f}")
                    writer.writerow((outcome.program, *line))


def draw(figure: Any, path: Path, outcomes: Sequence[Outcome]) -> None:  # noqa: ANN401 - matplotlib is optional
    """Draw the validation losses that the programs logged, and the final held-out loss of each as a dot."""
    from matplotlib import colormaps

    final = [Curve(run="", kind="", points=[(each.trained.seconds, each.loss.carried)]) for each in outcomes]
    logs = [Curve(run="", kind="", points=points) for each in outcomes if (points := each.trained.curves["validation"])]
    axes = figure.add_subplot(
        xlabel="seconds", ylabel="held-out loss (nats per character)", xscale="log", ylim=loss_range(final + logs)
    )
    labelled: set[str] = set()
    for outcome in outcomes:
        color = colormaps["tab10"](NAMES.index(outcome.program))
        label = None if outcome.program in labelled else outcome.program
        labelled.add(outcome.program)
        points = outcome.trained.curves["validation"] + [(outcome.trained.seconds, outcome.loss.carried)]
        axes.plot(*zip(*points, strict=True), color=color, linewidth=1, label=label)
        axes.plot(*points[-1], color=color, marker="o")
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path)


def report(args: argparse.Namespace, texts: Texts, outcomes: Sequence[Outcome], failures: Sequence[str]) -> None:
    """Write the result file."""
    source, name, title = "tiny Shakespeare", "learning", "Loss after equal training time"
    if args.text:
        source, name, title = args.text.name, f"learning-{args.text.stem}", f"{title}: {args.text.name}"
    if args.name:
        name, title = args.name, f"Loss after equal training time: {source}"
        title += f", {args.seeds} seeds" if args.seeds > 1 else ""
    programs = [program for program in NAMES if any(outcome.program == program for outcome in outcomes)]
    notes = "\n".join(f"- **{program}**: {NOTES[program]}." for program in programs)
    seeds = "one seed" if args.seeds == 1 else f"mean over {args.seeds} seeds, with minimum and maximum"
    if args.score_chars:
        seeds += f"; only the first {args.score_chars:,} characters of the held-out text are scored"
    parts = "its last tenth is both validation text and held-out text"
    if args.test:
        parts = f"validation text {args.validation.name}, held-out text {args.test.name}"
    body = f"{INTRODUCTION}The text is {source}, {len(texts.train):,} characters to train on; {parts}; {seeds}; "
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    body += f"{os.cpu_count()} cores{gpu}.\n\n"
    body += f"{table(HEADER, table_rows(outcomes))}\n\n{notes}\n"
    body += "".join(f"\nNot measured: {failure}.\n" for failure in failures)
    write_section(name, title, body, packages=("torch", "numpy"))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with tinyshakespeare.txt")
    parser.add_argument("--text", type=Path, help="text file to use instead of tiny Shakespeare")
    parser.add_argument("--validation", type=Path, help="validation text, if it is not the last tenth; needs --test")
    parser.add_argument("--test", type=Path, help="held-out text that is scored, if it is not the validation text")
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.67, 2.5, 10.0], help="training times")
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings per program and time")
    parser.add_argument("--score-chars", type=int, metavar="N", help="score the first N held-out characters only")
    parser.add_argument("--name", help="name of the result file (default: learning, and the name of --text)")
    parser.add_argument("--only", nargs="+", choices=NAMES, help="programs to run (default: all)")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="checkout of karpathy/nanoGPT")
    parser.add_argument(
        "--word-language-model", type=Path, metavar="DIR", help="checkout of pytorch/examples/word_language_model"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="new folder in which models and logs are kept")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="file for all losses with their times")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="picture of the losses over time, .png or .svg")
    return parser.parse_args()


def read_texts(args: argparse.Namespace) -> Texts:
    """Return the texts. Exit if one is missing or too short."""
    if bool(args.validation) != bool(args.test) or (args.test and not args.text):
        sys.exit("--validation and --test need each other and --text")
    whole = read_text(args.text or args.data / "tinyshakespeare.txt")
    if not args.test:
        return Texts.split(whole)
    texts = Texts(train=whole, valid=read_text(args.validation), test=read_text(args.test))
    if unseen := set(texts.test) - set(texts.seen):
        sys.exit(f"{args.test}: has characters that are in no other text: {''.join(sorted(unseen))!r}")
    return texts


def read_text(path: Path) -> str:
    """Return a text. Exit if it is missing or too short."""
    if not path.is_file():
        sys.exit(f"{path} is missing: set --data or --text")
    text = path.read_text(encoding="utf-8")
    if len(text) < MIN_CHARS:
        sys.exit(f"{path}: {len(text):,} characters are too few; give a text of at least {MIN_CHARS:,}")
    return text


def prepare_output(args: argparse.Namespace) -> Any:  # noqa: ANN401 - matplotlib is optional
    """Return an empty figure if a picture was asked for. Exit if an output file cannot be written."""
    try:
        figure = args.picture and new_figure(args.picture, "--picture")
    except click.ClickException as error:
        sys.exit(error.format_message())
    if args.csv and not args.csv.parent.is_dir():
        sys.exit(f"--csv {args.csv}: there is no folder {args.csv.parent}")
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=False)
    return figure


def main() -> None:
    """Run all trainings, and write the result files."""
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the program in training is ended too
    texts = read_texts(args)
    peers = find_peers(args)
    figure = prepare_output(args)
    add_project_to_pythonpath()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes, failures = run_all(args, peers, texts, (args.keep or Path(scratch)).resolve())
    if not outcomes:
        sys.exit("no training succeeded, so there is no result")
    if args.csv:
        write_csv(args.csv, outcomes)
    if args.picture:
        draw(figure, args.picture, outcomes)
    report(args, texts, outcomes, failures)


if __name__ == "__main__":
    main()
