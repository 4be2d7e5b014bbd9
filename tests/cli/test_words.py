import json
import math
import signal
from pathlib import Path

import click.testing
import numpy as np
import pytest
import torch

import charlm
from charlm.cli import main
from charlm.engine.checkpoint import load_checkpoint
from charlm.text.tokenizer import WordTokenizer
from tests.conftest import VERSE

SMALL = ["--steps", "6", "--hidden", "8", "--batch-size", "2", "--seq-len", "8"]
WORDS = ["--tokenizer", "word", *SMALL]


def run(*arguments: object, stdin: str = "", code: int = 0) -> click.testing.Result:
    """Run the command line in this process, and undo what training changes in it."""
    done = click.testing.CliRunner().invoke(main, list(map(str, arguments)), input=stdin)
    torch.set_flush_denormal(False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def play() -> Path:
    path = Path("play.txt")
    path.write_text(VERSE * 8, encoding="utf-8")
    return path


@pytest.fixture
def vectors() -> Path:
    path = Path("vectors.txt")
    path.write_text("to 1 2 3 4\nbe 4 3 2 1\nof 0.5 0.5 0.5 0\nking 1 2 3 3\n", encoding="utf-8")
    return path


def test_a_word_model_is_trained_sampled_and_scored(play: Path) -> None:
    done = run("train", play, "--name", "words", *WORDS)
    assert done.stdout == "checkpoints/words/model.safetensors\n"
    assert "perplexity" in done.stderr
    assert "bits/char" in done.stderr
    text = run("sample", "-n", 40, "--prime", "To be, or not", "--seed", 1).stdout
    assert text.startswith("To be, or not")
    assert "<unk>" not in text
    figures = json.loads(run("score", "--total", play, "--json").stdout)
    tokenizer = load_checkpoint(Path("checkpoints/words/model.safetensors")).tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    assert figures["tokens"] == len(tokenizer.encode(VERSE * 8))
    assert figures["characters"] == len(VERSE) * 8


def samples(prompt: str, *options: object) -> list[str]:
    """Return the continuations of a prompt, read from stdin."""
    lines = run("sample", "--json", "--prime", "-", *options, stdin=f"{prompt}\n").stdout.splitlines()
    assert all(json.loads(line)["prompt"] == prompt for line in lines)
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("split", ["words", "whitespace"])
def test_a_final_space_of_a_prompt_is_implied_by_the_next_word(play: Path, split: str) -> None:
    run("train", play, "--name", "words", *WORDS, "--split", split)
    for options in (["--count", 4, "--seed", 3], ["--greedy"], ["--beam", 3, "--count", 2]):
        plain, spaced = (samples(prompt, "-n", 6, *options) for prompt in ("To be or", "To be or "))
        assert spaced == [text.removeprefix(" ") for text in plain]
    plain, spaced = (run("sample", "-n", 8, "--seed", 2, "--prime", text).stdout for text in ("To be", "To be "))
    assert spaced == "To be " + plain.removeprefix("To be").removeprefix(" ")
    assert run("sample", "-i", "-n", 8, "--seed", 2, stdin="To be \n").stdout == spaced
    assert run("next", "--prime", "To be ").stdout == run("next", "--prime", "To be").stdout
    model = charlm.load("words")
    assert spaced.startswith("To be " + model.generate("To be ", length=8, seed=2))
    assert model.next_tokens("To be ") == model.next_tokens("To be")


def test_perplexity_and_bits_per_char_are_those_of_the_validation_text(play: Path) -> None:
    held_out = Path("held-out.txt")
    held_out.write_text("To be, and   to sleep:\nNo more outrageous xyzzy fortune.\n", encoding="utf-8")
    run("train", play, "--validation", held_out, "--name", "words", *WORDS)
    log = [json.loads(line) for line in Path("checkpoints/words/log.jsonl").read_text("utf-8").splitlines()]
    figures = next(entry for entry in log if entry["val_nats"] is not None)
    checkpoint = load_checkpoint(Path("checkpoints/words/model.safetensors"))
    text = held_out.read_text("utf-8")
    chars_per_token = len(text) / len(checkpoint.tokenizer.encode(text))
    assert figures["val_perplexity"] == pytest.approx(math.exp(figures["val_nats"]))
    assert checkpoint.spelling is not None
    spelling_nats = float(checkpoint.spelling.nats(["xyzzy"])[0]) / len(text)
    expected = (figures["val_nats"] / chars_per_token + spelling_nats) / math.log(2)
    assert figures["val_bits_per_char"] == pytest.approx(expected)
    scored = json.loads(run("score", "--total", held_out, "--json").stdout)
    best = checkpoint.metadata["metrics"]
    assert scored["perplexity"] == pytest.approx(best["val_perplexity"], rel=1e-3)
    assert scored["bits_per_char"] == pytest.approx(best["val_bits_per_char"], rel=1e-3)
    assert f"{best['val_perplexity']:,.5g}" in run("info").stdout


def bits_of_lines(*lines: str) -> list[float]:
    """Return the bits per character of lines by the newest model."""
    rows = run("score", stdin="".join(f"{line}\n" for line in lines)).stdout.splitlines()
    return [float(row.split("\t")[0]) for row in rows]


def test_meaningless_text_is_less_probable_than_english(play: Path) -> None:
    run("train", play, "--name", "few", "--vocab-size", 40, *WORDS)
    english = [line for line in VERSE.splitlines() if line]
    gibberish = ["blorf znarg quib", "xq zvvk jwpt qqb", "Wrtz'q fnord kleebl zib"]
    bits = bits_of_lines(*gibberish, *english)
    assert min(bits[: len(gibberish)]) > max(bits[len(gibberish) :])


def test_a_model_that_knows_few_words_does_not_seem_better_than_one_that_knows_many(play: Path) -> None:
    for name, size in (("few", 12), ("many", 500)):
        run("train", play, "--name", name, "--vocab-size", size, *WORDS)
    few, many = (load_checkpoint(Path(f"checkpoints/{name}/model.safetensors")) for name in ("few", "many"))
    assert few.metadata["metrics"]["val_nats"] < many.metadata["metrics"]["val_nats"]
    assert few.metadata["metrics"]["val_bits_per_char"] > many.metadata["metrics"]["val_bits_per_char"]
    ratio = run("score", "-m", "many", "--vs", "few", "--total", play).stdout.splitlines()[-1]
    assert float(ratio.removeprefix("log_ratio\t")) > 0


def test_fine_tuned_and_half_precision_models_spell_unknown_words(play: Path) -> None:
    run("train", play, "--name", "first", "--vocab-size", 40, "--half", *WORDS)
    Path("new.txt").write_text("the quick zebra jumps\n" * 40, encoding="utf-8")
    run("train", "new.txt", "--from", "first", "--name", "second", "--vocab-size", 42, "--steps", 2)
    second = load_checkpoint(Path("checkpoints/second/model.safetensors"))
    assert second.spelling is not None
    assert set("quickzebrajumps") & set(second.spelling.chars)
    facts = json.loads(run("info", "second", "--json").stdout)["spelling"]
    assert facts == {"order": second.spelling.order, "characters": len(second.spelling.chars)}
    known, random = bits_of_lines("the zebra jumps", "the xzqkw vvvzq")
    assert known < random


def test_a_text_split_at_whitespace_has_a_token_for_each_newline() -> None:
    Path("ptb.txt").write_text(" no it was <unk> \n we 're <unk> N \n" * 60, encoding="utf-8")
    run("train", "ptb.txt", "--split", "whitespace", "--name", "w", *WORDS)
    figures = json.loads(run("score", "--total", "ptb.txt", "--json").stdout)
    assert figures["tokens"] == 60 * 10
    assert figures["unknown_tokens"] == 120
    text = run("sample", "-n", 30, "--seed", 1).stdout
    assert not {"<eos>", "<unk>"} & set(text.split())


def test_a_validation_text_replaces_the_validation_fraction(play: Path) -> None:
    run("train", play, "--validation", play, "--name", "a", "--tokenizer", "char", *SMALL)
    metadata = load_checkpoint(Path("checkpoints/a/model.safetensors")).metadata
    assert metadata["validation"]["sources"] == ["play.txt"]
    assert metadata["training"]["val_fraction"] == 0
    done = run("train", play, "--validation", play, "--val-fraction", 0.2, *SMALL, code=2)
    assert "contradict" in done.stderr


class StopAfterThree:
    """Replacement for `StopSignals` that acts as if Ctrl-C were pressed after three updates."""

    def __init__(self) -> None:
        self.times_read = 0

    def __enter__(self) -> "StopAfterThree":
        return self

    def __exit__(self, *error: object) -> None: ...

    @property
    def number(self) -> int:
        self.times_read += 1
        return signal.SIGINT if self.times_read > 3 else 0


def test_a_resumed_word_training_equals_an_uninterrupted_one(
    play: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = ["--dropout", "0.2", "--dropout-input", "0.2", "--dropout-tokens", "0.1", "--dropconnect", "0.2"]
    asked = [play, "--validation", play, "--glove", vectors, "--freeze-embeddings", "--softmax-samples", 20, *drop]
    run("train", *asked, *WORDS, "--name", "whole")
    with monkeypatch.context() as patch:
        patch.setattr("charlm.cli.signals.StopSignals", StopAfterThree)
        run("train", *asked, *WORDS, "--name", "halves", code=130)
    assert run("train", "--resume", "halves", "--glove", vectors, code=2).stderr.count("omit them") == 1
    assert "contradicts" in run("train", "--resume", "halves", "--split", "whitespace", code=2).stderr
    run("train", "--resume", "halves")
    whole, halves = (load_checkpoint(Path(f"checkpoints/{name}/last.safetensors")) for name in ("whole", "halves"))
    assert whole.metadata["glove"] == halves.metadata["glove"]
    assert whole.spelling is not None
    assert halves.spelling is not None
    assert halves.spelling.nats(["sling", "qq"]).tolist() == whole.spelling.nats(["sling", "qq"]).tolist()
    for name, tensor in whole.tensors.items():
        np.testing.assert_array_equal(halves.tensors[name], tensor)
    assert "nothing to resume" in run("train", "--resume", "whole", code=1).stderr


def test_word_vectors_initialise_the_embedding_and_can_be_frozen(play: Path, vectors: Path) -> None:
    done = run("train", play, "--glove", vectors, "--freeze-embeddings", "--name", "frozen", *WORDS)
    assert "words found" in done.stderr
    assert "most frequent not found" in done.stderr
    checkpoint = load_checkpoint(Path("checkpoints/frozen/model.safetensors"))
    place = list(checkpoint.tokenizer.tokens).index("be")
    assert checkpoint.tensors["embedding.weight"][place].tolist() == [4, 3, 2, 1]
    capital = list(checkpoint.tokenizer.tokens).index("To")
    assert checkpoint.tensors["embedding.weight"][capital].tolist() == [1, 2, 3, 4]
    assert checkpoint.config.embedding_dim == 4
    assert "types_found" in run("info", "-m", "frozen").stdout
    run("train", play, "--glove", vectors, "--name", "tuned", *WORDS)
    tuned = load_checkpoint(Path("checkpoints/tuned/model.safetensors")).tensors["embedding.weight"][place]
    assert tuned.tolist() != [4, 3, 2, 1]
    assert abs(tuned - [4, 3, 2, 1]).max() < 0.5


def test_word_vectors_set_the_hidden_size_of_a_tied_model(play: Path, vectors: Path) -> None:
    few = ["--tokenizer", "word", "--steps", "3", "--batch-size", "2", "--seq-len", "8"]
    run("train", play, "--glove", vectors, "--tie", "--name", "tied", *few)
    assert load_checkpoint(Path("checkpoints/tied/model.safetensors")).config.hidden_size == 4


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--glove", "vectors.txt"], 2, "--glove contains vectors of words: set --tokenizer to word"),
        (["--tokenizer", "word", "--glove", "vectors.txt", "--embed", "50"], 2, "--embed 50: the vectors of vectors"),
        (["--tokenizer", "word", "--glove", "short.txt"], 1, "short.txt: line 2: 2 numbers instead of 4"),
        (["--tokenizer", "word", "--glove", "empty.txt"], 1, "empty.txt: empty"),
        (["--tokenizer", "word", "--glove", "latin.txt"], 1, "latin.txt: line 2: not valid UTF-8"),
        (["--tokenizer", "word", "--glove", "none.txt"], 1, "none.txt: cannot be read"),
        (["--tokenizer", "word", "--glove", "other.txt"], 1, "other.txt: none of the"),
        (["--tokenizer", "word", "--freeze-embeddings"], 2, "--freeze-embeddings keeps the vectors of --glove"),
        (
            ["--tokenizer", "word", "--glove", "vectors.txt", "--freeze-embeddings", "--tie"],
            2,
            "would freeze the decoder",
        ),
        (["--split", "whitespace"], 2, "--split applies to words only: set --tokenizer to word"),
        (["--tokenizer", "word", "--vocab-size", "3"], 2, "--vocab-size 3: must be at least 8"),
        (["--tokenizer", "word", "--min-count", "10000"], 1, "set a lower --min-count, or give a longer text"),
    ],
)
def test_invalid_input_is_reported_in_one_line(
    options: list[str], code: int, message: str, play: Path, vectors: Path
) -> None:
    Path("short.txt").write_text("to 1 2 3 4\nbe 1 2\n", encoding="utf-8")
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes(b"to 1 2 3 4\ncaf\xe9 1 2 3 4\n")
    Path("other.txt").write_text("zyzzy 1 2 3 4\n", encoding="utf-8")
    done = run("train", play, "--steps", "1", *options, code=code)
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("split", ["words", "whitespace"])
def test_a_text_of_one_word_is_an_error(split: str) -> None:
    done = run("train", "-", *WORDS, "--split", split, stdin="hello hello\nhello hello\n" * 9, code=1)
    assert "only one distinct word" in done.stderr
