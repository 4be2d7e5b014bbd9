"""Loss and size of n-gram models without a network.

    python -m benchmarks.ngrams --data data

All n-grams of one order, in single precision, are compared with the models of `charlm train --cell ngram`: their order
is chosen on the validation text, rare n-grams are left out, and the rest is pruned to a size.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.report import table, write_section
from charlm.engine.kneser_ney import estimate
from charlm.engine.ngram import NGram
from charlm.engine.ngram_builder import Sequences, fit
from charlm.text.ids import Ids
from charlm.text.tokenizer import CharTokenizer, Tokenizer, WhitespaceTokenizer
from charlm.training import counting

FILES = ("tinyshakespeare.txt", "ptb/train.txt", "ptb/valid.txt", "ptb/test.txt")
"""Files that the benchmark reads."""

SIZES = (1, 2, 4, 8, 64)
"""Maximum sizes of the models in MB."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts to count and to measure on.

    Attributes:
        name: Description of the texts.
        tokenizer: Their tokenizer.
        train: Text to count.
        validation: Text on which the order is chosen.
        test: Text that is measured.
        orders: Orders of the models with all n-grams.
    """

    name: str
    tokenizer: Tokenizer
    train: Ids
    validation: Ids
    test: Ids
    orders: tuple[int, ...]

    @property
    def words(self) -> bool:
        """True if the tokens are words."""
        return self.tokenizer.kind == "word"


def main() -> None:
    """Measure all texts and write a result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with tinyshakespeare.txt and ptb/")
    args = parser.parse_args()
    if missing := [name for name in FILES if not (args.data / name).is_file()]:
        sys.exit(f"{args.data / missing[0]} is missing: set --data")
    parts = [part for task in tasks(args.data) for part in (f"## {task.name}", measure(task))]
    write_section(
        "ngrams",
        "N-gram models",
        "Loss in nats per token on the text that is named, and the perplexity for words. Times are processor seconds "
        "of one thread.\n\n" + "\n\n".join(parts) + "\n\nPublished perplexity of Penn Treebank's test text for "
        "Kneser-Ney 5-grams: 141.2 (Mikolov and Zweig 2012).",
    )


def tasks(data: Path) -> list[Task]:
    """Read and encode the texts."""
    tiny = (data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    cut = int(0.9 * len(tiny))
    words = [(data / "ptb" / f"{part}.txt").read_text(encoding="utf-8") for part in ("train", "valid", "test")]
    chars = ["".join(f"{line.strip()}\n" for line in text.splitlines()) for text in words]
    return [
        make_task("Tiny Shakespeare, characters, validation text", [tiny[:cut], *2 * [tiny[cut:]]], (6, 7, 8, 9)),
        make_task("Penn Treebank, characters, lines stripped, test text", chars, (6, 7, 8, 9)),
        make_task("Penn Treebank, words, test text", words, (2, 3, 4, 5), words=True),
    ]


def make_task(name: str, texts: list[str], orders: tuple[int, ...], *, words: bool = False) -> Task:
    """Return the task of a training text, a validation text and a test text."""
    tokenizer: Tokenizer = WhitespaceTokenizer.from_text(texts[:1]) if words else CharTokenizer.from_text(texts[0])
    train, validation, test = (tokenizer.encode("\n" + text) for text in texts)
    return Task(name=name, tokenizer=tokenizer, train=train, validation=validation, test=test, orders=orders)


def measure(task: Task) -> str:
    """Return the table of a task."""
    rows, vocab_size = [], task.tokenizer.vocab_size
    for order in task.orders:
        began = time.process_time()
        model = estimate(task.train, order=order, vocab_size=vocab_size)
        rows.append(row(f"all, order {order}", task, model, time.process_time() - began))
    for size in SIZES:
        began = time.process_time()
        fitted = fit(
            Sequences(ids=task.train),
            vocab_size,
            max_order=counting.MAX_WORD_ORDER if task.words else counting.MAX_CHAR_ORDER,
            max_bytes=size * counting.MEGABYTE,
            repeated_order=counting.REPEATED_WORDS if task.words else counting.REPEATED_CHARS,
            validation=Sequences(ids=task.validation[: counting.ORDER_TOKENS]),
        )
        label = f"charlm, up to {size} MB, order {fitted.model.order}"
        rows.append(row(label, task, fitted.model, time.process_time() - began))
    header = ["n-grams", "number", "MB", "nats per token", *(["perplexity"] if task.words else []), "seconds"]
    return table(header, rows)


def row(label: str, task: Task, model: NGram, seconds: float) -> list[str]:
    """Return the row of a model."""
    nats = float(model.nats(task.test)[1:].mean(dtype=np.float64))
    perplexity = [f"{math.exp(nats):.2f}"] if task.words else []
    return [
        label,
        f"{model.num_ngrams:,}",
        f"{model.num_bytes / 1e6:.1f}",
        f"{nats:.4f}",
        *perplexity,
        f"{seconds:.1f}",
    ]


if __name__ == "__main__":
    main()
