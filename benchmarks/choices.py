"""Effect of single training settings on the loss: each is changed in turn, on several texts and with several seeds.

    python -m benchmarks.choices --texts ptb.txt russian.txt python.txt --tokens 2e6

All trainings on a text read the same number of characters, so that the machine's speed does not matter. So the results
do not include the effect of a setting on the speed.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import add_project_to_pythonpath
from benchmarks.report import mean_and_range, table, write_section
from charlm.config import ModelConfig, TrainConfig
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.runs import Run
from charlm.settings import from_dict

INTRODUCTION = """\
The first row is the loss of the model that `charlm train` plans{shape}: nats per character on the last tenth of {what},
read as one stream, after training on {tokens:,.0f} characters. The other rows are differences from it, each with one
setting changed; a positive difference is worse. Values are means over {seeds} seeds, with the minimum and the maximum
in brackets; differences are between trainings with the same seed. If the number of streams or of tokens per stream is
changed, the learning rate is not.

"""

Options = Mapping[str, float | None]
"""Options of `charlm train` with their values. The value of a flag is None."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of one training.

    Attributes:
        nats: Validation loss in nats per character.
        model: Shape of the model.
        train: Settings of the training.
    """

    nats: float
    model: ModelConfig
    train: TrainConfig

    @property
    def summary(self) -> str:
        """Settings in one line."""
        model, train = self.model, self.train
        shape = f"{model.num_layers} x {model.hidden_size}{', skip connections' * model.skip_connections}"
        dropout = f"dropout {model.dropout:g}, DropConnect {model.recurrent_dropout:g}"
        rates = f"learning rate {train.learning_rate:.2g}, weight decay {train.weight_decay:g}"
        return f"{shape}, {dropout}, {rates}, {train.batch_size} x {train.seq_len} tokens per update"


def changed_settings(planned: Outcome) -> dict[str, Options]:
    """Return the changes to measure: for each description, the options that differ from the plan."""
    model, train = planned.model, planned.train
    changes: dict[str, Options] = {
        f"{factor:g} times the learning rate": {"--lr": factor * train.learning_rate} for factor in (0.5, 1.5)
    }
    changes["warm-up of 2 % of the training"] = {"--warmup": 0.02}
    for factor in (0, 0.5, 2):
        name = f"{factor:g} times the weight decay" if factor else "no weight decay"
        changes[name] = {"--weight-decay": factor * train.weight_decay}
    changes["states never reset to zero"] = {"--reset-prob": 0}
    for factor in (0.5, 2):
        changes[f"{factor:g} times the streams"] = {"--batch-size": round(factor * train.batch_size)}
        changes[f"{factor:g} times the tokens per stream"] = {"--seq-len": round(factor * train.seq_len)}
    for factor in (0, 0.5, 1.5) if model.dropout else ():
        shares = {"--dropout": factor * model.dropout, "--dropconnect": factor * model.recurrent_dropout}
        changes[f"{factor:g} times the dropout" if factor else "no dropout"] = shares
    if model.skip_connections:
        changes["no skip connections"] = {"--no-skip": None}
    return changes


def train(text: Path, epochs: float, seed: int, options: Options) -> Outcome:
    """Run `charlm train` on a text for a number of epochs."""
    command = [sys.executable, "-m", "charlm", "train", str(text.resolve()), "--name", "run", "--quiet"]
    for name, value in {"--epochs": epochs, "--seed": seed, **options}.items():
        command += [name] if value is None else [name, f"{value:g}"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run = Run(Path(folder, "checkpoints", "run"))
        checkpoint = load_checkpoint(run.model)
        config = from_dict(TrainConfig, checkpoint.metadata["training"])
        return Outcome(nats=run.read_log()[-1]["val_nats"], model=checkpoint.config, train=config)


def format_difference(changed: Sequence[Outcome], planned: Sequence[Outcome]) -> str:
    """Return the mean difference of losses in nats per character, between trainings with the same seed."""
    differences = [other.nats - plan.nats for other, plan in zip(changed, planned, strict=True)]
    return mean_and_range(differences, "+.3f")


def measure(texts: Sequence[Path], args: argparse.Namespace) -> tuple[list[Outcome], dict[str, list[str]]]:
    """Run all trainings, one after the other.

    Returns:
        The planned training for each text, and the rows of the table by their names.
    """
    plans, rows = [], {"as planned": ["-"] * len(texts)}
    shape: Options = dict(zip(("--layers", "--hidden"), args.shape, strict=True)) if args.shape else {}
    for column, text in enumerate(texts):
        epochs = args.tokens / ((1 - TrainConfig.val_fraction) * len(text.read_text(encoding="utf-8")))

        def train_all_seeds(options: Options, text: Path = text, epochs: float = epochs) -> list[Outcome]:
            return [train(text, epochs, seed, {**shape, **options}) for seed in range(1, args.seeds + 1)]

        planned = train_all_seeds({})
        plans.append(planned[0])
        rows["as planned"][column] = mean_and_range([outcome.nats for outcome in planned], ".3f")
        print(text.name, planned[0].summary, rows["as planned"][column], sep=": ", file=sys.stderr)
        for name, options in changed_settings(planned[0]).items():
            if not args.only or any(word in name for word in args.only):
                row = rows.setdefault(name, ["-"] * len(texts))
                row[column] = format_difference(train_all_seeds(options), planned)
                print(text.name, name, row[column], sep=": ", file=sys.stderr)
    return plans, rows


def shorten(text: Path, length: int | None, folder: Path) -> Path:
    """Write the first `length` characters of a text to a file of the same name in `folder`, and return its path."""
    if length is None:
        return text
    short = folder / text.name
    short.write_text(text.read_text(encoding="utf-8")[:length], encoding="utf-8")
    return short


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="text files to train on")
    parser.add_argument("--tokens", type=float, default=2e6, help="number of characters per training (default: 2e6)")
    parser.add_argument("--length", type=int, help="use only the first N characters of each text")
    parser.add_argument("--shape", type=int, nargs=2, metavar=("LAYERS", "UNITS"), help="instead of the planned shape")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only changes whose description has one of the words")
    parser.add_argument("--name", default="choices", help="name of the result file (default: choices)")
    return parser.parse_args()


def main() -> None:
    """Run all trainings, and write the result file."""
    args = parse_arguments()
    for text in args.texts:
        if not text.is_file():
            sys.exit(f"{text} is missing: set --texts")
    add_project_to_pythonpath()
    with tempfile.TemporaryDirectory() as folder:
        plans, rows = measure([shorten(text, args.length, Path(folder)) for text in args.texts], args)
    what = f"the first {args.length:,} characters of each text" if args.length else "each text"
    shape = " with {} x {} units".format(*args.shape) if args.shape else ""
    body = INTRODUCTION.format(what=what, shape=shape, tokens=args.tokens, seeds=args.seeds)
    names = [text.stem for text in args.texts]
    body += table(["", *names], [[name, *row] for name, row in rows.items()]) + "\n\nPlanned settings:\n\n"
    body += "\n".join(f"- {name}: {outcome.summary}" for name, outcome in zip(names, plans, strict=True))
    title = "Effect of single settings" + (f": {args.name}" if args.name != "choices" else "")
    write_section(args.name, title, body, packages=("torch", "numpy"))


if __name__ == "__main__":
    main()
