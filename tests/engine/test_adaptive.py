"""Counts of a document, against a plain implementation; and predictors and scorers that learn from what they read."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.adaptive import COUNT_CLASSES, FOLLOWER_CLASSES, Adaptation, Memory
from charlm.engine.adaptive_predictor import AdaptivePredictor, AdaptiveScorer, adaptation_of
from charlm.engine.checkpoint import load_checkpoint, save_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.predictor import START, Predictor
from charlm.engine.scorer import ModelScorer, ScorerMixture
from charlm.errors import CheckpointError
from tests.conftest import VERSE, make_mixture, make_ngram_model

LENGTHS = (0, 1, 2, 4)
GAINS = np.random.default_rng(1).uniform(0, 0.9, (len(LENGTHS), COUNT_CLASSES, FOLLOWER_CLASSES)).astype(np.float32)
ADAPTATION = Adaptation(LENGTHS, GAINS)
V = 3
START_IDS = np.array([1])
texts = st.lists(st.integers(0, V - 1), max_size=60)

MIXTURE = make_mixture()
STATIC: Predictor = open_predictor(MIXTURE)
ADAPTIVE = AdaptivePredictor(STATIC, ADAPTATION)


def reference(history: Sequence[int], static: np.ndarray) -> np.ndarray:
    """The adaptive distribution after a document, whose first token is context only, by counting all of it again."""
    padded = [None] * max(LENGTHS) + list(history)
    first = max(LENGTHS) + 1
    probs = static.astype(float)
    for length, gains in zip(LENGTHS, GAINS, strict=True):
        context = padded[len(padded) - length :]
        followers = Counter(padded[end] for end in range(first, len(padded)) if padded[end - length : end] == context)
        total = sum(followers.values())
        if total:
            gain = float(
                gains[min(int(math.log2(total)), COUNT_CLASSES - 1), min(len(followers), FOLLOWER_CLASSES) - 1]
            )
            counts = np.array([followers[token] for token in range(len(probs))])
            probs = (1 - gain) * probs + gain * counts / total
    return probs


@given(text=texts, parts=st.integers(1, 5))
def test_the_weights_of_tokens_are_those_of_counting_all_again(text: list[int], parts: int) -> None:
    static = np.array([0.5, 0.3, 0.2])
    memory = Memory(ADAPTATION, V, START_IDS)
    weights = [memory.read(part) for part in np.array_split(np.array(text, dtype=np.intp), parts)]
    keep, add = (np.concatenate(numbers) for numbers in zip(*weights, strict=True))
    expected = [reference([1, *text[:end]], static)[token] for end, token in enumerate(text)]
    np.testing.assert_allclose(keep * static[text] + add, expected, atol=1e-12)
    probs = static.copy()
    memory.adapt(probs)
    np.testing.assert_allclose(probs, reference([1, *text], static), atol=1e-12)
    assert abs(probs.sum() - 1) < 1e-12


@given(before=texts, after=st.lists(texts, min_size=2, max_size=4))
def test_forks_change_independently(before: list[int], after: list[list[int]]) -> None:
    memory = Memory(ADAPTATION, V, START_IDS)
    memory.read(np.array(before, dtype=np.intp))
    forks = [memory.fork() for _ in after[1:]]
    forks = [memory, *forks[:-1], forks[-1].fork()]
    static = np.full(V, 1 / V)
    for fork, text in zip(forks, after, strict=True):
        fork.read(np.array(text, dtype=np.intp))
    for fork, text in zip(forks, after, strict=True):
        probs = static.copy()
        fork.adapt(probs)
        np.testing.assert_allclose(probs, reference([1, *before, *text], static), atol=1e-12)


def test_a_full_memory_keeps_the_end_of_the_text() -> None:
    ids = np.random.default_rng(1).integers(0, 50, 20_000)
    memories = [Memory(ADAPTATION, 50, START_IDS, max_contexts=3000) for _ in range(2)]
    whole, fork = memories[0].read(ids), memories[1].fork()
    parts = [fork.read(part) for part in np.array_split(ids, 77)]
    for numbers, of_parts in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(numbers, np.concatenate(of_parts))
    assert 1000 < memories[0].num_contexts < 3000 * 17 / 16
    static = np.full(50, 1 / 50)
    remembered = reference([1, *ids[-300:].tolist()], static)
    probs = static.copy()
    memories[0].adapt(probs)
    assert np.argmax(probs) == np.argmax(remembered)
    assert abs(probs.sum() - 1) < 1e-9


def test_repeated_text_costs_less_and_less() -> None:
    ids = np.tile(np.arange(40), 20)
    keep, add = Memory(Adaptation.default("char"), 41, START_IDS).read(ids)
    nats = -np.log(keep / 41 + add).reshape(20, 40).mean(axis=1)
    assert nats[0] > 3.5
    assert nats[1] < 1.5
    assert nats[-1] < 0.02


@pytest.mark.parametrize("kind", ["char", "word"])
def test_default_constants_are_in_range(kind: str) -> None:
    assert len(Adaptation.default(kind).context_lengths) == len(Adaptation.default(kind).gains)


@given(contexts=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=30), min_size=1, max_size=4))
def test_probabilities_sum_to_one(contexts: list[list[int]]) -> None:
    reader = ADAPTIVE.read([np.array(context) for context in contexts])
    probs, logits = reader.probs(), reader.logits().astype(float)
    static = STATIC.read([np.array(context) for context in contexts])
    expected = [reference(context, row) for context, row in zip(contexts, static.probs(), strict=True)]
    np.testing.assert_allclose(probs, expected, atol=1e-6)
    np.testing.assert_allclose(probs.sum(axis=-1, dtype=float), 1, atol=1e-5)
    totals = np.logaddexp.reduce(logits, axis=-1)
    np.testing.assert_allclose(totals, np.logaddexp.reduce(static.logits().astype(float), axis=-1), atol=1e-4)
    np.testing.assert_allclose(np.exp(logits - totals[:, None]), probs, atol=1e-6)


def test_readers_select_and_restart() -> None:
    first, second = (STATIC.tokenizer.encode(text) for text in ("\nTo be, or not to be", "\nHAMLET"))
    start = STATIC.tokenizer.encode(START)
    reader = ADAPTIVE.read([first, second])
    reader.select(np.array([1, 0, 0]))
    assert reader.rows == 3
    steps = np.array([[3, 4, 5], [6, 7, 8], [3, 7, 5]])
    for step in steps:
        reader.advance(step)
    probs = reader.probs()
    for row, ids in enumerate((second, first, first)):
        expected = ADAPTIVE.read([np.concatenate([ids, steps[:, row]])]).probs()[0]
        np.testing.assert_allclose(probs[row], expected, atol=1e-6)
    reader.restart([2])
    text = np.concatenate([first[1:], steps[:, 2]])
    memory = Memory(ADAPTATION, STATIC.tokenizer.vocab_size, start)
    memory.read(text)
    memory.start_text(start)
    expected = STATIC.read([start]).probs()[0]
    memory.adapt(expected)
    np.testing.assert_allclose(reader.probs()[2], expected, atol=1e-6)


def test_given_tokens_cost_what_the_distributions_say() -> None:
    sequences = [STATIC.tokenizer.encode(f"\n{text}") for text in (VERSE[:90] * 2, "to be, to be, to be", "a")]
    plain, with_entropy = ADAPTIVE.score(sequences), ADAPTIVE.score(sequences, with_entropy=True)
    assert with_entropy.entropy_nats is not None
    np.testing.assert_allclose(plain.nats, with_entropy.nats, atol=1e-4)
    for row, ids in enumerate(sequences):
        expected = [ADAPTIVE.read([ids[:end]]).probs()[0][ids[end]] for end in range(1, len(ids))]
        np.testing.assert_allclose(plain.nats[row, : len(ids) - 1], -np.log(expected), atol=1e-4)
    for entropy in (False, True):
        stream = ADAPTIVE.start_stream(with_entropy=entropy)
        parts = np.concatenate([stream.score(part).nats for part in np.split(sequences[0][1:], [5, 5, 60])])
        np.testing.assert_allclose(parts, plain.nats[0], atol=1e-4)


def test_lines_are_scored_before_they_are_counted() -> None:
    lines = ["to be or not\n", "to be or not\n", "o" * 30 + "\n", "to be or not\n"]
    static, scorer = ModelScorer(STATIC), AdaptiveScorer(ModelScorer(STATIC), ADAPTATION)
    memory = Memory(ADAPTATION, STATIC.tokenizer.vocab_size, STATIC.tokenizer.encode(START))
    found = scorer.score_lines(lines)
    for line, scores, plain in zip(lines, found, static.score_lines(lines), strict=True):
        memory.start_text(STATIC.tokenizer.encode(START))
        keep, add = memory.read(plain.ids)
        assert scores.text == line
        np.testing.assert_allclose(scores.nats, -np.log(keep * np.exp(-plain.nats) + add), atol=1e-4)
    costs = [scores.score.nll_nats for scores in found]
    assert costs[3] < costs[1] < costs[0]
    scorer.start_document()
    assert scorer.score_lines(lines[:1])[0].score.nll_nats == pytest.approx(costs[0])
    stream = scorer.start_stream()
    in_parts = sum(stream.feed(part).score.nll_nats for part in ("to be", " or not\n"))
    assert in_parts == pytest.approx(costs[1], abs=1e-3)


def test_the_spelling_of_unknown_tokens_is_not_adapted() -> None:
    scorer = AdaptiveScorer(ModelScorer(STATIC), ADAPTATION)
    first, *_, last = scorer.score_lines(["%\n"] * 40)
    assert first.spelling_nats is not None
    assert last.spelling_nats is not None
    np.testing.assert_array_equal(first.spelling_nats, last.spelling_nats)
    assert first.score.num_unknown == 1
    assert last.score.token_nats < first.score.token_nats


def test_a_mixture_of_models_is_adapted_as_a_whole() -> None:
    mixture = ScorerMixture([ModelScorer(STATIC), ModelScorer(open_predictor(make_ngram_model()))], [0.5, 0.5])
    found = AdaptiveScorer(mixture, ADAPTATION).score_lines(["to be\n", "to be\n"])
    memory = Memory(ADAPTATION, mixture.tokenizer.vocab_size, mixture.tokenizer.encode(START))
    (plain,) = mixture.score_lines(["to be\n"])
    keep, add = memory.read(plain.ids)
    np.testing.assert_allclose(found[0].nats, -np.log(keep * np.exp(-plain.nats) + add), atol=1e-4)


def test_a_file_keeps_the_constants() -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, replace(MIXTURE, adaptation=ADAPTATION))
    loaded = load_checkpoint(path)
    assert adaptation_of(loaded).context_lengths == LENGTHS
    np.testing.assert_array_equal(adaptation_of(loaded).gains, GAINS)
    assert loaded.tensors.keys() == MIXTURE.tensors.keys()
    save_checkpoint(path, MIXTURE)
    assert b"adapt" not in path.read_bytes()
    assert adaptation_of(load_checkpoint(path)).context_lengths == Adaptation.default("char").context_lengths


@pytest.mark.parametrize(
    ("lengths", "gains", "message"),
    [
        ((), GAINS[:0], "0 context lengths"),
        ((2, 1), GAINS[:2], "not 1 to 8 in ascending order"),
        ((0, 99), GAINS[:2], "a context length is not from 0 to 32"),
        ((0, 1), GAINS[:3], "gains are float32"),
        ((0, 1), np.zeros((2, COUNT_CLASSES, FOLLOWER_CLASSES), dtype=np.int32), "gains are int32"),
        ((1,), np.full_like(GAINS[:1], math.nan), "a gain is not a number from 0 to below 1"),
        ((1,), np.ones_like(GAINS[:1]), "a gain is not a number from 0 to below 1"),
        ((1,), -GAINS[:1], "a gain is not a number from 0 to below 1"),
    ],
)
def test_damaged_constants_are_errors(lengths: tuple[int, ...], gains: np.ndarray, message: str) -> None:
    damaged = Adaptation(LENGTHS, GAINS)
    object.__setattr__(damaged, "context_lengths", lengths)
    object.__setattr__(damaged, "gains", gains)
    path = Path("model.safetensors")
    save_checkpoint(path, replace(MIXTURE, adaptation=damaged))
    with pytest.raises(CheckpointError, match=f"damaged adaptive part .*{message}"):
        load_checkpoint(path)
