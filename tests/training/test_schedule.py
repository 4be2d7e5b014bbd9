import numpy as np
import pytest

from charlm.config import TrainConfig
from charlm.training.batches import StreamBatches
from charlm.training.schedule import FINAL_RATE, MIN_UPDATES, Schedule, learning_rate
from charlm.training.stopwatch import Stopwatch

BATCHES = StreamBatches(np.zeros(1000, dtype=np.int64), 4, 8, start_id=0)


def test_the_learning_rate_rises_during_warm_up_and_then_falls() -> None:
    config = TrainConfig(steps=1, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(config, fraction) for fraction in np.linspace(0, 1, 101)]
    assert np.argmax(rates) == 10
    assert max(rates) == pytest.approx(1)
    assert rates[-1] == pytest.approx(FINAL_RATE)
    assert np.all(np.diff(rates[10:]) < 0)


def test_without_a_time_limit_only_updates_count() -> None:
    schedule = Schedule(TrainConfig(epochs=2), Stopwatch(iter(range(0, 10**6, 1000)).__next__), BATCHES, 10)
    steps = 2 * BATCHES.steps_per_epoch
    assert schedule.fraction(round(steps / 2)) == pytest.approx(0.5, abs=0.01)
    schedule.record_validation(1e9)
    assert schedule.has_time_to_validate()


def test_with_a_time_limit_the_last_validation_has_time() -> None:
    now = [0.0]
    schedule = Schedule(TrainConfig(minutes=1), Stopwatch(lambda: now[0]), BATCHES, 10)
    schedule.record_validation(1.0)
    now[0] = 29.5
    assert schedule.fraction(MIN_UPDATES) == 0.5
    assert not schedule.has_time_to_validate()
    assert schedule.max_validation_tokens(0.01) == 600
    schedule.reserve(29.5)
    assert schedule.fraction(MIN_UPDATES) == 29.5 / 29.5


def test_with_a_time_limit_the_first_updates_take_place_in_any_case() -> None:
    schedule = Schedule(TrainConfig(minutes=1), Stopwatch(lambda: 0.0, seconds=120.0), BATCHES, 10)
    assert [schedule.fraction(step) < 1 for step in range(MIN_UPDATES + 2)] == [True] * MIN_UPDATES + [False] * 2


def test_with_a_time_limit_validations_are_40_times_their_duration_apart() -> None:
    now = [0.0]
    schedule = Schedule(TrainConfig(minutes=2), Stopwatch(lambda: now[0]), BATCHES, 10)
    schedule.record_validation(1.0)
    validated_at = []
    for now[0] in range(1, 120):
        if schedule.has_time_to_validate():
            validated_at.append(now[0])
            schedule.record_validation(1.0)
    assert validated_at == [40, 80]
    assert schedule.fraction(MIN_UPDATES) == 1
