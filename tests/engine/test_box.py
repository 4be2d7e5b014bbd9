"""The model that is shipped with charlm: its metadata is correct, and it scores any part of a text."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.predictor import Predictor
from charlm.engine.scorer import ModelScorer
from charlm.text.corpus import read_corpus
from tests.conftest import Charlm

SHIPPED_MODEL = Path(__file__).parents[2] / "checkpoints" / "shakespeare" / "model.safetensors"
WINDOW_CHARS, NUM_WINDOWS = 256, 60


@pytest.fixture(scope="module")
def model() -> Predictor:
    return open_predictor(load_checkpoint(SHIPPED_MODEL))


@pytest.fixture(scope="module")
def held_out() -> str:
    """Return the first characters of the validation text, which the model was not trained on."""
    text = read_corpus(["shakespeare"]).text
    start = len(text) - round(0.1 * len(text))
    return text[start : start + WINDOW_CHARS * NUM_WINDOWS]


def test_it_is_small_and_its_metadata_says_how_it_was_trained() -> None:
    metadata = load_checkpoint(SHIPPED_MODEL).metadata
    assert SHIPPED_MODEL.stat().st_size <= 8_000_000
    assert metadata["command"].startswith("charlm train shakespeare ")
    assert metadata["corpus"]["name"] == "shakespeare"
    assert metadata["corpus"]["sha256"] == read_corpus(["shakespeare"]).sha256


def test_the_zero_state_costs_little_and_only_in_the_first_characters(model: Predictor, held_out: str) -> None:
    scorer = ModelScorer(model)
    windows = [held_out[start : start + WINDOW_CHARS] for start in range(0, len(held_out), WINDOW_CHARS)]
    cold = np.stack([costs.nats for costs in scorer.score_lines(windows)])
    stream = scorer.start_stream()
    carried = np.concatenate([stream.feed(window).nats for window in windows]).reshape(cold.shape)
    assert cold.mean() - carried.mean() < 0.15
    assert cold[:, 64:].mean() - carried[:, 64:].mean() < 0.03
    val_nats = load_checkpoint(SHIPPED_MODEL).metadata["metrics"]["val_nats"]
    assert carried.mean() == pytest.approx(val_nats, abs=0.1)  # measured in training on more of the validation text


def test_its_parts_are_worse_than_both() -> None:
    checkpoint = load_checkpoint(SHIPPED_MODEL)
    metrics = checkpoint.metadata["metrics"]
    assert checkpoint.counts is not None
    assert checkpoint.counts.weight == metrics["ngram_weight"]
    assert metrics["val_nats_adaptive"] < metrics["val_nats"] < metrics["val_nats_network"] < metrics["val_nats_ngram"]


def test_sample_uses_it_if_there_is_no_other_run(charlm: Charlm, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_MODEL.parent, tmp_path / "checkpoints" / "shakespeare")
    sample = charlm("sample", "--seed", "1", "-n", "60")
    assert sample.returncode == 0
    assert len(sample.stdout.rstrip("\n")) >= 59
