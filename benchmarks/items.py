"""Lists of items: charlm and makemore after the same training time, on the same held-out items.

    python -m benchmarks.items --makemore DIR --minutes 1
    python -m benchmarks.items --makemore DIR --minutes 1 --list words.txt

makemore is run from a checkout of its repository, as it is and with its default settings, except that it uses one
thread and loads data in the same process, which is faster on two cores. Its list of names,
DIR/names.txt, is the list unless --list names another file with one item per line.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks import add_project_to_pythonpath
from benchmarks.checkouts import import_file
from benchmarks.peers import PeerError, charlm_scorer, count_parameters, run_to_end, timed_lines
from benchmarks.report import table, write_section
from charlm.engine.checkpoint import load_checkpoint, num_parameters
from charlm.engine.mixture import open_predictor
from charlm.engine.runs import Run

MAKEMORE_TYPES = ("mlp", "gru", "transformer")
"""Models of makemore to train, each with its default settings."""

MAKEMORE_SEED = 3407
"""Default of makemore's option --seed. It decides which items are held out."""

MAX_HELD_OUT, HELD_OUT_SHARE = 1000, 0.1
"""Number of items that makemore holds out, and their maximum share of the list."""

WITHOUT_TENSORBOARD = """\
import runpy, sys, torch, types
torch.set_num_threads(1)
class SummaryWriter:
    def __init__(self, **options): pass
    def add_scalar(self, *values): pass
    def flush(self): pass
sys.modules["torch.utils.tensorboard"] = types.SimpleNamespace(SummaryWriter=SummaryWriter)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Program that runs makemore without TensorBoard, which it needs for its logs only, and with one thread.

Its models are so small that two threads, or its default of four processes that load data, make it slower on two cores.
"""

INTRODUCTION = """\
The programs ran one after the other for the same time, start-up included. *Loss* is the loss of the same held-out
items in nats per character, where the end of an item counts as a character: the sum over all of them, divided by the
number of characters and ends. *Loss of unseen* leaves out the held-out items that are also in the training list,
because lists such as names have duplicates. Each program keeps its best model on these items. *New* is the share of
sampled items that are not in the list, held-out items included; *well-formed* the share that end by themselves and
match {pattern}; *unique* the share of distinct items among the samples; the last column is the share that is all
three, each item counted once. A model that has learnt nothing also writes new items, so these shares are only
meaningful beside the loss.

"""

HEADER = (
    *("program", "loss", "loss of unseen", "new", "well-formed", "unique", "all three"),
    *("seconds used", "CPU seconds", "parameters"),
)


@dataclass(frozen=True, kw_only=True)
class ItemTask:
    """Training on a list.

    Attributes:
        path: File with all items, one per line.
        train: Items to train on.
        held_out: Items that are held out.
        minutes: Time from the command to its end.
        samples: Number of items to sample.
        folder: Empty folder for files.
    """

    path: Path
    train: Sequence[str]
    held_out: Sequence[str]
    minutes: float
    samples: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class ItemResult:
    """Result of a training on a list.

    Attributes:
        nats: Loss of each held-out item in nats, its end included.
        items: Sampled items. An item that did not end by itself is None.
        seconds: Time from the command to its end.
        cpu_seconds: Processor time of the command.
        parameters: Number of weights.
    """

    nats: Sequence[float]
    items: Sequence[str | None]
    seconds: float
    cpu_seconds: float
    parameters: int


