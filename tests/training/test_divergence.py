import math
from pathlib import Path

import pytest
import torch

from charlm.config import ModelConfig, TrainConfig
from charlm.engine.runs import Run
from charlm.errors import TrainingError
from charlm.training.divergence import DivergedError, DivergenceGuard
from charlm.training.network import LanguageModel
from charlm.training.optimizer import make_optimizer
from charlm.training.state import TrainingState


@pytest.fixture
def state() -> TrainingState:
    model = LanguageModel(ModelConfig(vocab_size=5, hidden_size=4, embedding_dim=4))
    return TrainingState(
        model=model, optimizer=make_optimizer(model, TrainConfig(steps=1)), streams=model.core.zero_state(2)
    )


def make_guard(state: TrainingState, warnings: list[str] | None = None) -> DivergenceGuard:
    return DivergenceGuard(state, 0.5, Run(Path("run")), [].append if warnings is None else warnings.append)


@pytest.mark.parametrize(("nats", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_a_loss_or_gradient_that_is_not_finite_is_divergence(state: TrainingState, nats: float, norm: float) -> None:
    with pytest.raises(DivergedError):
        make_guard(state).check(nats, norm)


def test_a_single_large_loss_is_not_divergence_but_many_are(state: TrainingState) -> None:
    guard, large = make_guard(state), 12 * math.log(5)
    state.counters.recent_nats = guard.check(large, 1.0)
    with pytest.raises(DivergedError):  # noqa: PT012 - the moving average needs some updates
        for _ in range(10):
            state.counters.recent_nats = guard.check(large, 1.0)


def test_a_snapshot_is_due_only_if_the_loss_is_below_that_of_a_guess(state: TrainingState) -> None:
    guard = make_guard(state)
    state.counters.recent_nats = 2 * math.log(5)
    guard.request_snapshot()
    assert not guard.is_due
    state.counters.recent_nats = 0.5 * math.log(5)
    guard.request_snapshot()
    assert guard.is_due
    guard.keep_snapshot()
    assert not guard.is_due


def test_recoveries_go_back_further_each_time_and_end_with_an_error(state: TrainingState) -> None:
    warnings: list[str] = []
    guard, bias = make_guard(state, warnings), state.model.decoder.bias
    for step in (10, 20, 30):
        state.counters.step = step
        bias.detach().fill_(step)
        guard.keep_snapshot()
    found = []
    for _ in range(3):
        state.counters.step, state.counters.best_nats = 35, 1.5
        bias.detach().fill_(math.nan)
        guard.recover(DivergedError("loss nan"))
        found.append((state.counters.step, float(bias.detach()[0]), state.counters.best_nats))
    assert found == [(30, 30.0, 1.5), (20, 20.0, 1.5), (20, 20.0, 1.5)]
    assert state.counters.rate_scale == pytest.approx(0.3**3)
    assert warnings[0] == (
        "the training diverged at step 35 (loss nan); it continues from step 30 with 0.3 times the learning rate"
    )
    with pytest.raises(TrainingError, match=r"3 returns .* set learning_rate below 0\.5") as raised:
        guard.recover(DivergedError("loss nan"))
    assert raised.value.fields == ("learning_rate",)
    assert torch.isfinite(bias).all()
