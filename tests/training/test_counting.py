"""N-gram models of trainings: what is counted, the weight beside the network, and the whole way to the model file."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.config import TrainConfig
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.kneser_ney import estimate
from charlm.engine.mixture import open_predictor
from charlm.engine.ngram import MAX_ORDER
from charlm.engine.scorer import ModelScorer
from charlm.errors import ConfigError
from charlm.training import counting, validation
from charlm.training.counting import (
    best_weight,
    count_ngrams,
    interpolated_nats,
    item_sequences,
    text_sequence,
    wants_counts,
)
from charlm.training.dataset import Dataset
from charlm.training.progress import Progress
from charlm.training.setup import prepare_new, run
from tests.conftest import VERSE
from tests.training.test_items import NAMES, TOKENIZER, name_items
from tests.training.test_setup import ONE_THREAD, dataset_of, request

WORDS = np.random.default_rng(1).choice(VERSE.split(), size=3000)
LONG = "".join(f"{word}{' ' if number % 9 else chr(10)}" for number, word in enumerate(WORDS))
SETTINGS = {"steps": 30, "hidden_size": 8, "batch_size": 4, "seq_len": 16, "precision": "fp32", "learning_rate": 0.05}


@pytest.fixture
def play() -> str:
    Path("play.txt").write_text(LONG, encoding="utf-8")
    return "play.txt"


def train(corpus: str, **settings: Any) -> tuple[Any, Progress]:
    return run(request(corpus, settings={**SETTINGS, **settings}, hardware=ONE_THREAD, name="mine", force=True))


NATS = st.lists(st.tuples(st.floats(0.01, 12), st.floats(0.01, 12)), min_size=1, max_size=30)


@given(NATS)
def test_the_weight_has_the_lowest_loss(pairs: list[tuple[float, float]]) -> None:
    network, ngram = (np.array(part, dtype=np.float32) for part in zip(*pairs, strict=True))
    weight = best_weight(network, ngram)
    grid = [interpolated_nats(network, ngram, other) for other in np.linspace(0, 1, 201)]
    assert 0 <= weight <= 1
    found = interpolated_nats(network, ngram, weight)
    assert found <= min(grid) + (1e-6 if weight else counting.MIN_GAIN + 1e-6)
    expected = [-math.log((1 - weight) * math.exp(-one) + weight * math.exp(-other)) for one, other in pairs]
    assert found == pytest.approx(np.mean(expected), abs=1e-5)


def test_ngrams_that_hardly_help_have_no_weight() -> None:
    network = np.full(1000, 1.0, dtype=np.float32)
    ngram = np.where(np.arange(1000) < 1, 0.5, 3.0).astype(np.float32)
    assert best_weight(network, ngram) == 0
    assert best_weight(network, network) == 0
    assert best_weight(ngram, network) == 1


def test_items_are_counted_and_scored_each_by_itself() -> None:
    start = int(TOKENIZER.encode("\n")[0])
    items = name_items().select(np.arange(len(NAMES))[::-1])
    sequences = item_sequences(items, start)
    texts = [TOKENIZER.encode(f"\n{name}\n") for name in NAMES[::-1]]
    np.testing.assert_array_equal(sequences.ids, np.concatenate(texts))
    model = estimate(sequences.ids, order=3, vocab_size=TOKENIZER.vocab_size, starts=sequences.starts)
    expected = np.concatenate([model.nats(text)[1:] for text in texts])
    np.testing.assert_allclose(sequences.nats(model), expected, atol=1e-6)


def test_parts_of_a_long_text_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_COUNTED_CHARS", 4096)
    monkeypatch.setattr(counting, "COUNTED_PARTS", 8)
    from charlm.config import TokenizerConfig

    dataset = dataset_of(LONG, TokenizerConfig())
    counts = count_ngrams(dataset, {"ngram_order": 4})
    assert f"in 4,096 of {dataset.num_train_tokens:,} tokens" in counts.notes[0]
    parts = counting._training_sequences(dataset, 1)
    assert len(parts.starts) == 8
    assert parts.ids[-512:].tolist() == dataset.train_ids[-512:].tolist()
    assert parts.ids[:512].tolist() == dataset.train_ids[:512].tolist()


SHORT, NO_VALIDATION = "a short text", "no validation text"


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({}, "", True),
        ({}, SHORT, False),
        ({}, NO_VALIDATION, False),
        ({"ngram": False}, "", False),
        ({"ngram": False}, NO_VALIDATION, False),
        ({"ngram": True}, SHORT, True),
        ({"ngram_order": 3}, SHORT, True),
        ({"ngram_size": 1.0}, SHORT, True),
        ({"ngram": True}, NO_VALIDATION, "ngram: .* there is none"),
        ({"ngram_order": 4}, NO_VALIDATION, "ngram_order: .* there is none"),
    ],
)
def test_a_text_to_validate_on_and_enough_to_count_are_needed(
    settings: dict[str, Any], kind: str, expected: bool | str
) -> None:
    ids = np.zeros(9_999 if kind == SHORT else 10_000, dtype=np.uint8)
    dataset = Dataset(tokenizer=TOKENIZER, train_ids=ids, val_ids=ids[: 0 if kind == NO_VALIDATION else 10])
    if isinstance(expected, bool):
        assert wants_counts(settings, dataset) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            wants_counts(settings, dataset)


def test_a_range_of_the_settings_is_that_of_the_engine() -> None:
    assert TrainConfig.__dataclass_fields__["ngram_order"].metadata["rule"].maximum == MAX_ORDER


def test_order_and_size_of_ngrams_that_are_switched_off_are_refused(play: str) -> None:
    with pytest.raises(ConfigError, match="switched off"):
        train(play, ngram=False, ngram_order=3)


@pytest.mark.parametrize(
    "more", [{}, {"tokenizer": "word", "ngram": True}, {"half": True}, {"ngram_order": 2, "ngram_size": 0.002}]
)
def test_the_validation_loss_is_that_of_the_mixture_in_the_model_file(play: str, more: dict[str, Any]) -> None:
    made, end = train(play, **more)
    checkpoint = load_checkpoint(made.model)
    metrics = checkpoint.metadata["metrics"]
    assert checkpoint.counts is not None
    assert checkpoint.counts.weight == metrics["ngram_weight"] > 0
    assert metrics["val_nats"] == end.best_nats <= min(metrics["val_nats_network"], metrics["val_nats_ngram"])
    if more.get("ngram_order"):
        assert checkpoint.counts.ngram.order == 2
        assert checkpoint.counts.ngram.num_bytes <= 2000
    with prepare_new(request(play, settings={**SETTINGS, **more}), dry_run=True) as training:
        held_out = training.dataset.val_ids
        expected = training.ngram
    assert expected is not None
    ids = checkpoint.counts.ngram.to_tensors()
    for name, array in expected.to_tensors().items():
        np.testing.assert_array_equal(array, ids[name])
    predictor = open_predictor(checkpoint)
    nats = predictor.score([text_sequence(held_out, int(checkpoint.tokenizer.encode("\n")[0])).ids]).nats
    assert float(nats.mean()) == pytest.approx(metrics["val_nats"], abs=2e-3)
    ngram_nats = text_sequence(held_out, int(checkpoint.tokenizer.encode("\n")[0])).nats(checkpoint.counts.ngram)
    assert float(ngram_nats.mean()) == pytest.approx(metrics["val_nats_ngram"], abs=1e-5)


def test_the_loss_of_a_list_is_that_of_its_items(play: str) -> None:
    del play
    names = [f"{first}{second}" for first in NAMES for second in NAMES[:12]]
    Path("names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    made, _ = train("names.txt", items="line", ngram=True)
    checkpoint = load_checkpoint(made.model)
    assert checkpoint.counts is not None
    with prepare_new(request("names.txt", settings={**SETTINGS, "items": "line"}), dry_run=True) as training:
        items = training.dataset.items
        assert items is not None
        texts = [
            training.dataset.tokenizer.decode(items.validation.ids[start : start + length])
            for start, length in zip(items.validation.starts, items.validation.lengths, strict=True)
        ]
    scores = ModelScorer(open_predictor(checkpoint)).score_lines(texts)
    nats = np.concatenate([score.nats for score in scores])
    assert float(nats.mean()) == pytest.approx(checkpoint.metadata["metrics"]["val_nats"], abs=1e-4)


def test_ngrams_that_do_not_help_are_not_in_the_model_file(play: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (counting, validation):
        monkeypatch.setattr(module, "MIN_GAIN", 99.0)
    made, _ = train(play)
    assert load_checkpoint(made.model).counts is None
    last = load_checkpoint(made.last)
    assert last.counts is not None
    assert last.counts.weight == 0
    metrics = load_checkpoint(made.model).metadata["metrics"]
    assert metrics["val_nats"] == metrics["val_nats_network"]


def test_fine_tuning_counts_the_new_text(play: str) -> None:
    made, _ = train(play)
    Path("other.txt").write_text(LONG.upper(), encoding="utf-8")
    given = request("other.txt", settings={**SETTINGS, "hidden_size": None, "learning_rate": None}, name="other")
    tuned, _ = run(replace(given, pretrained=str(made.model), hardware=ONE_THREAD))
    old, new = (load_checkpoint(one.model).counts for one in (made, tuned))
    assert old is not None
    assert new is not None
    assert new.ngram.vocab_size > old.ngram.vocab_size
    made_upper = load_checkpoint(made.model).tokenizer.encode("\nTO BE, OR NOT TO BE")
    upper = load_checkpoint(tuned.model).tokenizer.encode("\nTO BE, OR NOT TO BE")
    assert new.ngram.nats(upper).mean() < old.ngram.nats(made_upper).mean()
