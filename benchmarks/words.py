"""Speed and loss of word-level models.

    python -m benchmarks.words [tokenizer] [softmax] [loss] [shakespeare] [treebank] --data data

The parts:
    tokenizer: speed of splitting text into words, compared with the library tokenizers if it is installed
    softmax: training speed with the full and with the sampled softmax, for 10,000 to 200,000 words
    loss: loss that a sampled softmax costs
    shakespeare: word and character models after equal training time
    treebank: test perplexity on Penn Treebank, to compare with published ones; runs only if it is named
"""

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import add_project_to_pythonpath
from benchmarks.report import table, write_section
from benchmarks.timing import best_seconds
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.runs import find_model
from charlm.text.tokenizer import WhitespaceTokenizer, WordTokenizer
from charlm.training.recipe import WORD_BATCH_SIZE, WORD_SEQ_LEN

ROUNDS = 5
"""Number of times that work is timed. The best time counts."""


def tokenizer(args: argparse.Namespace) -> None:
    """Measure the speed of building a vocabulary, encoding and decoding."""
    texts = {
        "words, tiny Shakespeare x 4": (args.data / "tinyshakespeare.txt").read_text(encoding="utf-8") * 4,
        "whitespace, Penn Treebank": (args.data / "ptb" / "train.txt").read_text(encoding="utf-8"),
    }
    rows = []
    for (name, text), kind in zip(texts.items(), (WordTokenizer, WhitespaceTokenizer), strict=True):
        words = kind.from_text([text])
        ids = words.encode(text)
        assert kind is WhitespaceTokenizer or words.decode(ids) == text
        steps = (partial(kind.from_text, [text]), partial(words.encode, text), partial(words.decode, ids))
        seconds = [best_seconds(work, ROUNDS) for work in steps]
        rows.append([f"charlm, {name}", *(f"{len(text) / 1e6 / spent:.1f}" for spent in seconds)])
    rows += library_rows(texts)
    write_section(
        "words-tokenizer",
        "Splitting text into words",
        "MB per second, best of several runs, one thread.\n\n"
        + table(["", "vocabulary", "encode", "decode"], rows)
        + "\n\n`tokenizers` splits with nearly the same regular expression, line by line, and looks up whole words. It "
        "keeps no whitespace except newlines, so it does less work.",
        packages=["numpy", "tokenizers"],
    )


def library_rows(texts: dict[str, str]) -> list[list[str]]:
    """Measure the library tokenizers on the same texts. Return no rows if it is not installed."""
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ImportError:
        print("the library tokenizers is not installed, so only charlm is measured", file=sys.stderr)
        return []
    pieces = Regex(r"\d+(?:[.,]\d+)+|['\u2019](?:s|t|re|ve|m|ll|d)(?!\w)|\w+|[^\w\s]+|\n")
    splitters = (pre_tokenizers.Split(pieces, "removed", invert=True), pre_tokenizers.WhitespaceSplit())
    rows = []
    for (name, text), splitter in zip(texts.items(), splitters, strict=True):
        library = Tokenizer(models.WordLevel(unk_token="<unk>"))
        library.pre_tokenizer = splitter
        lines = text.splitlines(keepends=True)
        trainer = trainers.WordLevelTrainer(special_tokens=["<unk>"], vocab_size=10**6, show_progress=False)
        built = best_seconds(partial(library.train_from_iterator, lines, trainer), 1)
        encoded = best_seconds(partial(library.encode_batch_fast, lines), 2)
        rows.append([f"tokenizers, {name}", f"{len(text) / 1e6 / built:.1f}", f"{len(text) / 1e6 / encoded:.1f}", "-"])
    return rows


