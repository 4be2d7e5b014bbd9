"""Accuracy of classifiers on rt-polarity, compared with scikit-learn and fastText, and their speed.

    python -m benchmarks.classify [accuracy] [speed] --data data

The split is fixed: in each of pos.txt and neg.txt, the lines 1, 11, 21 and so on are the test set, and all others are
the training set. With fewer labels, the training samples are drawn at random, half of each class, five times. The
language model is trained on the text of all training samples, without their labels. Peers with a missing package are
left out. The accuracy takes about ten minutes on two cores.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import charlm
from benchmarks.report import RESULTS, matrix_unit, table, write_section

Sample = tuple[str, str]
Predict = Callable[[Sequence[Sample], Sequence[str]], Sequence[str]]

SIZES = (50, 200, 1000)
DRAWS = 5
LANGUAGE_MODEL_MINUTES = 4
SPEED_WORDS, SPEED_LINES = 20, 20_000
PARTS = ("accuracy", "speed")


def read_samples(data: Path) -> tuple[list[Sample], list[Sample]]:
    """Return training samples in random order, and test samples."""
    train: list[Sample] = []
    test: list[Sample] = []
    for label in ("neg", "pos"):
        lines = (data / "rt-polarity" / f"{label}.txt").read_text(encoding="utf-8", errors="replace").splitlines()
        texts = [line.strip() for line in lines if line.strip()]
        for index, text in enumerate(texts):
            (train if index % 10 else test).append((label, text))
    random.Random(0).shuffle(train)
    return train, test


def draw_samples(train: Sequence[Sample], size: int, seed: int) -> list[Sample]:
    """Return a random selection with the same number of samples of each class."""
    rng = random.Random(seed)
    chosen = [
        sample
        for label in ("neg", "pos")
        for sample in rng.sample([one for one in train if one[0] == label], size // 2)
    ]
    rng.shuffle(chosen)
    return chosen


def naive_bayes(samples: Sequence[Sample], texts: Sequence[str]) -> Sequence[str]:
    """Classify with scikit-learn's multinomial naive Bayes on words and pairs of words."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+"), MultinomialNB())
    return list(pipeline.fit([text for _, text in samples], [label for label, _ in samples]).predict(texts))


def logistic_regression(samples: Sequence[Sample], texts: Sequence[str]) -> Sequence[str]:
    """Classify with scikit-learn's logistic regression on TF-IDF of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    return list(pipeline.fit([text for _, text in samples], [label for label, _ in samples]).predict(texts))


def fasttext(samples: Sequence[Sample], texts: Sequence[str]) -> Sequence[str]:
    """Classify with fastText on words and pairs of words."""
    import fasttext as peer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "train.txt")
        path.write_text("".join(f"__label__{label} {text}\n" for label, text in samples), encoding="utf-8")
        model = peer.train_supervised(str(path), wordNgrams=2, epoch=25, lr=0.5, thread=1, verbose=0)
    found = model.f.multilinePredict([f"{text}\n" for text in texts], 1, 0.0, "strict")[0]
    return [labels[0].removeprefix("__label__") for labels in found]


def with_charlm(pretrained: str | None = None) -> Predict:
    """Return a function that classifies with charlm."""

    def predict(samples: Sequence[Sample], texts: Sequence[str]) -> Sequence[str]:
        classifier = charlm.train_classifier(list(samples), name="run", force=True, pretrained=pretrained)
        return [prediction.label for prediction in classifier.predict(texts)]

    return predict


def train_language_model(train: Sequence[Sample], minutes: float) -> str:
    """Train a language model on the texts of the samples, and return its name."""
    Path("texts.txt").write_text("".join(f"{text}\n" for _, text in train), encoding="utf-8")
    charlm.train("texts.txt", name="lm", tokenizer="word", min_count=2, items="line", minutes=minutes)
    return "lm"


def find_methods(train: Sequence[Sample], minutes: float) -> dict[str, Predict]:
    """Return the methods by name, and train the language model that one of them needs."""
    methods: dict[str, Predict] = {
        "charlm": with_charlm(),
        "charlm --from": with_charlm(train_language_model(train, minutes)),
    }
    if find_spec("sklearn"):
        methods["naive Bayes"] = naive_bayes
        methods["logistic regression"] = logistic_regression
    if find_spec("fasttext"):
        methods["fastText"] = fasttext
    return methods


def measure(
    methods: dict[str, Predict], train: Sequence[Sample], test: Sequence[Sample]
) -> dict[str, dict[int, list[float]]]:
    """Return the accuracies of each method by the number of labels."""
    texts, truth = [text for _, text in test], np.array([label for label, _ in test])
    found: dict[str, dict[int, list[float]]] = {name: {} for name in methods}
    for size in (*SIZES, len(train)):
        draws = [draw_samples(train, size, seed) for seed in range(DRAWS)] if size < len(train) else [list(train)]
        for name, predict in methods.items():
            began = time.perf_counter()
            accuracies = [float((np.array(predict(samples, texts)) == truth).mean()) for samples in draws]
            found[name][size] = accuracies
            print(f"{size} {name}: {np.mean(accuracies):.2%}, {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return found


def measure_speed(train: Sequence[Sample]) -> tuple[float, float]:
    """Return sentences per second of a classifier with 1 x 256 units, and the time of one sentence, in seconds."""
    charlm.train_classifier(list(train[:500]), name="speed", force=True, hidden_size=256, epochs=1)
    words = " ".join(text for _, text in train).split()
    rng = random.Random(0)
    lines = "".join(" ".join(rng.choices(words, k=SPEED_WORDS)) + "\n" for _ in range(SPEED_LINES))
    command = [sys.executable, "-m", "charlm", "classify", "predict", "-m", "speed", "--format", "label"]
    seconds = []
    for text in ("a short sentence\n", lines) * 3:
        began = time.perf_counter()
        subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - began)
    start = min(seconds[::2])
    return SPEED_LINES / (min(seconds[1::2]) - start), start


def draw(found: dict[str, dict[int, list[float]]], path: Path) -> None:
    """Draw the learning curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, by_size in found.items():
        means = [100 * float(np.mean(values)) for values in by_size.values()]
        spreads = [100 * float(np.std(values)) for values in by_size.values()]
        axes.errorbar(list(by_size), means, yerr=spreads, marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="number of labels", ylabel="accuracy, %", title="rt-polarity")
    axes.legend()
    figure.savefig(path)


