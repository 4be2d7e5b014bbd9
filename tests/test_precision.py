import pytest
import torch

from charlm import precision
from charlm.config import Precision, TrainConfig
from charlm.parallel import Workers
from charlm.precision import faster_precision, mixed_precision
from tests.conftest import make_checkpoint

CONFIG = TrainConfig(batch_size=2, seq_len=4, steps=1)


@pytest.mark.parametrize(("bf16_seconds", "chosen"), [(0.5, "bf16"), (0.95, "fp32"), (2.0, "fp32")])
def test_bf16_is_taken_where_it_is_clearly_faster(
    bf16_seconds: float, chosen: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"fp32": 1.0, "bf16": bf16_seconds}
    monkeypatch.setattr(precision, "_seconds_per_step", lambda model, config, which: seconds[which])
    assert faster_precision(make_checkpoint()[0], CONFIG, Workers()) == chosen


def test_timing_leaves_weights_gradients_and_random_state_alone() -> None:
    model, _ = make_checkpoint(dropout=0.5)
    weights = [weight.clone() for weight in model.parameters()]
    state = torch.get_rng_state()
    faster_precision(model, CONFIG, Workers())
    assert all(torch.equal(before, after) for before, after in zip(weights, model.parameters(), strict=True))
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_only_bf16_changes_the_arithmetic() -> None:
    model, _ = make_checkpoint()
    ids = torch.zeros((1, 3), dtype=torch.int64)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with mixed_precision(name, torch.device("cpu")):
            assert model(ids)[0].dtype == dtype
