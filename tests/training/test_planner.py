from dataclasses import dataclass, field, fields, replace

import pytest
import torch

from charlm.config import ModelConfig, TrainConfig
from charlm.errors import ConfigError
from charlm.training.distributed import Workers
from charlm.training.planner import Plan, check_time, plan, weights_per_token
from charlm.training.recipe import AUTOMATIC
from charlm.training.throughput import Throughput


@dataclass
class FakeMachine:
    """A machine with a constant speed.

    Attributes:
        operations: Operations per second, for models of any shape.
        used: Seconds of the time limit that are over.
        timed: Number of models that were timed.
        workers: Processes that train together.
        device: Device that trains.
    """

    operations: float = 3e11
    used: float = 0.0
    timed: int = 0
    workers: Workers = field(default_factory=Workers)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def measure_throughput(self, model_config: ModelConfig, config: TrainConfig) -> Throughput:
        self.timed += 1
        speed = self.operations / (6 * weights_per_token(model_config))
        return Throughput(tokens_per_second=speed, precision="fp32", threads=1)

    def seconds_used(self) -> float:
        return self.used


def planned(num_tokens: int = 1_000_000, vocab_size: int = 65, *, words: bool = False, **given: object) -> Plan:
    return plan(num_tokens, vocab_size, given, FakeMachine(), words=words)


def test_longer_trainings_get_larger_models_and_more_dropout() -> None:
    plans = [planned(minutes=minutes) for minutes in (0.05, 0.67, 2.5, 10.0, 60.0)]
    weights = [weights_per_token(found.model) for found in plans]
    shares = [found.model.dropout for found in plans]
    assert weights == sorted(weights)
    assert weights[0] < weights[2] < weights[4]
    assert shares == sorted(shares)
    assert shares[0] == 0 < shares[-1] <= 0.5


def test_faster_machines_get_larger_models() -> None:
    slow, fast = (plan(10**8, 65, {"minutes": 5}, FakeMachine(operations)) for operations in (1e10, 1e13))
    assert weights_per_token(slow.model) < weights_per_token(fast.model)


def test_a_gpu_reads_more_streams_in_parallel() -> None:
    machines = [FakeMachine(device=torch.device(kind)) for kind in ("cpu", "cuda")]
    on_cpu, on_gpu = (plan(10**8, 65, {"epochs": 0.01}, machine).train.batch_size for machine in machines)
    assert (on_cpu, on_gpu) == (16, 64)
    assert plan(5_000, 65, {}, machines[1]).train.batch_size == TrainConfig.batch_size


def test_time_that_is_over_is_not_planned_for() -> None:
    early, late = (plan(10**8, 65, {"minutes": 5}, FakeMachine(used=used)) for used in (0.0, 295.0))
    assert weights_per_token(late.model) < weights_per_token(early.model)
    assert plan(10**8, 65, {"minutes": 5}, FakeMachine(used=400.0)).epochs == 0


def test_time_limit_without_time_for_updates_is_a_note_or_an_error() -> None:
    fast = planned(minutes=0.1)
    assert check_time(fast, FakeMachine(used=5.9)) == ()
    (note,) = check_time(fast, FakeMachine(used=6.1))
    assert note == (
        "`minutes` 0.1: the start-up took 6.1 seconds, so that the network is trained for only 5 updates; for more, "
        "set it to at least 0.3 minutes (18 seconds)"
    )
    slow = replace(fast, throughput=replace(fast.throughput, tokens_per_second=1000.0))  # a second per update
    assert len(check_time(slow, FakeMachine(used=1.0))) == 1
    slower = replace(fast, throughput=replace(fast.throughput, tokens_per_second=500.0))
    message = r"`minutes` 0\.1: too short for 5 updates; set it to at least 0\.4 minutes \(24 seconds\)"
    with pytest.raises(ConfigError, match=message):
        check_time(slower, FakeMachine(used=1.0))
    assert check_time(planned(steps=1), FakeMachine(used=1e9)) == ()


