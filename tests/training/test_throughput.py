import time
from dataclasses import replace

import pytest
import torch

from charlm.config import ModelConfig, Precision, TrainConfig
from charlm.errors import ConfigError
from charlm.training import throughput
from charlm.training.network import LanguageModel
from charlm.training.throughput import Machine, mixed_precision
from tests.conftest import make_checkpoint

SHAPE = ModelConfig(vocab_size=9, hidden_size=8, embedding_dim=4)
CONFIG = TrainConfig(batch_size=2, seq_len=4, minutes=1)


@pytest.mark.parametrize(
    ("supported", "bf16_seconds", "chosen"),
    [(True, 0.5, "bf16"), (True, 0.95, "fp32"), (True, 2.0, "fp32"), (False, 0.5, "fp32")],
)
def test_bf16_is_chosen_if_it_is_clearly_faster(
    supported: bool, bf16_seconds: float, chosen: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "can_train_in_bf16", lambda device: supported)
    seconds = {"fp32": 1.0, "bf16": bf16_seconds}
    monkeypatch.setattr(throughput, "_seconds_per_update", lambda model, config: seconds[config.precision])
    found = Machine(may_use_fewer_threads=False).measure_throughput(SHAPE, CONFIG)
    assert found.precision == chosen
    assert found.tokens_per_second == 8 / seconds[chosen]


def test_only_the_requested_precision_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def seconds(model: LanguageModel, config: TrainConfig) -> float:
        timed.append(config.precision)
        return 1.0

    monkeypatch.setattr(throughput, "_seconds_per_update", seconds)
    monkeypatch.setattr(throughput, "can_train_in_bf16", lambda device: True)
    machine = Machine(may_use_fewer_threads=False)
    assert machine.measure_throughput(SHAPE, replace(CONFIG, precision="bf16")).precision == "bf16"
    assert timed == ["bf16"]


def test_a_precision_that_the_processor_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "can_train_in_bf16", lambda device: False)
    with pytest.raises(ConfigError, match="precision bf16: not supported by this processor; use auto or fp32"):
        Machine().measure_throughput(SHAPE, replace(CONFIG, precision="bf16"))


@pytest.mark.parametrize(("seconds", "chosen"), [({4: 1.0, 2: 0.5, 1: 0.49}, 2), ({4: 1.0, 2: 1.5, 1: 0.1}, 4)])
def test_fewer_threads_are_chosen_if_they_are_clearly_faster(
    seconds: dict[int, float], chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(throughput, "_seconds_per_update", lambda model, config: seconds[torch.get_num_threads()])
    try:
        found = Machine(threads=4).measure_throughput(SHAPE, replace(CONFIG, precision="fp32"))
        assert found.threads == torch.get_num_threads() == chosen
        assert found.tokens_per_second == 8 / seconds[chosen]
        assert Machine(threads=4, may_use_fewer_threads=False).measure_throughput(SHAPE, CONFIG).threads == 4
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("budget", [{"steps": 5}, {"epochs": 2.0}])
def test_without_a_time_limit_speed_does_not_influence_the_choice(
    budget: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, config = torch.get_num_threads(), replace(CONFIG, minutes=None, **budget)
    found = set()
    try:
        for seconds in (dict.fromkeys([1, 2, 4, 8], 1.0), {1: 0.1, 2: 9.0, 4: 0.1, 8: 2.0}):
            monkeypatch.setattr(throughput, "_has_fast_bf16", lambda device: True)
            monkeypatch.setattr(
                throughput,
                "_seconds_per_update",
                lambda model, config, at=seconds: (
                    at[torch.get_num_threads()] * (1 + at[1] * (config.precision == "bf16"))
                ),
            )
            for width in (8, 128, 256):
                chosen = Machine(threads=8).measure_throughput(replace(SHAPE, hidden_size=width), config)
                found.add((width, chosen.precision, chosen.threads))
    finally:
        torch.set_num_threads(threads)
    assert found == {(8, "fp32", 1), (128, "fp32", 2), (256, "bf16", 4)}


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [({"amx_bf16": True}, True), ({"amx_bf16": False, "avx512_bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_bf16_is_fast_if_the_processor_has_instructions_for_it(
    capabilities: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert throughput._has_fast_bf16(torch.device("cpu")) is fast


@pytest.mark.parametrize("shape", [{}, {"cell": "gru", "tie_weights": True, "embedding_dim": 8}, {"cell": "rnn"}])
def test_timing_does_not_change_the_random_state(shape: dict[str, object]) -> None:
    state = torch.get_rng_state()
    config = ModelConfig.pick({"vocab_size": 9, "hidden_size": 8, "embedding_dim": 4, "dropout": 0.5, **shape})
    assert Machine().measure_throughput(config, CONFIG).tokens_per_second > 0
    assert torch.equal(state, torch.get_rng_state())


def test_a_model_too_large_for_memory_is_an_error() -> None:
    with pytest.raises(ConfigError, match="reduce hidden_size or num_layers"):
        Machine().measure_throughput(ModelConfig(vocab_size=9, hidden_size=65536, num_layers=8), CONFIG)


def test_seconds_used_counts_from_the_start() -> None:
    assert Machine(started=time.monotonic() - 5).seconds_used() >= 5


def test_the_start_is_the_present_time_by_the_given_clock() -> None:
    now = [100.0]
    machine = Machine(clock=lambda: now[0])
    assert machine.started == 100
    now[0] = 107.0
    assert machine.seconds_used() == 7


@pytest.mark.parametrize(
    ("precision", "supported", "dtype"),
    [("fp32", True, torch.float32), ("bf16", True, torch.bfloat16), ("bf16", False, torch.float32)],
)
def test_mixed_precision_uses_bf16_only_if_requested_and_supported(
    precision: Precision, supported: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "can_train_in_bf16", lambda device: supported)
    model, _ = make_checkpoint(cell="gru")  # supported by every processor
    with mixed_precision(precision, torch.device("cpu")):
        assert model(torch.zeros((1, 3), dtype=torch.int64))[0].dtype == dtype
