"""The specification of model files, checked with a second reader that was written from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.config import CELLS, NGRAM_CELL, ModelConfig
from charlm.engine.adaptive import COUNT_CLASSES, FOLLOWER_CLASSES, Adaptation
from charlm.engine.adaptive_predictor import AdaptiveScorer, adaptation_of
from charlm.engine.checkpoint import Checkpoint, NGramPart, load_checkpoint, save_checkpoint, tensor_shapes
from charlm.engine.gate import Gate
from charlm.engine.mixture import open_predictor
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer
from charlm.engine.spelling import SpellingModel
from charlm.text.tokenizer import CharTokenizer, Tokenizer, WhitespaceTokenizer, WordTokenizer
from charlm.text.word_rules import WORD_RULES
from tests.conftest import GATE, VERSE, make_counts
from tests.engine.second_reader import SecondReader

DATA = Path(__file__).parents[1] / "data"
INCLUDED_MODEL = Path(__file__).parents[2] / "checkpoints" / "shakespeare" / "model.safetensors"

TEXT = f"""{VERSE}He said: "don't (really) wait...  the 3,000.5 cats' n't!!!"

  It's ;;) 1.5x \tI'LL\u00a0stay -- (a) [b] ((c)) <unk> <eos>\n"""

TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "chars": lambda: CharTokenizer.from_text(TEXT),
    "chars without newline": lambda: CharTokenizer.from_text("To be or not"),
    "lowercase NFC chars": lambda: CharTokenizer.from_pieces([TEXT], lowercase=True, normalize="NFC"),
    "frequent NFKC chars": lambda: CharTokenizer.from_pieces([TEXT], max_vocab=30, normalize="NFKC"),
    "NFKC words": lambda: WordTokenizer.from_text([TEXT], lowercase=True, normalize="NFKC"),
    "NFC split": lambda: WhitespaceTokenizer.from_text([TEXT], normalize="NFC"),
    "words": lambda: WordTokenizer.from_text([TEXT]),
    "old words": lambda: WordTokenizer.from_text([TEXT], word_rule=1),
    "frequent words": lambda: WordTokenizer.from_text([TEXT], max_vocab=30),
    "lowercase words": lambda: WordTokenizer.from_text([TEXT.lower()], max_vocab=60, lowercase=True),
    "split": lambda: WhitespaceTokenizer.from_text([TEXT], max_vocab=40),
    "lowercase split": lambda: WhitespaceTokenizer.from_text([TEXT.lower()], lowercase=True),
}

SHAPES: list[dict[str, Any]] = [
    {"cell": "lstm"},
    {"cell": "gru", "num_layers": 2},
    {"cell": "rnn", "num_layers": 3, "skip_connections": True},
    {"cell": "lstm", "num_layers": 2, "skip_connections": True, "tie_weights": True},
    {"cell": "gru", "tie_weights": True},
    {"cell": "lstm", "num_layers": 3, "dropout": 0.5, "recurrent_dropout": 0.3},
]

SCRAPS = [
    "n't",
    "N'T",
    "\u2019\u017f",
    "'ll",
    "don't",
    "3.14",
    "1,000,",
    "...",
    "!!",
    "<unk>",
    "<eos>",
    "<join>",
    "The",
]
MORE = "\u200d\u200b\u00ad\u00b7\U0001f1e9\U0001f3fd\u2764\ufe0f\u093f\u3042\u066b"
CHARACTERS = "abnst'\u2019.,!()_-019 \n\t\r\0\u00a0\u017f\u24b6\u24d0\u00c9\u0130\u03a3\u0301\u4e00\ufffd\u00bd\u0663"
random_text = st.lists(
    st.sampled_from([*SCRAPS, *CHARACTERS, *MORE, " ", "  "]) | st.characters(codec="utf-8"), max_size=30
)


def write_model(
    tokenizer: Tokenizer,
    dtype: type = np.float32,
    spelling: SpellingModel | None = None,
    adaptation: Adaptation | None = None,
    counts: NGramPart | None = None,
    **shape: Any,
) -> Path:
    """Write a small random model with a vocabulary."""
    config = ModelConfig.pick(
        {"hidden_size": 12, "embedding_dim": 12 if shape.get("tie_weights") else 7, **shape}
        | {"vocab_size": tokenizer.vocab_size}
    )
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.5, size).astype(dtype) for name, size in tensor_shapes(config).items()}
    path = Path("model.safetensors").resolve()
    parts: dict[str, Any] = {"spelling": spelling, "adaptation": adaptation, "counts": counts}
    save_checkpoint(path, Checkpoint(config=config, tokenizer=tokenizer, tensors=tensors, **parts))
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_of_the_second_reader_equal_those_of_the_engine(shape: dict[str, Any], dtype: type) -> None:
    path = write_model(TOKENIZERS["chars"](), dtype, **shape)
    expected = SecondReader(path).costs(TEXT[:300])
    (found,) = ModelScorer(RecurrentNetwork.load(path)).score_lines([TEXT[:300]])
    np.testing.assert_allclose(found.token_nats, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["chars", "words", "split"])
def test_the_second_reader_adapts_in_the_same_way(name: str) -> None:
    lengths = (0, 1, 3, 7)
    gains = np.random.default_rng(0).uniform(0, 0.9, (len(lengths), COUNT_CLASSES, FOLLOWER_CLASSES))
    path = write_model(TOKENIZERS[name](), adaptation=Adaptation(lengths, gains.astype(np.float32)))
    text = TEXT[:200] * 2
    expected = SecondReader(path).adaptive_costs(text)
    checkpoint = load_checkpoint(path)
    scorer = AdaptiveScorer(ModelScorer(RecurrentNetwork(checkpoint)), adaptation_of(checkpoint))
    np.testing.assert_allclose(scorer.start_stream().feed(text).token_nats, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["chars", "frequent words", "lowercase split"])
@pytest.mark.parametrize(("cell", "gate"), [("gru", None), ("lstm", GATE), (NGRAM_CELL, None)])
def test_the_second_reader_scores_models_with_counts(name: str, cell: str, gate: Gate | None) -> None:
    tokenizer = TOKENIZERS[name]()
    counts = make_counts(tokenizer, TEXT, order=3, weight=1.0 if cell == NGRAM_CELL else 0.3, gate=gate)
    path = write_model(tokenizer, counts=counts, cell=cell)
    text = TEXT[:150] + "\nxq zv % n't to be\n"
    scorer = ModelScorer(open_predictor(load_checkpoint(path)))
    (lines,), stream = scorer.score_lines([text]), scorer.start_stream().feed(text)
    expected = SecondReader(path).costs(text)
    np.testing.assert_allclose(lines.token_nats, expected, atol=1e-5)
    np.testing.assert_allclose(stream.token_nats, expected, atol=1e-5)


def test_the_shapes_have_all_cells() -> None:
    assert {shape["cell"] for shape in SHAPES} == set(CELLS)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_lines_with_unknown_tokens_have_the_same_scores(name: str) -> None:
    path = write_model(TOKENIZERS[name](), num_layers=2)
    reader, scorer = SecondReader(path), ModelScorer(RecurrentNetwork.load(path))
    lines = [*TEXT.splitlines(keepends=True), "THAT is new: xyzzy, (unknown)  {words} and \u4e00!\n", "no newline"]
    for line, found in zip(lines, scorer.score_lines(lines), strict=True):
        np.testing.assert_allclose(found.token_nats, reader.costs(line), atol=1e-5)
        np.testing.assert_allclose(scorer.start_stream().feed(line).token_nats, reader.costs(line), atol=1e-5)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_second_reader_cuts_text_into_the_same_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    reader = SecondReader(write_model(tokenizer))

    @settings(max_examples=100)
    @given(random_text)
    @example(["(don't..."])
    def check(scraps: list[str]) -> None:
        text = "".join(scraps)
        assert reader.encode(text) == tokenizer.encode(text).tolist()

    check()
    assert reader.encode(TEXT) == tokenizer.encode(TEXT).tolist()


@pytest.mark.parametrize("word_rule", WORD_RULES)
def test_the_second_reader_cuts_at_the_same_kinds_of_characters(word_rule: int) -> None:
    """All pieces are in the vocabulary, so that the ids show where the text was cut."""
    points = {*range(0x600), *range(0x1FF0, 0x2070), *range(0x2440, 0x24F0), *range(0, 0x30000, 61)}
    characters = [chr(point) for point in sorted(points) if not 0xD800 <= point < 0xE000]
    text = "".join(f"a{char}{char}1 {char}.{char}'{char} n't{char} 1.1{char} {char}n't\n" for char in characters)
    tokenizer = WordTokenizer.from_text([text], word_rule=word_rule)
    assert SecondReader(write_model(tokenizer)).encode(text) == tokenizer.encode(text).tolist()


def test_the_second_reader_spells_words_at_the_same_cost() -> None:
    spelling = SpellingModel.estimate(dict.fromkeys(TEXT.split(), 1) | {"slings": 7})
    path = write_model(TOKENIZERS["words"](), spelling=spelling)
    reader = SecondReader(path)
    words = ["slings", "slung", "a", "zzz", "\u4e00-x", "outrageously", "%%%", "\udc80"]
    expected = [reader.spelling_cost(word) for word in words]
    np.testing.assert_allclose(spelling.nats(words), expected, rtol=1e-5)
    chars = SecondReader(write_model(TOKENIZERS["chars"]()))
    (found,) = ModelScorer(RecurrentNetwork.load(path.resolve())).score_lines(["\u4e00\n"])
    assert found.score.spelling_nats == pytest.approx(chars.spelling_cost("\u4e00"))


def test_the_example_of_the_specification() -> None:
    tokens = ["<unk>", "the", "cat", "(", "<join>", " ", "\n"]
    tokenizer = WordTokenizer(tokens, [4, 5, 6], [3, 4, 5, 6])
    text = "the cat(s)  the"
    ids = [1, 2, 4, 3, 0, 4, 0, 5, 5, 1]
    assert SecondReader(write_model(tokenizer)).encode(text) == tokenizer.encode(text).tolist() == ids


def test_the_second_reader_opens_the_file_of_version_1() -> None:
    expected = json.loads((DATA / "version-1.json").read_text(encoding="utf-8"))
    costs = SecondReader(DATA / "version-1.safetensors").costs(expected["text"])
    assert sum(costs) == pytest.approx(expected["nll_nats"], abs=1e-5)


def test_the_second_reader_scores_a_line_of_the_included_model() -> None:
    line = "To be, or not to be: that is the question.\n"
    (found,) = ModelScorer(open_predictor(load_checkpoint(INCLUDED_MODEL))).score_lines([line])
    np.testing.assert_allclose(found.nats, SecondReader(INCLUDED_MODEL).costs(line), atol=1e-4)
