"""N-gram models against a reference implementation with dictionaries, and against damaged arrays."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.kneser_ney import FALLBACK_DISCOUNTS, discounts_of, estimate
from charlm.engine.ngram import NGram
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE

Gram = tuple[int, ...]


class Reference:
    """Interpolated modified Kneser-Ney with dictionaries, as in Chen and Goodman (1998)."""

    def __init__(self, sequences: Sequence[Sequence[int]], times: Sequence[int], order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = order, vocab_size
        self.counts: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        preceding: defaultdict[Gram, set[int]] = defaultdict(set)
        for sequence, weight in zip(sequences, times, strict=True):
            for end in range(2, len(sequence) + 1):
                for length in range(1, min(order, end) + 1):
                    gram = tuple(sequence[end - length : end])
                    if length == order or (length == end and length > 1):
                        self.counts[length][gram] += weight
                    elif length < end:
                        preceding[gram].add(sequence[end - length - 1])
        for gram, tokens in preceding.items():
            self.counts[len(gram)][gram] += len(tokens)
        self.discounts = [discounts_of_counts(list(counts.values())) for counts in self.counts]

    def prob(self, context: Gram, token: int) -> float:
        """Return the probability of a token after a context of less than `order` tokens."""
        length = len(context) + 1
        followers = {w: c for w in range(self.vocab_size) if (c := self.counts[length][(*context, w)])}
        lower = self.prob(context[1:], token) if context else 1 / self.vocab_size
        total = sum(followers.values())
        if not total:
            return lower
        discounts = {w: self.discounts[length][min(c, 3) - 1] for w, c in followers.items()}
        own = (followers[token] - discounts[token]) / total if token in followers else 0.0
        return own + sum(discounts.values()) / total * lower


def discounts_of_counts(counts: Sequence[int]) -> tuple[float, ...]:
    n = [sum(count == k for count in counts) for k in range(5)]
    if 0 in n[1:]:
        return FALLBACK_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return found if all(0 < d <= k for k, d in enumerate(found, start=1)) else FALLBACK_DISCOUNTS


def state_after(model: NGram, ids: Sequence[int]) -> np.ndarray:
    state = model.start()
    for token in ids:
        state = model.advance(state, np.array([token]))
    return state


def joined(sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences as one array, and the position of the start of each."""
    lengths = [len(sequence) for sequence in sequences]
    return np.concatenate([np.array(s, dtype=np.int64) for s in sequences]), np.cumsum([0, *lengths[:-1]])


SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=6)


@given(SEQUENCES, st.integers(1, 5), st.data())
def test_probabilities_are_those_of_a_plain_implementation(
    sequences: list[list[int]], order: int, data: st.DataObject
) -> None:
    times = data.draw(st.lists(st.integers(1, 5), min_size=len(sequences), max_size=len(sequences)))
    reference = Reference(sequences, times, order, vocab_size=5)
    ids, starts = joined(sequences)
    model = estimate(ids, order=order, vocab_size=5, starts=starts, times=times, dtype=np.float64)
    context = data.draw(st.lists(st.integers(0, 4), max_size=6))
    expected = [reference.prob(tuple(context[max(0, len(context) - order + 1) :]), token) for token in range(5)]
    assert math.fsum(expected) == pytest.approx(1, abs=1e-9)
    found = model.log_probs(state_after(model, context))[0]
    np.testing.assert_allclose(np.exp(found.astype(float)), expected, atol=1e-6)


