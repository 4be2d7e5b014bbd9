"""Tests of `charlm score --per-token` and `--per-word`."""

import functools
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import click.testing
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.cli import main
from charlm.config import ModelConfig
from charlm.engine.checkpoint import Checkpoint, save_checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer, score_text
from charlm.engine.scores import TokenScores
from charlm.engine.word_scores import word_scores
from charlm.text.lines import LONG_LINE
from charlm.text.tokenizer import CharTokenizer, Tokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.training.network import LanguageModel
from tests.conftest import VERSE, Charlm, make_checkpoint

TOKENIZERS = {
    "char": CharTokenizer.from_text(VERSE),
    "words": WordTokenizer.from_text([VERSE]),
    "lowercase": WordTokenizer.from_text([VERSE], lowercase=True),
    "whitespace": WhitespaceTokenizer.from_text([VERSE]),
}
LINES = ['  To be, "or" not\tto be  ', "", 'said "I\\n', "cat(dog) zebra%%"]


def checkpoint_of(name: str) -> Checkpoint:
    """Return a small untrained model with a tokenizer."""
    tokenizer = TOKENIZERS[name]
    config = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=8, embedding_dim=8)
    return Checkpoint(config=config, tokenizer=tokenizer, tensors=LanguageModel(config).to_tensors())


@functools.cache
def network_of(name: str) -> RecurrentNetwork:
    return RecurrentNetwork(checkpoint_of(name))


@pytest.fixture(params=TOKENIZERS)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> RecurrentNetwork:
    """Each kind of model, as the run `tiny`."""
    checkpoint = checkpoint_of(request.param)
    save_checkpoint(tmp_path / "checkpoints" / "tiny" / "model.safetensors", checkpoint)
    return RecurrentNetwork(checkpoint)


