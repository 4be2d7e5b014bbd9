"""States and distributions of n-gram models, which are computed for many tokens at a time, against a plain reader."""

import math
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine import ngram as ngram_module
from charlm.engine.kneser_ney import estimate
from charlm.engine.ngram import NGram
from charlm.engine.ngram_predictor import NGramPredictor
from charlm.engine.unknown import UnknownTokens
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE
from tests.engine.test_ngram import joined, state_after

Gram = tuple[int, ...]

VOCAB_SIZE = 4
CHARS = CharTokenizer("\nab")
LIMITS = (0, 1, VOCAB_SIZE * (VOCAB_SIZE + 1), 60, 200, 2**19)
"""Values of `MAX_TABLE_NUMBERS`, from no context to all contexts."""

SEQUENCES = st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=8), min_size=1, max_size=5)
CONTEXTS = st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=6), min_size=1, max_size=6)


@st.composite
def models(draw: st.DrawFn) -> NGram:
    """Models of order 1 to 5 whose arrays are valid, but need not come from a text.

    A context may lack its shorter contexts, and an order may have no n-grams.
    """
    order = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        text = random.integers(0, VOCAB_SIZE - 1, 30)  # the last token is unknown to the model
        return estimate(text, order=order, vocab_size=VOCAB_SIZE, dtype=np.float32)
    density = draw(st.sampled_from([0, 0.3, 0.7, 1]))
    tensors: dict[str, npt.NDArray[np.generic]] = {"weights.1": random.dirichlet(np.ones(5)).astype(np.float32)[:-1]}
    num_contexts = VOCAB_SIZE
    for k in range(2, order + 1):
        chosen = random.random((num_contexts, VOCAB_SIZE)) < density
        contexts, tokens = np.nonzero(chosen)
        weights = random.dirichlet(np.ones(VOCAB_SIZE + 1), num_contexts).astype(np.float32)[contexts, tokens]
        tensors |= {
            f"weights.{k}": weights,
            f"tokens.{k}": tokens.astype(np.int32),
            f"counts.{k}": chosen.sum(axis=1).astype(np.int32),
        }
        num_contexts = len(tokens)
    return NGram.from_tensors(tensors)


def new(model: NGram) -> NGram:
    """The same model, which has not computed its table yet."""
    return NGram.from_tensors(model.to_tensors())


def weights_by_ngram(model: NGram) -> dict[Gram, float]:
    """Return the weight of each n-gram, as the arrays of the file have it."""
    tensors = model.to_tensors()
    level: list[Gram] = [(token,) for token in range(model.vocab_size)]
    found = dict(zip(level, tensors["weights.1"].tolist(), strict=True))
    for k in range(2, model.order + 1):
        contexts = np.repeat(np.arange(len(level)), tensors[f"counts.{k}"]).tolist()
        tokens = tensors[f"tokens.{k}"].tolist()
        level = [(*level[context], token) for context, token in zip(contexts, tokens, strict=True)]
        found |= dict(zip(level, tensors[f"weights.{k}"].tolist(), strict=True))
    return found


class Plain:
    """Reader of an n-gram model with a dictionary, by the formula in double precision."""

    def __init__(self, model: NGram) -> None:
        self.order, self.vocab_size, self.weights = model.order, model.vocab_size, weights_by_ngram(model)

    def probs(self, ids: Sequence[int]) -> list[float]:
        """Return the probability of each token after tokens, (V,)."""
        context = tuple(ids[max(0, len(ids) - self.order + 1) :])
        lower = self.probs(context[1:]) if context else [1 / self.vocab_size] * self.vocab_size
        if context and context not in self.weights:
            return lower
        own = [self.weights.get((*context, token), 0.0) for token in range(self.vocab_size)]
        backoff = 1 - math.fsum(own)
        return [weight + backoff * below for weight, below in zip(own, lower, strict=True)]


@given(models(), CONTEXTS)
def test_distributions_do_not_depend_on_the_size_of_the_table(model: NGram, contexts: list[list[int]]) -> None:
    plain = Plain(model)
    expected = [plain.probs(context) for context in contexts]
    state = np.concatenate([state_after(model, context) for context in contexts], axis=1)
    for limit in LIMITS:
        with patch.multiple(ngram_module, MAX_TABLE_NUMBERS=limit, MIN_TABLE_ROWS=0):
            found = new(model).probs(state)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


@given(models(), CONTEXTS)
def test_distributions_are_new_arrays(model: NGram, contexts: list[list[int]]) -> None:
    """Changing them must not change the table."""
    state = np.concatenate([state_after(model, context) for context in contexts], axis=1)
    first = model.probs(state)
    expected = first.copy()
    first[:] = -1
    np.testing.assert_array_equal(model.probs(state), expected)
    assert model.unigrams.min() > 0


@given(models(), st.sampled_from(LIMITS))
def test_the_table_is_as_large_as_allowed(model: NGram, limit: int) -> None:
    with patch.multiple(ngram_module, MAX_TABLE_NUMBERS=limit, MIN_TABLE_ROWS=0):
        table, offsets = new(model)._table
    sizes = np.cumsum([1, *(len(array) for array in (model.unigrams, *(level.tokens for level in model.levels)))])
    lengths = len(offsets)
    assert len(table) == sizes[lengths]
    assert offsets == sizes[:lengths].tolist()
    assert table.size <= max(limit, VOCAB_SIZE)
    assert lengths == model.order - 1 or sizes[lengths + 1] * VOCAB_SIZE > limit