def softmax(args: argparse.Namespace) -> None:
    """Measure the training speed with the full and with the sampled softmax."""
    rows = []
    for vocab_size in (10_000, 50_000, 200_000):
        speeds = learning_speeds(vocab_size, (0, vocab_size // 10, vocab_size // 5))
        ratios = [f"{speed:,.0f} ({speed / speeds[0]:.1f} x)" for speed in speeds[1:]]
        rows.append([f"{vocab_size:,}", f"{speeds[0]:,.0f}", *ratios])
    header = ["vocabulary", "full softmax", "a tenth of the words", "a fifth of the words"]
    write_section(
        "words-softmax",
        "Training with large vocabularies",
        "Tokens per second, best of three updates (forward, backward and AdamW): LSTM of 2 x 400 units, tied weights, "
        "20 streams of 35 tokens, with the number format that `--precision auto` chooses. In brackets: ratio to the "
        "full softmax.\n\n" + table(header, rows),
        packages=["torch"],
    )


def learning_speeds(vocab_size: int, samples: Sequence[int]) -> list[float]:
    """Return the training speed in tokens per second for a vocabulary size and each number of sampled words."""
    import torch

    from charlm.config import ModelConfig, TrainConfig
    from charlm.training.network import LanguageModel
    from charlm.training.throughput import Machine, mixed_precision

    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    shape = ModelConfig(vocab_size=vocab_size, num_layers=2, hidden_size=400, embedding_dim=400, tie_weights=True)
    model = LanguageModel(shape)
    config = TrainConfig(batch_size=WORD_BATCH_SIZE, seq_len=WORD_SEQ_LEN, steps=1)
    cpu = torch.device("cpu")
    precision = Machine().measure_throughput(shape, config).precision
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ranks = torch.rand(2, config.batch_size, config.seq_len) * math.log(vocab_size)  # Zipf's law
    inputs, targets = ranks.exp().long().clamp(0, vocab_size - 1)
    state = model.core.zero_state(config.batch_size)

    def update(samples: int) -> None:
        with mixed_precision(precision, cpu):
            loss, _ = model.loss(inputs, targets, state, samples=samples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    update(1)
    return [inputs.numel() / best_seconds(partial(update, count), 3) for count in samples]


def train(arguments: list[str]) -> None:
    """Run `charlm train`."""
    subprocess.run([sys.executable, "-m", "charlm", "train", *arguments], check=True)


def score_total(name: str, text: Path, *options: str) -> dict[str, float]:
    """Return the figures of `charlm score --total` for a run and a text, with further options."""
    command = [sys.executable, "-m", "charlm", "score", "-m", name, "--total", "--json", *options, str(text)]
    figures: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures


def loss(args: argparse.Namespace) -> None:
    """Measure the validation perplexity after the same number of updates with full and with sampled softmax."""
    text, held_out = (str(args.data.resolve() / "ptb" / f"{part}.txt") for part in ("train", "valid"))
    options = ["--tokenizer", "word", "--split", "whitespace", "--validation", held_out, "--steps", str(args.steps)]
    rows = []
    for samples in (0, 1000, 2000, 4000):
        name = f"samples-{samples}"
        start = time.perf_counter()
        train([text, *options, "--softmax-samples", str(samples), "--name", name, "-q"])
        seconds = time.perf_counter() - start
        perplexity = score_total(name, Path(held_out))["perplexity"]
        rows.append([f"{samples:,}" if samples else "all words", f"{perplexity:.1f}", f"{seconds:.0f}"])
    write_section(
        "words-loss",
        "Loss with a sampled softmax",
        f"Penn Treebank, {args.steps:,} updates of the default word model; then the perplexity per token of the "
        "validation text with the full softmax.\n\n" + table(["sampled words", "perplexity", "seconds"], rows),
        packages=["torch"],
    )


def shakespeare(args: argparse.Namespace) -> None:
    """Compare word and character models after equal training time, on the same validation text."""
    text = (args.data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    cut = text.index("\n", int(0.9 * len(text))) + 1
    Path("train.txt").write_text(text[:cut], encoding="utf-8")
    Path("valid.txt").write_text(text[cut:], encoding="utf-8")
    rows = []
    for name in ("char", "word"):
        budget = ["--minutes", str(args.minutes), "--name", name, "-q"]
        train(["train.txt", "--validation", "valid.txt", "--tokenizer", name, *budget])
        figures = score_total(name, Path("valid.txt"))
        bits = figures["bits_per_char"]
        plain = figures["bits_per_token"] * figures["tokens"] / figures["characters"]
        unknown = f"{figures['unknown_tokens'] / figures['tokens']:.1%}"
        perplexity = f"{figures['perplexity']:.2f}"
        rows.append([name, f"{figures['tokens']:,}", perplexity, unknown, f"{bits:.3f}", f"{plain:.3f}"])
    header = ["tokenizer", "tokens", "perplexity per token", "unknown", "bits per character", "without spelling"]
    write_section(
        "words-shakespeare",
        "Words and characters",
        f"Tiny Shakespeare, {args.minutes:g} minutes of training each, default settings. The validation text is the "
        "last 10 %, from the start of a line. An unknown word costs what the word model assigns to its unknown token, "
        "and its spelling, by the character n-gram model in the model file. Without the spelling, in the last column, "
        "unknown words are too cheap, and the models do not compare.\n\n" + table(header, rows),
        packages=["torch"],
    )


def treebank(args: argparse.Namespace) -> None:
    """Measure the perplexity of Penn Treebank's test text. No other benchmark of networks of words reads this text."""
    parts = {part: args.data / "ptb" / f"{part}.txt" for part in ("train", "valid", "test")}
    options = ["--tokenizer", "word", "--split", "whitespace", "--validation", str(parts["valid"])]
    rows = []
    for minutes in args.treebank_minutes:
        name = f"ptb-{minutes:g}"
        train([str(parts["train"]), *options, "--minutes", str(minutes), "--name", name])
        metrics = load_checkpoint(find_model(name)).metadata["metrics"]
        perplexities = [
            *(math.exp(metrics[key]) for key in ("val_nats_network", "val_nats_ngram")),
            *(score_total(name, parts[part])["perplexity"] for part in ("valid", "test")),
            score_total(name, parts["test"], "--adapt")["adaptive_perplexity"],
        ]
        rows.append([f"{minutes:g}", *(f"{perplexity:.2f}" for perplexity in perplexities)])
    command = "charlm train train.txt --validation valid.txt --tokenizer word --split whitespace"
    header = ["minutes", "network alone, valid", "n-grams alone, valid", "both, valid", "both, test", "`--adapt`, test"]
    write_section(
        "words-treebank",
        "Penn Treebank with words",
        f"Perplexity per word after `{command} --minutes M`, by `charlm score --total`:\n\n"
        + table(header, rows)
        + "\n\n`--adapt` is dynamic evaluation: compare it with no other column. Published perplexities of the test "
        + "text: 141.2 for a Kneser-Ney 5-gram model (Mikolov et al., Interspeech 2011), 114.5 for Zaremba's small "
        + "LSTM after 13 epochs (arXiv 1409.2329), 57.3 for AWD-LSTM after hundreds of epochs (arXiv 1708.02182).",
        packages=["torch"],
    )


PARTS = {"tokenizer": tokenizer, "softmax": softmax, "loss": loss, "shakespeare": shakespeare}
EXTRA_PARTS = {"treebank": treebank}
"""Parts that run only if they are named."""


def main() -> None:
    """Run the parts that were asked for. Each writes a result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts to run (default: all except treebank)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with tinyshakespeare.txt and ptb/")
    parser.add_argument("--minutes", type=float, default=2.0, help="training time of each model in `shakespeare`")
    parser.add_argument("--steps", type=int, default=1000, help="updates of each training in `loss`")
    times = [2.0, 5.0]
    parser.add_argument("--treebank-minutes", type=float, nargs="+", default=times, help="training times in `treebank`")
    args = parser.parse_args()
    if unknown := set(args.parts) - (PARTS | EXTRA_PARTS).keys():
        parser.error(f"no part {', '.join(unknown)}; the parts are {', '.join(PARTS | EXTRA_PARTS)}")
    for needed in ("tinyshakespeare.txt", "ptb/train.txt", "ptb/valid.txt", "ptb/test.txt"):
        if not (args.data / needed).is_file():
            sys.exit(f"{args.data / needed} is missing: set --data")
    args.data = args.data.resolve()
    add_project_to_pythonpath()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for part in args.parts or PARTS:
            (PARTS | EXTRA_PARTS)[part](args)


if __name__ == "__main__":
    main()