def cell(values: Sequence[float]) -> str:
    """Return mean and standard deviation in percent."""
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values):.1f}"


def report_speed(per_second: float, one: float) -> None:
    """Write the result file of the speed."""
    body = (
        f"`charlm classify predict` with 1 x 256 units in both directions classifies {per_second:,.0f} sentences of "
        f"{SPEED_WORDS} words per second. One sentence takes {one:.2f} seconds, including the start of Python. Best of "
        "three runs each."
    )
    write_section("classify-speed", "Speed of classifiers", body, packages=("numpy",))


def report(found: dict[str, dict[int, list[float]]], num_test: int, minutes: float) -> None:
    """Write the result file of the accuracy and the picture."""
    sizes = list(next(iter(found.values())))
    rows = [[name, *(cell(by_size[size]) for size in sizes)] for name, by_size in found.items()]
    peers = [name for name in found if not name.startswith("charlm")]
    body = (
        f"Accuracy in percent on {num_test:,} test sentences: the lines 1, 11, 21 and so on of both files. With fewer "
        f"labels than all, mean and standard deviation of {DRAWS} random draws. `charlm --from` starts with a word "
        f"model that was trained on the text of all training sentences, without labels, for {minutes:g} minutes.\n\n"
        + table(["method", *(f"{size:,} labels" for size in sizes)], rows)
    )
    if peers:
        best = {size: max(float(np.mean(found[name][size])) for name in peers) for size in sizes}
        gains = [
            f"{size:,} labels: charlm {100 * (np.mean(found['charlm'][size]) - best[size]):+.1f}, "
            f"with a language model {100 * (np.mean(found['charlm --from'][size]) - best[size]):+.1f}"
            for size in sizes
        ]
        body += f"\n\nDifference to the best other method, in points. {'; '.join(gains)}."
    picture = f"classify-{matrix_unit().lower()}.png"
    draw(found, RESULTS / picture)
    body += f"\n\n![Learning curves]({picture})"
    write_section("classify", "Classification of sentences", body, packages=("numpy", "torch", "scikit-learn"))


def main() -> None:
    """Measure accuracy and speed, and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", default=PARTS, help="accuracy, speed (default: both)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with rt-polarity/pos.txt and neg.txt")
    parser.add_argument("--minutes", type=float, default=LANGUAGE_MODEL_MINUTES, help="training of the language model")
    args = parser.parse_args()
    if not (args.data / "rt-polarity" / "pos.txt").is_file():
        sys.exit(f"{args.data / 'rt-polarity'} is missing: set --data")
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    train, test = read_samples(args.data)
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        speed = measure_speed(train) if "speed" in args.parts else None
        found = measure(find_methods(train, args.minutes), train, test) if "accuracy" in args.parts else None
        os.chdir(before)
    if speed is not None:
        report_speed(*speed)
    if found is not None:
        report(found, len(test), args.minutes)


if __name__ == "__main__":
    main()