def test_a_longer_text_equals_the_plain_implementation() -> None:
    tokenizer = CharTokenizer.from_text(VERSE)
    ids = tokenizer.encode("\n" + VERSE + VERSE[300:])
    reference = Reference([ids.tolist()], [1], 4, tokenizer.vocab_size)
    assert FALLBACK_DISCOUNTS not in reference.discounts[1:]
    model = estimate(ids, order=4, vocab_size=tokenizer.vocab_size)
    text = tokenizer.encode("\nTo sleep, perchance to dream: %").tolist()
    expected = [-math.log(reference.prob(tuple(text[max(0, end - 3) : end]), text[end])) for end in range(1, len(text))]
    np.testing.assert_allclose(model.nats(np.array(text))[1:], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_probabilities_sum_to_one_in_every_context(dtype: type[np.floating]) -> None:
    tokenizer = CharTokenizer.from_text(VERSE)
    model = estimate(tokenizer.encode("\n" + VERSE), order=5, vocab_size=tokenizer.vocab_size, dtype=dtype)
    for context in ("", "\n", "To b", "xyzzy", "%%%", "\nHAMLET:\nTo", "to sleep; To die"):
        probs = np.exp(model.log_probs(state_after(model, tokenizer.encode(context).tolist())).astype(float))
        assert probs.min() > 0
        assert probs.sum() == pytest.approx(1, abs=1e-6)


def test_given_tokens_have_the_probabilities_of_the_distribution() -> None:
    tokenizer = CharTokenizer.from_text(VERSE)
    model = estimate(tokenizer.encode("\n" + VERSE), order=6, vocab_size=tokenizer.vocab_size)
    texts = ["\nTo be, or not to be", "\n", "\nqzx % To", "\nHAMLET"]
    sequences = [tokenizer.encode(text).tolist() for text in texts]
    ids, starts = joined(sequences)
    nats = np.split(model.nats(ids, starts), starts[1:])
    for sequence, found in zip(sequences, nats, strict=True):
        expected = [
            -model.log_probs(state_after(model, sequence[:end]))[0, sequence[end]] for end in range(1, len(sequence))
        ]
        np.testing.assert_allclose(found, [0, *expected], atol=1e-5)


def test_streams_of_a_batch_do_not_depend_on_each_other() -> None:
    tokenizer = CharTokenizer.from_text(VERSE)
    model = estimate(tokenizer.encode("\n" + VERSE), order=4, vocab_size=tokenizer.vocab_size)
    streams = tokenizer.encode("To be").tolist(), tokenizer.encode("to s%").tolist()
    state = model.start(2)
    for tokens in zip(*streams, strict=True):
        state = model.advance(state, np.array(tokens))
    expected = np.concatenate([model.log_probs(state_after(model, stream)) for stream in streams])
    np.testing.assert_array_equal(model.log_probs(state), expected)


def test_numbers_too_large_to_be_sorted_with_their_positions_give_the_same_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = CharTokenizer.from_text(VERSE)
    ids = tokenizer.encode("\n" + VERSE)
    expected = estimate(ids, order=5, vocab_size=tokenizer.vocab_size).to_tensors()
    monkeypatch.setattr("charlm.engine.ngram_counts.KEY_BITS", 1)
    for name, array in estimate(ids, order=5, vocab_size=tokenizer.vocab_size).to_tensors().items():
        np.testing.assert_array_equal(array, expected[name])


def test_ngrams_longer_than_64_bits_are_counted() -> None:
    ids = np.array([1, 900, 2, 900, 2, 1] * 9)
    model = estimate(ids, order=8, vocab_size=1000)
    assert model.order == 8
    assert np.exp(-model.nats(ids)[12:]).min() > 0.5


def test_estimation_leaves_the_ids_as_they_were() -> None:
    ids = np.array([1, 2, 1, 2, 1])
    estimate(ids, order=3, vocab_size=3)
    assert ids.tolist() == [1, 2, 1, 2, 1]


@given(st.lists(st.integers(1, 9), max_size=60))
def test_discounts_are_between_zero_and_the_count(counts: list[int]) -> None:
    found = discounts_of(np.array(counts, dtype=np.int64))
    assert found == pytest.approx(discounts_of_counts(counts))
    assert all(0 < discount <= count for count, discount in enumerate(found, start=1))


def small_tensors() -> dict[str, np.ndarray]:
    model = estimate(np.array([0, 1, 2, 1, 2, 0, 3, 1]), order=3, vocab_size=5, dtype=np.float16)
    return {name: array.copy() for name, array in model.to_tensors().items()}


def test_arrays_give_the_same_model() -> None:
    ids = np.array([0, 1, 2, 4, 3, 1, 2, 0])
    model = NGram.from_tensors(small_tensors())
    assert (model.order, model.vocab_size) == (3, 5)
    original = estimate(np.array([0, 1, 2, 1, 2, 0, 3, 1]), order=3, vocab_size=5, dtype=np.float16)
    np.testing.assert_array_equal(model.nats(ids), original.nats(ids))
    assert {array.dtype.name for array in model.to_tensors().values()} == {"float16", "uint8"}


def test_numbers_above_255_are_stored_in_32_bits() -> None:
    model = estimate(np.array([0, 300, 1, 300, 0]), order=2, vocab_size=400)
    tensors = model.to_tensors()
    assert tensors["tokens.2"].dtype == np.int32
    ids = np.array([0, 300, 1, 0])
    np.testing.assert_array_equal(NGram.from_tensors(tensors).nats(ids), model.nats(ids))


Tensors = dict[str, np.ndarray]


def with_value(name: str, index: int, value: float) -> Callable[[Tensors], object]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].astype(np.int32 if tensors[name].dtype.kind == "u" else tensors[name].dtype)
        tensors[name][index] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("weights.3"), "order 2 with the arrays"),
        (lambda tensors: tensors.pop("tokens.2"), "order 3 with the arrays"),
        (lambda tensors: tensors.clear(), "order 0"),
        (lambda tensors: tensors.update(extra=np.zeros(1)), "order 3 with the arrays"),
        (lambda tensors: tensors.update({"weights.1": np.zeros(0)}), "without tokens"),
        (lambda tensors: tensors.update({"weights.1": np.zeros((5, 1))}), "weights.1 is float64"),
        (lambda tensors: tensors.update({"weights.1": np.zeros(5, np.int32)}), "weights.1 is int32"),
        (lambda tensors: tensors.update({"tokens.2": tensors["tokens.2"].astype(float)}), "tokens.2 is float64"),
        (lambda tensors: tensors.update({"counts.2": tensors["counts.2"][:-1]}), "counts.2 is uint8"),
        (lambda tensors: tensors.update({"weights.2": tensors["weights.2"][:-1]}), "weights.2 is float16"),
        (with_value("counts.2", 0, 255), "counts.2: a number of n-grams is out of range"),
        (with_value("counts.2", 0, -1), "counts.2: a number of n-grams is out of range"),
        (with_value("counts.2", 0, 5), "counts.2: .* instead of"),
        (with_value("tokens.2", 0, 9), "tokens.2: a token is out of range"),
        (with_value("tokens.2", 0, -1), "tokens.2: a token is out of range"),
        (with_value("tokens.2", 1, 0), "tokens.2: the tokens of a context are not in ascending order"),
        (with_value("weights.1", 1, np.nan), "weights.1: a weight is negative"),
        (with_value("weights.2", 0, -0.1), "weights.2: a weight is negative"),
        (with_value("weights.3", 0, np.inf), "weights.3: a weight is negative"),
        (with_value("weights.3", 0, 1.0), "the weights of a context reach 1"),
    ],
)
def test_damaged_arrays_are_errors(change: Callable[[Tensors], object], message: str) -> None:
    tensors = small_tensors()
    change(tensors)
    with pytest.raises(ValueError, match=message):
        NGram.from_tensors(tensors)


def test_every_half_precision_number_that_is_none_is_an_error() -> None:
    tensors = small_tensors()
    for bits in (0x7C01, 0x7E00, 0xFE00, 0xFFFF, 0x7C00):  # signalling and quiet NaN, and infinity
        tensors["weights.3"][:] = np.array([bits], dtype=np.uint16).view(np.float16)
        with pytest.raises(ValueError, match=r"weights\.3: a weight is negative or not a number"):
            NGram.from_tensors(tensors)


@given(st.data())
def test_random_arrays_are_refused_or_sum_to_one(data: st.DataObject) -> None:
    tensors = small_tensors()
    name = data.draw(st.sampled_from(sorted(tensors)))
    index = data.draw(st.integers(0, len(tensors[name]) - 1))
    with_value(name, index, data.draw(st.integers(-2, 6) if tensors[name].dtype.kind == "u" else st.floats(-1, 2)))(
        tensors
    )
    try:
        model = NGram.from_tensors(tensors)
    except ValueError:
        return
    context = data.draw(st.lists(st.integers(0, 4), max_size=4))
    probs = np.exp(model.log_probs(state_after(model, context)).astype(float))
    assert np.isfinite(probs).all()
    assert probs.sum() == pytest.approx(1, abs=1e-6)
