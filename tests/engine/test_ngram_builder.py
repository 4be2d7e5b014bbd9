"""Counting with rare contexts left out, choice of the order, and pruning, against plain implementations."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine.kneser_ney import estimate
from charlm.engine.ngram import Level, NGram
from charlm.engine.ngram_builder import NGramFit, Sequences, fit
from charlm.engine.ngram_counts import NGramCounter
from charlm.engine.ngram_pruning import EstimatedOrder, _scores
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import VERSE
from tests.engine.test_ngram import discounts_of_counts, joined, state_after

TOKENIZER = CharTokenizer.from_text(VERSE)
IDS = TOKENIZER.encode("\n" + VERSE)
HELD_OUT = IDS[-len(IDS) // 5 :]
TRAINED = IDS[: -len(IDS) // 5]


def build(
    ids: np.ndarray = IDS,
    *,
    max_order: int = 6,
    max_bytes: float = 1e9,
    repeated_order: int = 99,
    validation: Sequences | None = None,
) -> NGramFit:
    return fit(
        Sequences(ids=ids),
        TOKENIZER.vocab_size,
        max_order=max_order,
        max_bytes=max_bytes,
        repeated_order=repeated_order,
        validation=validation,
    )


def grams(sequences: list[list[int]], length: int) -> Counter[tuple[int, ...]]:
    """Count the n-grams of one order that end after the first token of a sequence."""
    ends = [(sequence, end) for sequence in sequences for end in range(max(2, length), len(sequence) + 1)]
    return Counter(tuple(sequence[end - length : end]) for sequence, end in ends)


def counted(counter: NGramCounter, all_tokens: list[list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """Return the n-grams of the highest order as tuples of tokens."""
    current, lower = counter.current, all_tokens[-1]
    return [(*lower[context], token) for context, token in zip(current.contexts, current.tokens.tolist(), strict=True)]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=14), min_size=1, max_size=4))
def test_counts_without_rare_contexts_are_those_of_all_ngrams(sequences: list[list[int]]) -> None:
    ids, starts = joined(sequences)
    counter = NGramCounter(ids, 4, starts, min_occurrences=2)
    names: list[list[tuple[int, ...]]] = [[()], [(token,) for token in range(4)]]
    for order in range(2, 6):
        lower = counter.extend()
        names.append(counted(counter, names))
        expected = grams(sequences, order)
        contexts = Counter(tuple(s[i : i + order - 1]) for s in sequences for i in range(len(s) - order + 2))
        kept = {gram: count for gram, count in expected.items() if contexts[gram[:-1]] >= 2}
        assert dict(zip(names[-1], counter.current.occurrences.tolist(), strict=True)) == kept
        assert counter.current.num_left_out == len(expected) - len(kept)
        suffixes = [names[-2][index] for index in counter.current.suffixes]
        assert suffixes == [gram[1:] for gram in names[-1]]
        preceding = Counter(gram[1:] for gram in expected)
        at_start = Counter(tuple(s[: order - 1]) for s in sequences if len(s) >= order - 1 and order > 2)
        found = dict(zip(names[-2], lower.continuation_counts.tolist(), strict=True))
        assert found == {gram: preceding[gram] + at_start[gram] for gram in names[-2]}


def test_a_text_without_rare_contexts_gives_the_same_model_as_all_its_ngrams() -> None:
    ids = np.tile(np.array([1, 2, 3, 1, 2, 1, 4, 2]), 40)
    whole = estimate(ids, order=4, vocab_size=TOKENIZER.vocab_size)
    np.testing.assert_allclose(build(ids, max_order=4).model.nats(ids), whole.nats(ids), atol=1e-3)


def test_the_order_is_that_with_the_lowest_loss() -> None:
    chosen = build(TRAINED, max_order=9, validation=Sequences(ids=HELD_OUT))
    order = chosen.model.order
    assert 1 < order == max(chosen.losses) - 1
    losses = [build(TRAINED, max_order=k).model.nats(HELD_OUT)[1:].mean() for k in range(1, order + 2)]
    assert [chosen.losses[k] for k in range(1, order + 2)] == pytest.approx(losses, abs=2e-3)
    assert losses[order - 1] < min(losses[: order - 1])


def test_ngrams_of_a_high_order_must_occur_twice() -> None:
    model = build(max_order=5, repeated_order=4).model
    for order in (4, 5):
        expected = sum(count > 1 for count in grams([IDS.tolist()], order).values())
        assert len(model.levels[order - 2].tokens) == expected


@pytest.mark.parametrize("max_bytes", [1e9, 20_000, 5_000, 1_000, 0])
def test_a_pruned_model_has_the_size_and_sums_to_one(max_bytes: float) -> None:
    pruned = build(max_bytes=max_bytes)
    tensors = pruned.model.to_tensors()
    size = sum(array.nbytes for array in tensors.values())
    smallest = 5 * TOKENIZER.vocab_size
    assert size <= max(max_bytes, smallest)
    assert size > 0.95 * min(max_bytes, 3 * pruned.num_counted)
    model = NGram.from_tensors(tensors)
    for context in ("", "To b", "xyz", "\nHAMLET:\nTo"):
        probs = np.exp(model.log_probs(state_after(model, TOKENIZER.encode(context).tolist())).astype(float))
        assert probs.sum() == pytest.approx(1, abs=1e-5)


def test_pruning_leaves_out_the_ngrams_that_matter_least() -> None:
    losses = [float(build(max_bytes=size).model.nats(IDS)[1:].mean()) for size in (1e9, 12_000, 6_000, 3_000)]
    assert losses == sorted(losses)
    cut = build(repeated_order=2)
    size = sum(array.nbytes for array in cut.model.to_tensors().values())
    assert float(build(max_bytes=size).model.nats(IDS)[1:].mean()) < float(cut.model.nats(IDS)[1:].mean())


def test_the_score_of_an_ngram_is_the_relative_entropy_without_it() -> None:
    """A context with one n-gram, for which the formula is exact: remove it, and compare the two distributions."""
    unigrams = Level(np.arange(3, dtype=np.uint8), np.array([0.5, 0.2, 0.1], np.float32), np.array([0, 3], np.uint32))
    pairs = Level(np.array([2], np.uint8), np.array([0.7], np.float32), np.array([0, 1, 1, 1], np.uint32))
    zeros = np.zeros(3, dtype=np.int32)
    unused = {"counts": zeros, "totals": zeros, "discounts": np.zeros(4)}
    orders = [
        EstimatedOrder(level=unigrams, contexts=zeros, suffixes=zeros, occurrences=np.array([6, 3, 1]), **unused),
        EstimatedOrder(level=pairs, contexts=zeros[:1], suffixes=np.array([2]), occurrences=np.array([4]), **unused),
    ]
    lower = np.array([0.5, 0.2, 0.1]) + 0.2 / 3
    kept = np.array([0, 0, 0.7]) + 0.3 * lower
    expected = 6 / 10 * sum(p * math.log(p / q) for p, q in zip(kept, lower, strict=True))
    assert _scores(orders, 10)[0].tolist() == pytest.approx([expected], rel=1e-5)


def kept_ngrams(model: NGram) -> dict[tuple[int, ...], float]:
    """Return the weights of the n-grams of a model by their tokens."""
    tensors = model.to_tensors()
    names: list[tuple[int, ...]] = [(token,) for token in range(model.vocab_size)]
    found = dict(zip(names, tensors["weights.1"].tolist(), strict=True))
    for order in range(2, model.order + 1):
        contexts = np.repeat(np.arange(len(names)), tensors[f"counts.{order}"])
        tokens, weights = (tensors[f"{part}.{order}"].tolist() for part in ("tokens", "weights"))
        names = [(*names[context], token) for context, token in zip(contexts, tokens, strict=True)]
        found |= dict(zip(names, weights, strict=True))
    return found


def test_an_ngram_that_is_left_out_adds_its_count_to_that_of_its_suffix() -> None:
    """The weights of a pruned model are those of a plain implementation with dictionaries."""
    order, ids = 4, IDS.tolist()
    kept = kept_ngrams(build(max_order=order, max_bytes=1200).model)
    counts: Counter[tuple[int, ...]] = grams([ids], order)
    assert any(count > 1 and gram not in kept for gram, count in counts.items())
    added: Counter[tuple[int, ...]] = Counter()
    for length in range(order, 0, -1):
        one, two, three = discounts_of_counts(list(counts.values()))
        adjusted = {gram: count + added[gram] for gram, count in counts.items()}
        totals: Counter[tuple[int, ...]] = Counter()
        for gram, count in adjusted.items():
            totals[gram[:-1]] += count
        for gram, count in adjusted.items():
            if gram in kept:
                discount = one if count == 1 else two if count == 2 else three
                assert kept[gram] == pytest.approx((count - discount) / totals[gram[:-1]], rel=1e-3)
        added = Counter()
        for gram, count in adjusted.items():
            added[gram[1:]] += count - 1 if gram not in kept else 0
        counts = Counter(gram[1:] for gram in adjusted)
        if length > 2:
            counts[tuple(ids[: length - 1])] += 1
