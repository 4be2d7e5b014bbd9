import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.engine import naive_bayes
from charlm.engine.naive_bayes import ClassWeights, NaiveBayes, held_out_logits, make_word_tokenizer
from charlm.text.text_features import spelling_features, word_features

TEXTS = ["a good film", "a good good film !", "a bad film", "Bad , very bad", "fine", "a fine film , not bad"]
LABELS = np.array([1, 1, 0, 0, 1, 2])


def runs_of(text: str) -> set[str]:
    """The runs of two to five characters of the words of a text, with the spaces next to them."""
    words = [f" {word} " for word in text.lower().split()]
    return {word[i : i + n] for word in words for n in (2, 3, 4, 5) for i in range(len(word) - n + 1)}


def words_of(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {(word,) for word in words} | set(pairwise(words))


def plain_logits(features: Sequence[set[object]], labels: Sequence[int], wanted: set[object]) -> list[float]:
    """Naive Bayes as in a textbook."""
    counts = [
        Counter(f for own, label in zip(features, labels, strict=True) if label == c for f in own) for c in range(3)
    ]
    known = set().union(*features)
    totals = [sum(count.values()) + len(known) for count in counts]
    return [sum(math.log((counts[c][feature] + 1) / totals[c]) for feature in wanted & known) for c in range(3)]


@pytest.mark.parametrize("text", ["a good film", "very fine , unseen", "nothing known", "", "bad bad bad"])
def test_logits_equal_those_of_a_textbook(text: str) -> None:
    words, spelling = NaiveBayes.fit(TEXTS, LABELS, 3).logits([text, "other"])
    expected = plain_logits([set(words_of(own)) for own in TEXTS], LABELS.tolist(), set(words_of(text)))
    np.testing.assert_allclose(words[0], expected, rtol=1e-4, atol=1e-5)
    expected = plain_logits([set(runs_of(own)) for own in TEXTS], LABELS.tolist(), set(runs_of(text)))
    np.testing.assert_allclose(spelling[0], expected, rtol=1e-4, atol=1e-5)


def test_held_out_logits_ignore_the_labels_of_their_own_part() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices("abcdefgh", k=5)) for _ in range(40)]
    labels = np.array([rng.randrange(2) for _ in texts])
    first = held_out_logits(texts, labels, 2)
    changed = labels.copy()
    changed[7] = 1 - changed[7]
    second = held_out_logits(texts, changed, 2)
    for before, after in zip(first, second, strict=True):
        np.testing.assert_array_equal(before[7], after[7])
        assert (before[8] != after[8]).any()


def test_blocks_and_limits_do_not_change_the_order_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = NaiveBayes.fit(TEXTS, LABELS, 3)
    monkeypatch.setattr(naive_bayes, "BLOCK_TEXTS", 2)
    blocks = NaiveBayes.fit(TEXTS, LABELS, 3)
    np.testing.assert_array_equal(whole.spelling.keys, blocks.spelling.keys)
    np.testing.assert_array_equal(whole.words.weights, blocks.words.weights)
    monkeypatch.setattr(naive_bayes, "MAX_WEIGHTS", 3 * 10)
    limited = NaiveBayes.fit(TEXTS, LABELS, 3)
    assert len(limited.words.keys) == len(limited.spelling.keys) == 10
    assert (np.diff(limited.words.keys) > 0).all()


@given(st.lists(st.text(alphabet="ab \nÄ語🙂", max_size=8), min_size=1, max_size=4))
def test_features_are_those_of_each_text_alone(texts: list[str]) -> None:
    tokenizer = make_word_tokenizer(TEXTS + texts)
    for features, alone in (
        (spelling_features(texts), [spelling_features([text]) for text in texts]),
        (word_features(texts, tokenizer), [word_features([text], tokenizer) for text in texts]),
    ):
        for index, own in enumerate(alone):
            assert sorted(features.keys[features.texts == index]) == sorted(own.keys)
    counts = [len(runs_of(text)) for text in texts]
    assert [len(set(spelling_features([text]).keys.tolist())) for text in texts] == counts


def test_weights_of_a_file_are_checked() -> None:
    keys, weights = np.array([3, 3]), np.zeros((2, 2), dtype=np.float32)
    with pytest.raises(ValueError, match="ascending"):
        ClassWeights(keys, weights).check()
    with pytest.raises(ValueError, match="do not fit"):
        ClassWeights(keys[:1], weights).check()
