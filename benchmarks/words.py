"""Measures what words cost: cutting them, a softmax over many of them, and words against characters.

The parts: `tokenizer` (charlm's and the library tokenizers', if it is installed, by the same rule), `softmax` (full
and sampled, for 10,000 to 200,000 words), `loss` (what the sampled one loses), `shakespeare` (words and characters at
equal training time), and only if asked for, `treebank` (the perplexity to compare with the published ones).
"""

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import found_by_children
from benchmarks.report import table, write_section
from charlm.text.tokenizer import WhitespaceTokenizer, WordTokenizer
from charlm.training.recipe import SOFTMAX_SAMPLES, WORD_BATCH_SIZE, WORD_SEQ_LEN

ROUNDS = 5


def best_seconds(work: Callable[..., object], *arguments: object, rounds: int = ROUNDS) -> float:
    """The shortest of some runs: the one that was disturbed least."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work(*arguments)
        times.append(time.perf_counter() - began)
    return min(times)


def tokenizer(options: argparse.Namespace) -> None:
    """MB a second of building a vocabulary, encoding and decoding."""
    texts = {
        "words, tiny Shakespeare x 4": (options.data / "tinyshakespeare.txt").read_text(encoding="utf-8") * 4,
        "white space, Penn Treebank": (options.data / "ptb" / "train.txt").read_text(encoding="utf-8"),
    }
    rows = []
    for (name, text), words in zip(texts.items(), (WordTokenizer, WhitespaceTokenizer), strict=True):
        known = words.from_text([text])
        ids = known.encode(text)
        assert words is WhitespaceTokenizer or known.decode(ids) == text
        steps = ((words.from_text, [text]), (known.encode, text), (known.decode, ids))
        seconds = [best_seconds(work, argument) for work, argument in steps]
        rows.append([f"charlm, {name}", *(f"{len(text) / 1e6 / spent:.1f}" for spent in seconds)])
    rows += library_rows(texts)
    write_section(
        "words-tokenizer",
        "Cutting text into words",
        "MB a second, the best of some runs, one thread.\n\n"
        + table(["", "vocabulary", "encode", "decode"], rows)
        + "\n\n`tokenizers` cuts by nearly the same regular expression, a line at a time, and looks up whole words; it "
        "keeps no white space but line ends, and so does less.",
        packages=["numpy", "tokenizers"],
    )


def library_rows(texts: dict[str, str]) -> list[list[str]]:
    """The same with the library tokenizers: empty if it is not installed."""
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    except ImportError:
        print("the library tokenizers is not installed: only charlm is measured", file=sys.stderr)
        return []
    pieces = Regex(r"\d+(?:[.,]\d+)+|['\u2019](?:s|t|re|ve|m|ll|d)(?!\w)|\w+|[^\w\s]+|\n")
    cuts = (pre_tokenizers.Split(pieces, "removed", invert=True), pre_tokenizers.WhitespaceSplit())
    rows = []
    for (name, text), cut in zip(texts.items(), cuts, strict=True):
        library = Tokenizer(models.WordLevel(unk_token="<unk>"))
        library.pre_tokenizer = cut
        lines = text.splitlines(keepends=True)
        trainer = trainers.WordLevelTrainer(special_tokens=["<unk>"], vocab_size=10**6, show_progress=False)
        built = best_seconds(library.train_from_iterator, lines, trainer, rounds=1)
        encoded = best_seconds(library.encode_batch_fast, lines, rounds=2)
        rows.append([f"tokenizers, {name}", f"{len(text) / 1e6 / built:.1f}", f"{len(text) / 1e6 / encoded:.1f}", "-"])
    return rows


def softmax(options: argparse.Namespace) -> None:
    """Tokens learnt a second with the whole softmax and with the sampled one."""
    rows = []
    for vocab_size in (10_000, 50_000, 200_000):
        speeds = learning_speeds(vocab_size, (0, SOFTMAX_SAMPLES // 4, SOFTMAX_SAMPLES))
        ratios = [f"{speed:,.0f} ({speed / speeds[0]:.1f} x)" for speed in speeds[1:]]
        rows.append([f"{vocab_size:,}", f"{speeds[0]:,.0f}", *ratios])
    header = ["words", "all words", f"{SOFTMAX_SAMPLES // 4:,} drawn", f"{SOFTMAX_SAMPLES:,} drawn"]
    write_section(
        "words-softmax",
        "Learning with large vocabularies",
        "Tokens learnt a second, the best of three updates: 2 x 400 units, tied, 20 streams of 35, forward, backward "
        "and AdamW, in the arithmetic that `--precision auto` takes.\n\n" + table(header, rows),
        packages=["torch"],
    )


def learning_speeds(vocab_size: int, samples: Sequence[int]) -> list[float]:
    """Tokens learnt a second with so many words, for each number of words drawn."""
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
    ranks = torch.rand(2, config.batch_size, config.seq_len) * math.log(vocab_size)  # as Zipf has it
    inputs, targets = ranks.exp().long().clamp(0, vocab_size - 1)
    state = model.core.zero_state(config.batch_size)

    def update(samples: int) -> None:
        with mixed_precision(precision, cpu):
            loss, _ = model.loss(inputs, targets, state, samples=samples)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    update(1)
    return [inputs.numel() / best_seconds(update, count, rounds=3) for count in samples]


def train(arguments: list[str]) -> None:
    """Run `charlm train`."""
    subprocess.run([sys.executable, "-m", "charlm", "train", *arguments], check=True)


def total(name: str, text: Path) -> dict[str, float]:
    """What `charlm score --total` says of a run."""
    command = [sys.executable, "-m", "charlm", "score", "-m", name, "--total", "--json", str(text)]
    figures: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return figures


def loss(options: argparse.Namespace) -> None:
    """The validation loss after as many updates, and after as much time, with the sampled softmax."""
    text, held_out = (str(options.data.resolve() / "ptb" / f"{part}.txt") for part in ("train", "valid"))
    cut = ["--tokenizer", "word", "--split", "whitespace", "--validation", held_out, "--steps", str(options.steps)]
    rows = []
    for samples in (0, 2048, 8192):
        name = f"samples-{samples}"
        began = time.perf_counter()
        train([text, *cut, "--softmax-samples", str(samples), "--name", name, "-q"])
        seconds = time.perf_counter() - began
        rows.append(
            [f"{samples:,}" if samples else "all", f"{total(name, Path(held_out))['perplexity']:.1f}", f"{seconds:.0f}"]
        )
    write_section(
        "words-loss",
        "What a sampled softmax loses",
        f"Penn Treebank, {options.steps:,} updates of the default word model, then the perplexity of the validation "
        "text with the whole softmax.\n\n" + table(["words drawn", "perplexity", "seconds"], rows),
        packages=["torch"],
    )


def shakespeare(options: argparse.Namespace) -> None:
    """Words and characters at equal training time, on the same validation text."""
    text = (options.data / "tinyshakespeare.txt").read_text(encoding="utf-8")
    cut = text.index("\n", int(0.9 * len(text))) + 1
    Path("train.txt").write_text(text[:cut], encoding="utf-8")
    Path("valid.txt").write_text(text[cut:], encoding="utf-8")
    rows = []
    spelling = 0.0
    for name in ("char", "word"):
        budget = ["--minutes", str(options.minutes), "--name", name, "-q"]
        train(["train.txt", "--validation", "valid.txt", "--tokenizer", name, *budget])
        figures = total(name, Path("valid.txt"))
        bits = figures["bits_per_char"]
        spelling = spelling or bits
        spelt = bits + spelling * unknown_chars(name, text[cut:]) / len(text[cut:])
        unknown = f"{figures['unknown_tokens'] / figures['tokens']:.1%}"
        perplexity = f"{figures['perplexity']:.2f}"
        rows.append([name, f"{figures['tokens']:,}", perplexity, unknown, f"{bits:.3f}", f"{spelt:.3f}"])
    header = ["tokens are", "tokens", "perplexity a token", "unknown", "bits/char", "unknown words spelt"]
    write_section(
        "words-shakespeare",
        "Words against characters",
        f"Tiny Shakespeare, {options.minutes:g} minutes of training each, default settings; the last 10 %, from "
        "a line's beginning on, for validation. In the last column each unknown word of the word model costs what it "
        "gives its unknown token, and besides its letters at what the character model gives a character: a model of "
        "words alone gets the unknown ones too cheaply.\n\n" + table(header, rows),
        packages=["torch"],
    )


def treebank(options: argparse.Namespace) -> None:
    """The perplexity of Penn Treebank's test text; the text is never looked at but here."""
    parts = {part: options.data / "ptb" / f"{part}.txt" for part in ("train", "valid", "test")}
    cut = ["--tokenizer", "word", "--split", "whitespace", "--validation", str(parts["valid"])]
    budget = ["--minutes", str(options.treebank_minutes), "--name", "ptb"]
    train([str(parts["train"]), *cut, *budget])
    rows = [[part, f"{total('ptb', parts[part])['perplexity']:.2f}"] for part in ("valid", "test")]
    command = "charlm train train.txt --validation valid.txt --tokenizer word --split whitespace"
    write_section(
        "words-treebank",
        "Penn Treebank by the word",
        f"`{command} --minutes {options.treebank_minutes:g}`, then `charlm score --total`:\n\n"
        + table(["text", "perplexity a word"], rows)
        + "\n\nPublished, on the test text: 114.5 for Zaremba's small LSTM, 13 epochs (arXiv 1409.2329), 57.3 for "
        "AWD-LSTM, hundreds of epochs (arXiv 1708.02182).",
        packages=["torch"],
    )


