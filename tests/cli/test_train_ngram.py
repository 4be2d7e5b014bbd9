"""`charlm train --cell ngram`: a model without a network."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import charlm as package
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.kneser_ney import estimate
from charlm.errors import CheckpointError, ConfigError, RunError
from charlm.training.request import Request
from charlm.training.resumption import prepare_resumed
from charlm.training.setup import prepare_new
from tests.conftest import Charlm
from tests.training.test_counting import LONG


@pytest.fixture
def play() -> str:
    Path("play.txt").write_text(LONG, encoding="utf-8")
    return "play.txt"


def test_a_model_of_ngrams_is_trained_and_used_without_pytorch(play: str) -> None:
    code = (
        "import sys; from charlm.cli import main\n"
        "sys.modules['torch'] = None\n"  # an import fails
        "main(sys.argv[1:])\n"
    )
    for arguments in (
        ["train", play, "--cell", "ngram", "--name", "mine"],
        ["sample", "-m", "mine", "-n", "40", "--seed", "1"],
        ["score", "-m", "mine", play],
        ["next", "-m", "mine", "--prime", "To be"],
        ["info", "mine"],
    ):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_loss_is_that_of_the_model_file(play: str, charlm: Charlm) -> None:
    done = charlm("train", play, "--cell", "ngram", "--ngram-order", 3, "--name", "mine")
    assert done.stdout == "checkpoints/mine/model.safetensors\n"
    assert "n-grams, order 3" in done.stderr
    assert "next" in done.stderr
    assert "before" not in done.stderr
    checkpoint = load_checkpoint(Path("checkpoints/mine/model.safetensors"))
    assert checkpoint.counts is not None
    assert checkpoint.counts.weight == 1
    held_out = LONG[-(len(LONG) - int(len(LONG) * 0.9)) :]
    ids = checkpoint.tokenizer.encode("\n" + held_out)
    expected = float(checkpoint.counts.ngram.nats(ids)[1:].mean())
    assert checkpoint.metadata["metrics"]["val_nats"] == pytest.approx(expected, abs=0.01)
    line = json.loads(Path("checkpoints/mine/log.jsonl").read_text(encoding="utf-8"))
    assert line["val_nats"] == checkpoint.metadata["metrics"]["val_nats"]
    scored = json.loads(charlm("score", "-m", "mine", "--total", "--json", stdin=held_out).stdout)
    assert scored["nats_per_token"] == pytest.approx(expected, abs=0.01)
    whole = estimate(
        checkpoint.tokenizer.encode("\n" + LONG[: int(len(LONG) * 0.9)]),
        order=3,
        vocab_size=len(checkpoint.tokenizer.tokens),
    )
    assert float(whole.nats(ids)[1:].mean()) == pytest.approx(expected, abs=0.02)


def test_words_and_lists_are_counted_too(play: str) -> None:
    words = package.train(play, cell="ngram", tokenizer="word", name="words", val_fraction=0)
    assert words.metrics["val_nats"] is None
    Path("list.txt").write_text("\n".join(sorted(set(LONG.split()))) + "\n", encoding="utf-8")
    items = package.train("list.txt", cell="ngram", items="line", name="items")
    assert items.metrics["val_nats"] > 0
    assert len(list(package.load("items").items(3, seed=1))) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 1.0}, "omit minutes"),
        ({"hidden_size": 8, "learning_rate": 0.1}, "omit hidden_size and learning_rate"),
        ({"dropout": 0.1}, "omit dropout"),
        ({"half": True}, "omit half"),
        ({"device": "cpu"}, "omit device"),
        ({"glove": "vectors.txt"}, "omit glove"),
        ({"ngram": False}, "switched off"),
        ({"validation": "play.txt", "val_fraction": 0.1}, "contradict each other"),
    ],
)
def test_settings_of_networks_are_refused(play: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        package.train(play, cell="ngram", **settings)
    assert not Path("checkpoints").exists()


def test_a_model_without_a_network_is_neither_resumed_nor_fine_tuned(play: str, charlm: Charlm) -> None:
    package.train(play, cell="ngram", name="mine")
    request = Request(corpus=[play], pretrained="mine", settings={"steps": 1})
    with pytest.raises(CheckpointError, match="without a network cannot be fine-tuned"), prepare_new(request):
        pass
    with pytest.raises(RunError, match="there is nothing to resume"), prepare_resumed(Request(), "mine"):
        pass
    assert charlm("train", play, "--cell", "ngram", "--plan").returncode == 2
    assert charlm("train", "--cell", "ngram").returncode == 2


def test_the_same_text_gives_the_same_file(play: str) -> None:
    tensors = []
    for name in ("one", "other"):
        counts = load_checkpoint(package.train(play, cell="ngram", name=name).path / "model.safetensors").counts
        assert counts is not None
        tensors.append(counts.ngram.to_tensors())
    for name, array in tensors[0].items():
        np.testing.assert_array_equal(array, tensors[1][name])
