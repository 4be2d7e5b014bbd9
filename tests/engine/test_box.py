"""The model in the box: what it says of itself is so, and it reads a text from its middle as well as from its start."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import ModelScorer
from charlm.text.corpus import read_corpus
from tests.conftest import Charlm

BOX = Path(__file__).parents[2] / "checkpoints" / "shakespeare" / "model.safetensors"
WINDOW, WINDOWS = 256, 120


@pytest.fixture(scope="module")
def network() -> RecurrentNetwork:
    return RecurrentNetwork.load(BOX)


@pytest.fixture(scope="module")
def held_out() -> str:
    """The first characters of the plays that the model never learnt."""
    text = read_corpus(["shakespeare"]).text
    begin = len(text) - round(0.1 * len(text))
    return text[begin : begin + WINDOW * WINDOWS]


def test_it_is_small_and_tells_how_it_was_made() -> None:
    metadata = load_checkpoint(BOX).metadata
    assert BOX.stat().st_size <= 6_000_000
    assert metadata["command"].startswith("charlm train shakespeare ")
    assert metadata["corpus"]["name"] == "shakespeare"
    assert metadata["corpus"]["sha256"] == read_corpus(["shakespeare"]).sha256


def test_a_cold_start_costs_little_and_is_soon_forgotten(network: RecurrentNetwork, held_out: str) -> None:
    scorer = ModelScorer(network)
    windows = [held_out[begin : begin + WINDOW] for begin in range(0, len(held_out), WINDOW)]
    cold = np.stack([costs.nats for costs in scorer.score_lines(windows)])
    stream = scorer.start_stream()
    carried = np.concatenate([stream.feed(window).nats for window in windows]).reshape(cold.shape)
    assert cold.mean() - carried.mean() < 0.15
    assert cold[:, 64:].mean() - carried[:, 64:].mean() < 0.03
    said = load_checkpoint(BOX).metadata["metrics"]["val_nats"]
    assert carried.mean() == pytest.approx(said, abs=0.1)  # a part of the text that was measured in training


def test_it_is_what_sample_uses_where_nothing_was_trained(charlm: Charlm, tmp_path: Path) -> None:
    shutil.copytree(BOX.parent, tmp_path / "checkpoints" / "shakespeare")
    sample = charlm("sample", "--seed", "1", "-n", "60")
    assert sample.returncode == 0
    assert len(sample.stdout.rstrip("\n")) >= 59