def score(*arguments: str | Path, stdin: str = "") -> str:
    """Run `charlm score -q` in this process."""
    done = click.testing.CliRunner().invoke(main, ["score", "-q", *map(str, arguments)], input=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout


def unescape(text: str) -> str:
    return text.encode("latin-1").decode("unicode_escape")


@pytest.mark.parametrize(("option", "part", "number"), [("--per-word", "word", "word_number"),
                                                        ("--per-token", "token", "token_number")])  # fmt: skip
@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_pandas_reads_the_table_with_its_defaults(
    network: RecurrentNetwork, option: str, part: str, number: str, unit: str
) -> None:
    Path("a.txt").write_text("\n".join(LINES[:2]), encoding="utf-8")
    Path("b.txt").write_text("\n".join(LINES[2:]) + "\n", encoding="utf-8")
    table = pandas.read_csv(io.StringIO(score("a.txt", "b.txt", option, "--unit", unit)), sep="\t")
    texts = [(LINES[0] + "\n"), *(line + "\n" for line in LINES[2:])]
    places = [("a.txt", 1), ("b.txt", 1), ("b.txt", 2)]  # the last line of a.txt is empty and has no newline
    factor = {"bits": 1 / math.log(2), "nats": 1}[unit]
    for (file, line), text in zip(places, texts, strict=True):
        rows = table[(table.file == file) & (table.line == line)]
        expected = score_text(network, text)
        assert rows[unit].sum() == pytest.approx(expected.nll_nats * factor, rel=1e-5)
        assert rows.unknown.sum() == expected.num_unknown
        assert rows[number].tolist() == list(range(1, len(rows) + 1))
        for row, value in zip(rows.start, rows[part].fillna(""), strict=True):
            assert text[row:].startswith(unescape(value))
    assert len(table) == sum(((table.file == file) & (table.line == line)).sum() for file, line in places)


def test_words_are_separated_by_whitespace_and_the_line_end_is_a_row(network: RecurrentNetwork) -> None:
    rows = [json.loads(row) for row in score("--per-word", "--json", stdin=LINES[0] + "\n\n").splitlines()]
    assert [row["word"] for row in rows] == ["To", "be,", '"or"', "not", "to", "be", "  \n", "\n"]
    assert [row["characters"] for row in rows] == [4, 4, 5, 4, 3, 3, 3, 1]
    assert [(row["file"], row["line"]) for row in rows] == [("-", 1)] * 7 + [("-", 2)]


def test_a_carriage_return_counts_for_the_line_end(model_file: Path) -> None:
    rows = [json.loads(row) for row in score("--per-word", "--json", stdin="To be\r\nor").splitlines()]
    assert [(row["word"], row["characters"]) for row in rows] == [("To", 2), ("be", 3), ("\n", 2), ("or", 2)]


def test_a_token_table_has_the_entropy_of_each_prediction(charlm: Charlm, model_file: Path) -> None:
    done = charlm("score", "--per-token", "--unit", "nats", stdin='T"\n')
    header, *rows = [row.split("\t") for row in done.stdout.splitlines()]
    assert header == ["file", "line", "token_number", "token", "nats", "entropy", "unknown", "start"]
    assert [row[:4] for row in rows] == [["-", "1", "1", "T"], ["-", "1", "2", '""""'], ["-", "1", "3", r"\n"]]
    assert [row[6:] for row in rows] == [["0", "0"], ["1", "1"], ["0", "2"]]
    network = RecurrentNetwork.load(model_file)
    ids = network.tokenizer.encode('\nT"')
    logits = network.logits(network.outputs(ids[None], network.zero_state()))[0].astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    entropies = -(probabilities * np.log(probabilities)).sum(axis=-1)
    assert [float(row[5]) for row in rows] == pytest.approx(entropies, abs=1e-4)
    assert (
        charlm("score", "--per-token", "--unit", "nats", "--no-header", stdin='T"\n').stdout
        == (done.stdout.partition("\n")[2])
    )


def test_entropy_does_not_change_the_scores_or_depend_on_the_batch() -> None:
    network = RecurrentNetwork(make_checkpoint()[1])
    plain, scorer = ModelScorer(network), ModelScorer(network, with_entropy=True)
    lines = VERSE.splitlines(keepends=True)
    for without, batched, line in zip(plain.score_lines(lines), scorer.score_lines(lines), lines, strict=True):
        alone = scorer.start_stream().feed(line)
        assert without.entropy_nats is None
        np.testing.assert_array_equal(without.nats, batched.nats)
        assert batched.entropy_nats is not None
        np.testing.assert_allclose(batched.entropy_nats, alone.entropy_nats, atol=1e-5)
        assert (batched.entropy_nats <= math.log(network.config.vocab_size) + 1e-5).all()


def test_a_mixture_has_no_entropy(model_file: Path) -> None:
    table = pandas.read_csv(io.StringIO(score("--per-token", "--mix", "tiny:0.5", stdin="To\n")), sep="\t")
    assert "entropy" not in table.columns
    assert len(table) == 3


@pytest.mark.parametrize("gap", [" ", "   "])
def test_words_of_a_long_line_are_whole(model_file: Path, gap: str) -> None:
    words = ["slings", "and", "arrows"] * (LONG_LINE // 17)  # 18 characters or more
    Path("long.txt").write_text(gap.join(words) + " \n", encoding="utf-8")
    rows = [json.loads(row) for row in score("--per-word", "--json", "long.txt").splitlines()]
    assert [row["word"] for row in rows] == [*words, " \n"]
    assert [row["word_number"] for row in rows] == list(range(1, len(words) + 2))
    assert sum(row["characters"] for row in rows) == Path("long.txt").stat().st_size
    starts = np.cumsum([0, *(len(word) + len(gap) for word in words)])
    assert [row["start"] for row in rows[:-1]] == starts[:-1].tolist()


@given(
    st.text(alphabet='To be,"\n\t\N{NO-BREAK SPACE}%(', max_size=30),
    st.sampled_from(list(TOKENIZERS.values())),
)
def test_word_scores_sum_to_the_score_and_join_to_the_text(text: str, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(text)
    scores = TokenScores(text, ids, np.arange(1, len(ids) + 1, dtype=np.float32))
    words = word_scores(tokenizer, scores)
    assert sum(word.nats for word in words) == (scores.score.nll_nats if words else 0)
    assert sum(word.num_unknown for word in words) == (scores.score.num_unknown if words else 0)
    assert "".join(text[word.begin : word.end] for word in words) == text
    assert [text[word.start : word.end] for word in words if not word.is_space] == text.split()


def naive_word_nats(text: str, nats: Sequence[float]) -> list[float]:
    """Return the sums of the words of a text of characters, and of the whitespace after the last word."""
    sums, complete = [0.0], False
    for char, value in zip(text, nats, strict=True):
        if complete and char.isspace():
            sums.append(0.0)
        complete = not char.isspace()
        sums[-1] += value
    return sums


@given(st.text(alphabet="ab \n", min_size=1, max_size=30))
def test_word_scores_of_characters_equal_a_plain_loop(text: str) -> None:
    tokenizer = CharTokenizer("ab \n")
    scores = TokenScores(text, tokenizer.encode(text), np.arange(1, len(text) + 1, dtype=np.float32))
    assert [word.nats for word in word_scores(tokenizer, scores)] == naive_word_nats(text, scores.nats.tolist())