@pytest.mark.parametrize("order", [1, 2, 3, 6])
def test_a_text_has_the_distributions_of_a_plain_reader(order: int) -> None:
    tokenizer = CharTokenizer.from_text(VERSE)
    model = estimate(tokenizer.encode("\n" + VERSE), order=order, vocab_size=tokenizer.vocab_size, dtype=np.float16)
    ids = tokenizer.encode("\nTo sleep, perchance to dream: %% xyzzy")
    plain = Plain(model)
    expected = [plain.probs(ids[:end].tolist()) for end in range(len(ids))]
    for limit in (0, tokenizer.vocab_size * 60, 2**19):
        with patch.multiple(ngram_module, MAX_TABLE_NUMBERS=limit, MIN_TABLE_ROWS=0):
            np.testing.assert_allclose(new(model).probs(model.states(ids)), expected, atol=1e-6)


def test_a_large_vocabulary_has_no_table() -> None:
    model = estimate(np.array([0, 900, 1, 900, 0] * 3), order=3, vocab_size=1000)
    assert model._table[0].shape == (1, 1000)
    np.testing.assert_allclose(model.probs(state_after(model, [1, 900]))[0], Plain(model).probs([1, 900]), atol=1e-6)


@given(models(), SEQUENCES)
def test_states_are_those_of_reading_token_by_token(model: NGram, sequences: list[list[int]]) -> None:
    ids, starts = joined(sequences)
    found = model.states(ids, starts)
    assert found.shape == (model.order - 1, len(ids))
    expected = [state_after(model, sequence[:end]) for sequence in sequences for end in range(len(sequence))]
    np.testing.assert_array_equal(found, np.concatenate(expected, axis=1))
    np.testing.assert_array_equal(model.states(ids, tuple(starts.tolist())), found)
    np.testing.assert_array_equal(model.states(np.array(sequences[0])), found[:, : len(sequences[0])])


@given(models(), SEQUENCES)
def test_given_tokens_cost_what_the_distributions_say(model: NGram, sequences: list[list[int]]) -> None:
    ids, starts = joined(sequences)
    probs = model.probs(model.states(ids, starts))
    expected = -np.log(np.maximum(probs[np.arange(len(ids)), ids], ngram_module.MIN_PROB))
    expected[starts] = 0
    for given_starts in (starts, starts.tolist(), tuple(starts.tolist())):
        np.testing.assert_allclose(model.nats(ids, given_starts), expected, rtol=1e-4, atol=1e-5)


def predictor_of(model: NGram) -> NGramPredictor:
    assert CHARS.vocab_size == model.vocab_size
    return NGramPredictor(model, CHARS, UnknownTokens(CHARS, None))


@given(models(), SEQUENCES, st.sampled_from([1, 30, 2**18]))
def test_distributions_step_by_step_are_those_of_a_plain_reader(
    model: NGram, sequences: list[list[int]], max_step_numbers: int
) -> None:
    sequences = sorted(sequences, key=len, reverse=True)
    plain = Plain(model)
    with patch("charlm.engine.ngram_predictor.MAX_STEP_NUMBERS", max_step_numbers):
        steps = list(predictor_of(model).step_probs([np.array(ids) for ids in sequences]))
    assert len(steps) == len(sequences[0]) - 1
    for time, probs in enumerate(steps, start=1):
        expected = [plain.probs(ids[:time]) for ids in sequences if len(ids) > time]
        np.testing.assert_allclose(probs, expected, atol=1e-6)
        probs[:] = -1  # the next ones are computed from other arrays


@given(models(), SEQUENCES)
def test_a_stream_in_parts_has_the_distributions_of_the_whole_text(model: NGram, parts: list[list[int]]) -> None:
    start = CHARS.encode("\n").tolist()
    text = start + [token for part in parts for token in part]
    stream = predictor_of(model).start_stream()
    found = np.concatenate([stream.probs(np.array(part)) for part in parts])
    plain = Plain(model)
    np.testing.assert_allclose(found, [plain.probs(text[:end]) for end in range(1, len(text))], atol=1e-6)


@given(models(), SEQUENCES, st.integers(1, 5), st.booleans())
def test_blocks_of_a_stream_cost_what_the_whole_text_costs(
    model: NGram, parts: list[list[int]], block_tokens: int, with_entropy: bool
) -> None:
    predictor = predictor_of(model)
    text = np.concatenate([CHARS.encode("\n"), *map(np.array, parts)])
    expected = predictor.score([text], with_entropy=True)
    stream = predictor.start_stream(with_entropy=with_entropy)
    stream._block_tokens = block_tokens
    costs = [stream.score(np.array(part)) for part in [*parts, []]]
    np.testing.assert_allclose(np.concatenate([part.nats for part in costs]), expected.nats[0], rtol=1e-4, atol=1e-5)
    if with_entropy:
        assert expected.entropy_nats is not None
        entropies = [part.entropy_nats for part in costs if part.entropy_nats is not None]
        np.testing.assert_allclose(np.concatenate(entropies), expected.entropy_nats[0], rtol=1e-4, atol=1e-5)


def test_the_table_is_not_computed_for_a_few_sequences(rng: np.random.Generator) -> None:
    model = estimate(rng.integers(5, size=400), order=4, vocab_size=5)
    states = model.states(rng.integers(5, size=ngram_module.MIN_TABLE_ROWS))
    few = model.probs(states[:, 1:])
    assert "_table" not in vars(model)
    many = model.probs(states)
    assert "_table" in vars(model)
    np.testing.assert_allclose(few, many[1:], atol=1e-6)
    np.testing.assert_array_equal(model.probs(states[:, 1:]), many[1:])