def unknown_chars(name: str, text: str) -> int:
    """The letters of the words in a text that a run's vocabulary lacks, each time they come."""
    from charlm.engine.checkpoint import load_checkpoint
    from charlm.engine.runs import find_model
    from charlm.text.words import PIECES

    unknown = set(load_checkpoint(find_model(name)).tokenizer.unknown_in(text))
    return sum(len(piece.group()) for piece in PIECES.finditer(text) if piece.group() in unknown)


PARTS = {"tokenizer": tokenizer, "softmax": softmax, "loss": loss, "shakespeare": shakespeare}
LONG_PARTS = {"treebank": treebank}
"""Run only if asked for."""


def main() -> None:
    """Run the parts that are asked for, each with its section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS | LONG_PARTS), help="default: all but treebank")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training on tiny Shakespeare")
    parser.add_argument("--steps", type=int, default=1000, help="of each training on Penn Treebank")
    parser.add_argument("--treebank-minutes", type=float, default=5.0, help="of the training for the test perplexity")
    options = parser.parse_args()
    if unknown := set(options.parts) - (PARTS | LONG_PARTS).keys():
        parser.error(f"no part {', '.join(unknown)}")
    for needed in ("tinyshakespeare.txt", "ptb/train.txt", "ptb/valid.txt", "ptb/test.txt"):
        if not (options.data / needed).is_file():
            sys.exit(f"{options.data / needed} is missing: give the folder of the data with --data")
    options.data = options.data.resolve()
    found_by_children()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for part in options.parts or PARTS:
            (PARTS | LONG_PARTS)[part](options)


if __name__ == "__main__":
    main()