def split_items(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the items to train on and those held out, divided in the same way as by makemore with its default seed."""
    count = min(MAX_HELD_OUT, int(len(items) * HELD_OUT_SHARE))
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(MAKEMORE_SEED)).tolist()
    return [items[index] for index in order[:-count]], [items[index] for index in order[-count:]]


def charlm(task: ItemTask) -> ItemResult:
    """Run `charlm train` and `charlm sample --items` with default settings."""
    for name, items in (("train.txt", task.train), ("held-out.txt", task.held_out)):
        (task.folder / name).write_text("".join(item + "\n" for item in items), encoding="utf-8")
    charlm_command = [sys.executable, "-m", "charlm"]
    files = ["train.txt", "--validation", "held-out.txt", "--items", "line", "--name", "run", "-q"]
    finished = run_to_end([*charlm_command, "train", *files, "--minutes", f"{task.minutes:g}"], task.folder)
    sampling = [*charlm_command, "sample", "-m", "run", "--items", str(task.samples), "--seed", "1"]
    sampled = [line for _, line in run_to_end(sampling, task.folder).lines]
    run = Run(task.folder / "checkpoints" / "run")
    costs = charlm_scorer(open_predictor(load_checkpoint(run.model)))([item + "\n" for item in task.held_out])
    return ItemResult(
        nats=[float(nats.sum()) for nats in costs],
        items=sampled,
        seconds=finished.seconds,
        cpu_seconds=finished.cpu_seconds,
        parameters=num_parameters(load_checkpoint(run.model).config),
    )


def makemore(task: ItemTask, kind: str, checkout: Path) -> ItemResult:
    """Run one of makemore's models with its default settings until the time is over. It saves its best model."""
    program = str(checkout / "makemore.py")
    options = ["--input-file", str(task.path), "--work-dir", str(task.folder), "--type", kind, "--num-workers", "0"]
    usage = os.times()
    with closing(timed_lines([sys.executable, "-c", WITHOUT_TENSORBOARD, program, *options], task.folder)) as lines:
        # A model is saved after a line "step N | loss ..." and before the next line of this kind.
        seconds = next(now for now, line in lines if now >= 60 * task.minutes and line.startswith("step"))
    cpu_seconds = sum(os.times()[2:4]) - sum(usage[2:4])
    path = task.folder / "model.pt"
    if not path.is_file():
        raise PeerError(f"makemore {kind} saved no model; set more --minutes")
    module = import_makemore(checkout)
    chars = sorted(set("".join([*task.train, *task.held_out])))
    block_size = max(map(len, [*task.train, *task.held_out])) + 1
    config = module.ModelConfig(vocab_size=len(chars) + 1, block_size=block_size)
    classes = {"mlp": module.MLP, "gru": partial(module.RNN, cell_type="gru"), "transformer": module.Transformer}
    model = classes[kind](config)
    model.load_state_dict(torch.load(path, weights_only=True))  # noqa: TID251 - makemore's format; runs no code
    model.eval()
    dataset = module.CharDataset(list(task.held_out), chars, block_size - 1)
    with torch.inference_mode():
        nats = item_nats(model, dataset)
        torch.manual_seed(1)
        start = torch.zeros(task.samples, 1, dtype=torch.long)
        rows = module.generate(model, start, block_size, do_sample=True)[:, 1:].tolist()
    return ItemResult(
        nats=nats,
        items=[dataset.decode(row[: row.index(0)]) if 0 in row else None for row in rows],
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        parameters=count_parameters(model),
    )


def import_makemore(checkout: Path) -> ModuleType:
    """Import makemore.py, without TensorBoard."""
    name = "torch.utils.tensorboard"
    sys.modules.setdefault(name, ModuleType(name)).__dict__.setdefault("SummaryWriter", None)
    return import_file(checkout / "makemore.py", "makemore")


def item_nats(model: Any, dataset: Any) -> list[float]:  # noqa: ANN401 - classes of the checkout
    """Return the loss of each item in nats, its end included.

    makemore itself prints the mean over batches of the mean over characters, which gives items in short batches more
    weight.
    """
    inputs, targets = (torch.stack(part) for part in zip(*dataset, strict=True))  # targets after the end are -1
    logits, _ = model(inputs)
    costs = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none")
    return [float(nats) for nats in costs.view(targets.shape).sum(dim=1)]


def row(name: str, result: ItemResult, task: ItemTask, pattern: str) -> list[str]:
    """Return the row of the table for a program."""
    known = {*task.train, *task.held_out}
    seen = set(task.train)
    unseen = [index for index, item in enumerate(task.held_out) if item not in seen]
    chars = [len(item) + 1 for item in task.held_out]
    losses = [
        sum(result.nats[index] for index in indices) / sum(chars[index] for index in indices)
        for indices in (range(len(chars)), unseen)
    ]
    ended = [item for item in result.items if item is not None]
    well_formed = [item for item in ended if re.fullmatch(pattern, item)]
    good = {item for item in well_formed if item not in known}
    shares = [sum(item not in known for item in ended), len(well_formed), len(set(ended)), len(good)]
    return [
        name,
        *(f"{loss:.3f}" for loss in losses),
        *(f"{share / len(result.items):.1%}" for share in shares),
        f"{result.seconds:.0f}",
        f"{result.cpu_seconds:.0f}",
        f"{result.parameters:,}",
    ]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--makemore", type=Path, metavar="DIR", help="checkout of karpathy/makemore")
    parser.add_argument("--list", type=Path, metavar="FILE", help="list of items (default: names.txt of --makemore)")
    parser.add_argument("--minutes", type=float, default=1.0, help="training time per program")
    parser.add_argument("--samples", type=int, default=2000, help="number of items to sample")
    parser.add_argument("--pattern", default=r"\w+", help="regular expression of well-formed items")
    parser.add_argument("--only", nargs="+", choices=("charlm", *MAKEMORE_TYPES), help="programs (default: all)")
    args = parser.parse_args()
    if args.list is None and args.makemore is None:
        sys.exit("give a checkout of makemore with --makemore, or a list of items with --list")
    if args.makemore is not None and not (args.makemore / "makemore.py").is_file():
        sys.exit(f"--makemore {args.makemore}: has no file makemore.py; give a checkout of makemore")
    args.list = args.list or args.makemore / "names.txt"
    if not args.list.is_file():
        sys.exit(f"{args.list} is missing: set --list")
    return args


def main() -> None:
    """Run all trainings, and write the result file."""
    args = parse_arguments()
    add_project_to_pythonpath()
    items = [item for line in args.list.read_text(encoding="utf-8").splitlines() if (item := line.strip())]
    train, held_out = split_items(items)
    programs: dict[str, Callable[[ItemTask], ItemResult]] = {"charlm": charlm}
    for kind in MAKEMORE_TYPES if args.makemore else ():
        programs[kind] = partial(makemore, kind=kind, checkout=args.makemore.resolve())
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in [name for name in programs if name in (args.only or programs)]:
            task_folder = Path(folder, name)
            task_folder.mkdir()
            shutil.copy(args.list, task_folder / "list.txt")
            task = ItemTask(
                path=task_folder / "list.txt",
                train=train,
                held_out=held_out,
                minutes=args.minutes,
                samples=args.samples,
                folder=task_folder,
            )
            try:
                result = programs[name](task)
            except PeerError as error:
                failures.append(f"\nNot measured: {name}: {error}.\n")
                continue
            rows.append(row(name if name == "charlm" else f"makemore, {name}", result, task, args.pattern))
            print(*rows[-1], sep="  ", file=sys.stderr)
    body = INTRODUCTION.format(pattern=f"`{args.pattern}`")
    body += f"{args.list.name}: {len(items):,} items, of which {len(held_out):,} are held out, the same ones for each "
    body += f"program; {args.minutes:g} minutes; {args.samples:,} sampled items; {os.cpu_count()} cores.\n\n"
    body += table(HEADER, rows) + "\n" + "".join(failures)
    write_section(f"items-{args.list.stem}", f"Lists of items: {args.list.name}", body, packages=("torch", "numpy"))


if __name__ == "__main__":
    main()
