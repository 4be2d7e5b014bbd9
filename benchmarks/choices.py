"""What the choices of a training are worth: each is made otherwise in turn, on several texts and with several seeds.

    python -m benchmarks.choices --texts ptb.txt russian.txt python.txt --tokens 2e6

All trainings of a text learn as many tokens, so that neither the clock nor what else runs decides; what a choice does
to the speed is not in these figures.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import found_by_children
from benchmarks.report import mean_and_range, table, write_section
from charlm.config import ModelConfig, TrainConfig, from_dict
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.runs import Run

HEAD = """\
Nats a character on the last tenth of {what}, read as one stream, after learning from
{tokens:,.0f} characters: in the first row of the model that `charlm train` plans{shape}, below it how much more it is
with one choice made otherwise, so that a choice above zero is a worse one. Means over {seeds} seeds; in brackets the
least and the greatest difference between two trainings of the same seed. Where streams or their tokens change, the
learning rate does not.

"""

Options = Mapping[str, float | None]
"""Options of `charlm train` and their values; a flag has none."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a training: its loss in nats a character, and how it was planned."""

    nats: float
    model: ModelConfig
    train: TrainConfig

    @property
    def plan(self) -> str:
        """The plan in words."""
        model, train = self.model, self.train
        dropped = f"dropout {model.dropout:g}, DropConnect {model.recurrent_dropout:g}"
        shape = f"{model.num_layers} x {model.hidden_size}{', skip connections' * model.skip_connections}"
        learnt = f"rate {train.learning_rate:.2g}, decay {train.weight_decay:g}"
        return f"{shape}, {dropped}, {learnt}, {train.batch_size} x {train.seq_len} tokens"


def other_choices(planned: Outcome) -> dict[str, Options]:
    """The choices that differ from a plan, by name: the options that make them."""
    model, train = planned.model, planned.train
    choices: dict[str, Options] = {
        f"{times:g} times the learning rate": {"--lr": times * train.learning_rate} for times in (0.5, 1.5)
    }
    choices["a warm-up of a fiftieth"] = {"--warmup": 0.02}
    for times in (0, 0.5, 2):
        name = f"{times:g} times the weight decay" if times else "no weight decay"
        choices[name] = {"--weight-decay": times * train.weight_decay}
    choices["states never set to zero"] = {"--reset-prob": 0}
    for times in (0.5, 2):
        choices[f"{times:g} times the streams"] = {"--batch-size": round(times * train.batch_size)}
        choices[f"{times:g} times the tokens of each"] = {"--seq-len": round(times * train.seq_len)}
    for times in (0, 0.5, 1.5) if model.dropout else ():
        shares = {"--dropout": times * model.dropout, "--dropconnect": times * model.recurrent_dropout}
        choices[f"{times:g} times the dropout" if times else "no dropout"] = shares
    if model.skip_connections:
        choices["no skip connections"] = {"--no-skip": None}
    return choices


def trained(text: Path, epochs: float, seed: int, options: Options) -> Outcome:
    """Read a text so many times, with some options more."""
    given = {"--epochs": epochs, "--seed": seed, **options}
    command = [sys.executable, "-m", "charlm", "train", str(text.resolve()), "--name", "it", "--quiet"]
    for name, value in given.items():
        command += [name] if value is None else [name, f"{value:g}"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        run = Run(Path(folder, "checkpoints", "it"))
        checkpoint = load_checkpoint(run.model)
        train = from_dict(TrainConfig, checkpoint.metadata["training"])
        return Outcome(nats=run.read_log()[-1]["val_nats"], model=checkpoint.config, train=train)


def difference(others: Sequence[Outcome], planned: Sequence[Outcome]) -> str:
    """How much more trainings cost than those of the same seeds, in nats a character."""
    more = [other.nats - plan.nats for other, plan in zip(others, planned, strict=True)]
    return mean_and_range(more, "+.3f")


def measured(texts: Sequence[Path], given: argparse.Namespace) -> tuple[list[Outcome], dict[str, list[str]]]:
    """Train all, one after the other: what was planned for each text, and the rows of the table by their names."""
    plans, rows = [], {"as planned": ["-"] * len(texts)}
    shape: Options = dict(zip(("--layers", "--hidden"), given.shape, strict=True)) if given.shape else {}
    for column, text in enumerate(texts):
        epochs = given.tokens / ((1 - TrainConfig.val_fraction) * len(text.read_text(encoding="utf-8")))

        def of_all_seeds(options: Options, text: Path = text, epochs: float = epochs) -> list[Outcome]:
            return [trained(text, epochs, seed, {**shape, **options}) for seed in range(1, given.seeds + 1)]

        planned = of_all_seeds({})
        plans.append(planned[0])
        rows["as planned"][column] = mean_and_range([outcome.nats for outcome in planned], ".3f")
        print(text.name, planned[0].plan, rows["as planned"][column], sep=": ", file=sys.stderr)
        for name, options in other_choices(planned[0]).items():
            if not given.only or any(word in name for word in given.only):
                row = rows.setdefault(name, ["-"] * len(texts))
                row[column] = difference(of_all_seeds(options), planned)
                print(text.name, name, row[column], sep=": ", file=sys.stderr)
    return plans, rows


def shortened(text: Path, length: int | None, folder: Path) -> Path:
    """The first characters of a text, in a file of the same name in a folder."""
    if length is None:
        return text
    short = folder / text.name
    short.write_text(text.read_text(encoding="utf-8")[:length], encoding="utf-8")
    return short


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="texts to learn")
    parser.add_argument("--tokens", type=float, default=2e6, help="characters to learn from")
    parser.add_argument("--length", type=int, help="take so many characters from the beginning of each text")
    parser.add_argument("--shape", type=int, nargs=2, metavar=("LAYERS", "UNITS"), help="instead of the planned one")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="choices whose names have one of these words")
    parser.add_argument("--name", default="choices", help="of the file of results")
    return parser.parse_args()


def main() -> None:
    """Train, print the table and write it."""
    given = options()
    for text in given.texts:
        if not text.is_file():
            sys.exit(f"{text} is missing")
    found_by_children()
    with tempfile.TemporaryDirectory() as folder:
        plans, rows = measured([shortened(text, given.length, Path(folder)) for text in given.texts], given)
    what = f"the first {given.length:,} characters of each text" if given.length else "each text"
    shape = " for {} x {} units".format(*given.shape) if given.shape else ""
    body = HEAD.format(what=what, shape=shape, tokens=given.tokens, seeds=given.seeds)
    names = [text.stem for text in given.texts]
    body += table(["", *names], [[name, *row] for name, row in rows.items()]) + "\n\nPlanned:\n\n"
    body += "\n".join(f"- {name}: {outcome.plan}" for name, outcome in zip(names, plans, strict=True))
    title = "What each choice is worth" + (f": {given.name}" if given.name != "choices" else "")
    write_section(given.name, title, body, packages=("torch", "numpy"))


if __name__ == "__main__":
    main()
