import math
import os
from pathlib import Path

import numpy as np
import pytest

from charlm.config import TrainConfig
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.runs import Run
from charlm.errors import CheckpointError
from charlm.training.checkpoint_writer import CheckpointWriter
from charlm.training.dataset import Dataset
from charlm.training.progress import Progress
from charlm.training.state import Counters
from tests.conftest import make_checkpoint

PROGRESS = Progress(
    step=3,
    epoch=0.5,
    seconds=2.0,
    fraction=0.1,
    train_nats=math.nan,
    val_nats=2.0,
    best_nats=2.0,
    tokens_per_second=10.0,
    learning_rate=0.1,
)


def test_a_best_model_that_cannot_be_written_is_kept_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = make_checkpoint()
    warnings: list[str] = []
    config, run = TrainConfig(steps=1), Run(Path("run"))
    ids = np.zeros(1, dtype=np.uint8)
    dataset = Dataset(tokenizer=made.tokenizer, train_ids=ids, val_ids=ids, chars_per_token=2.0)
    writer = CheckpointWriter(run, model, dataset, config, metadata={"x": 1}, warn=warnings.append)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = {name: np.array(array) for name, array in model.to_tensors().items()}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        writer.write_best(PROGRESS)
        model.decoder.bias.detach().add_(1)  # the training continues
        writer.save(PROGRESS, Counters(step=4), {}, finished=False, must=False)
        with pytest.raises(CheckpointError, match="No space left"):
            writer.save(PROGRESS, Counters(step=4), {}, finished=False, must=True)
    assert len(warnings) == 1
    assert "No space left on device" in warnings[0]
    assert "the next save will try again" in warnings[0]
    assert writer.has_model
    assert not run.model.exists()

    writer.save(PROGRESS, Counters(step=4), {}, finished=False, must=False)
    best, last = load_checkpoint(run.model), load_checkpoint(run.last)
    for name, array in before.items():
        np.testing.assert_array_equal(best.tensors[name], array)
    np.testing.assert_array_equal(last.tensors["decoder.bias"], before["decoder.bias"] + 1)
    assert best.metadata["metrics"]["val_bits_per_char"] == pytest.approx(2 / math.log(2) / 2)
    assert best.metadata["metrics"]["train_nats"] is None
    assert last.metadata["resume"]["step"] == 4
    assert not last.metadata["finished"]
    assert last.metadata["x"] == 1