def test_small_texts_get_small_models() -> None:
    for num_tokens in (10_000, 100_000, 10**9):
        assert weights_per_token(planned(num_tokens, minutes=600.0).model) <= max(40_000, 4 * num_tokens)


def test_a_text_of_many_epochs_gets_a_smaller_model_than_a_text_of_one() -> None:
    often, once = (planned(num_tokens, minutes=20.0).model for num_tokens in (1_000_000, 10**8))
    assert weights_per_token(often) < weights_per_token(once)


@pytest.mark.parametrize(("given", "epochs"), [({"epochs": 3.0}, 3.0), ({"steps": 1000}, 1000 * 16 * 64 / 1e6)])
def test_plans_for_epochs_and_steps_do_not_depend_on_speed(given: dict[str, object], epochs: float) -> None:
    plans = [plan(1_000_000, 65, given, FakeMachine(operations)) for operations in (1e9, 1e15)]
    assert plans[0].model == plans[1].model
    assert plans[0].train == plans[1].train
    assert [found.epochs for found in plans] == [pytest.approx(epochs)] * 2


def test_at_most_three_models_are_timed() -> None:
    machine = FakeMachine()
    plan(10**8, 65, {"minutes": 60}, machine)
    assert machine.timed <= 3


def test_given_settings_are_kept() -> None:
    given = {"minutes": 10.0, "hidden_size": 100, "num_layers": 3, "dropout": 0.1, "learning_rate": 1e-3}
    found = planned(**given, batch_size=8, seq_len=20, cell="gru")
    assert (found.model.hidden_size, found.model.num_layers, found.model.dropout) == (100, 3, 0.1)
    assert (found.train.learning_rate, found.train.batch_size, found.train.seq_len) == (1e-3, 8, 20)
    assert found.model.cell == "gru"
    assert {"hidden_size", "cell", "seq_len"} <= found.given
    assert "weight_decay" not in found.given


def test_layers_and_units_can_be_given_separately() -> None:
    assert planned(minutes=10.0, num_layers=3).model.num_layers == 3
    assert planned(minutes=10.0, hidden_size=100).model.hidden_size == 100


def test_the_measured_precision_is_used() -> None:
    assert planned(minutes=1.0).train.precision == "fp32"


def test_without_a_length_short_texts_have_steps_and_long_texts_have_patience() -> None:
    assert planned(100, 10).train.steps is not None
    long, longer = planned(100_000, 10), planned(10**9, 10)
    assert long.train.epochs is not None
    assert longer.train.minutes is not None
    for found in (long, longer):
        assert found.train.patience is not None
        assert "stops falling" in found.notes[0]
    assert planned(100_000, 10, minutes=1.0).train.patience is None
    assert planned(100_000, 10, patience=2).train.patience == 2


def test_the_batch_is_reduced_to_fit_a_short_text() -> None:
    found = planned(7, 7, steps=5)
    assert (found.train.batch_size, found.train.seq_len) == (1, 7)
    assert "only 7 tokens: 1 stream(s) of 7 tokens" in found.notes[0]
    train = planned(200, 7, steps=5, seq_len=50).train
    assert (train.batch_size, train.seq_len) == (4, 50)


def test_short_texts_have_no_dropout() -> None:
    assert planned(1000, 65, epochs=100.0).model.dropout == 0
    assert planned(epochs=100.0).model.dropout == pytest.approx(0.5, abs=0.01)


def test_tied_weights_set_the_embedding_size_to_the_layer_size() -> None:
    model = planned(5000, 9, steps=5, tie_weights=True).model
    assert model.embedding_dim == model.hidden_size
    assert planned(5000, 9, steps=5, tie_weights=True, hidden_size=20).model.embedding_dim == 20
    with pytest.raises(ConfigError, match="tie_weights needs"):
        planned(5000, 9, steps=5, tie_weights=True, hidden_size=20, embedding_dim=10)


def test_word_models_are_tied_and_have_more_dropout_with_more_epochs() -> None:
    shapes = [planned(900_000, 10_000, words=True, epochs=epochs).model for epochs in (1.0, 6.0, 12.0, 40.0)]
    assert all(shape.tie_weights and shape.embedding_dim == shape.hidden_size for shape in shapes)
    shares = [shape.dropout for shape in shapes]
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert shares[-1] == 0.4  # 7.3 weights per word
    assert shapes[-1].recurrent_dropout == 0.2


@pytest.mark.parametrize("given", [{"freeze_embeddings": True, "embedding_dim": 50}, {"embedding_dim": 50}])
def test_word_vectors_of_another_size_or_frozen_are_not_tied(given: dict[str, object]) -> None:
    model = planned(900_000, 10_000, words=True, epochs=12.0, **given).model
    assert (model.tie_weights, model.embedding_dim) == (False, 50)


def test_large_vocabularies_are_trained_with_a_sampled_softmax() -> None:
    assert planned(900_000, 4_000, words=True, epochs=1.0).train.softmax_samples is None
    assert planned(900_000, 10_000, words=True, epochs=1.0).train.softmax_samples == 2_000
    assert planned(900_000, 10_000, epochs=1.0).train.softmax_samples is None
    assert planned(900_000, 200_000, words=True, epochs=1.0, softmax_samples=0).train.softmax_samples == 0


def test_longer_trainings_get_larger_word_models_unless_the_text_is_small() -> None:
    models = [planned(900_000, 10_000, words=True, minutes=minutes).model for minutes in (0.67, 2.5, 60.0)]
    weights = [weights_per_token(model) for model in models]
    assert weights == sorted(weights)
    assert weights[0] < weights[2]
    assert weights_per_token(planned(100_000, 10_000, words=True, minutes=60.0).model) < weights[2]


def test_decoder_rows_that_are_not_sampled_do_not_count() -> None:
    config = ModelConfig(vocab_size=1000, hidden_size=10, embedding_dim=10)
    assert weights_per_token(config) - weights_per_token(config, 100) == 900 * 10
    assert weights_per_token(config, 5000) == weights_per_token(config)


def test_weights_forget_an_update_in_two_epochs_of_any_text() -> None:
    for num_tokens, given in [(1_000_000, {}), (5_000_000, {"batch_size": 8}), (300_000, {"learning_rate": 2e-2})]:
        train = planned(num_tokens, minutes=1.0, **given).train
        updates = num_tokens / (train.batch_size * train.seq_len)
        forgotten_after = 1 / (train.learning_rate * train.weight_decay)
        assert forgotten_after / updates == pytest.approx(2, rel=0.05)


def test_weight_decay_can_be_given_and_has_a_default_for_words_and_short_texts() -> None:
    assert planned(minutes=1.0, weight_decay=0.3).train.weight_decay == 0.3
    assert planned(1000, minutes=1.0).train.weight_decay == TrainConfig.weight_decay
    assert planned(words=True, minutes=1.0).train.weight_decay == TrainConfig.weight_decay


def test_character_models_of_several_layers_have_skip_connections_by_default() -> None:
    assert planned(minutes=10.0, num_layers=2).model.skip_connections
    assert not planned(minutes=10.0, num_layers=2, skip_connections=False).model.skip_connections
    assert not planned(minutes=10.0, num_layers=1).model.skip_connections
    assert not planned(900_000, 10_000, words=True, epochs=1.0).model.skip_connections


def test_every_setting_that_the_planner_chooses_has_a_description() -> None:
    plans = [
        planned(num_tokens, vocab_size, words=words, **length)
        for num_tokens in (5, 100_000, 10**9)
        for vocab_size in (65, 100_000)
        for words in (False, True)
        for length in ({}, {"minutes": 30.0}, {"epochs": 50.0})
    ]
    chosen = {
        spec.name
        for found in plans
        for config in (found.model, found.train)
        for spec in fields(config)
        if spec.name not in found.given and getattr(config, spec.name) != spec.default
    }
    assert chosen - {"vocab_size", "threads"} <= AUTOMATIC.keys()
    assert {"num_layers", "dropout", "batch_size", "learning_rate", "softmax_samples", "steps", "patience"} <= chosen
