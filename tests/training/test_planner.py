import math
from dataclasses import dataclass

import numpy as np
import pytest

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.errors import ConfigError
from charlm.training.planner import (
    Plan,
    dropouts,
    plan,
    share_to_validate,
    tokens_worth,
    weight_decay,
    weights_per_token,
    words_to_know,
)
from charlm.training.throughput import Throughput


@dataclass
class FakeMachine:
    """A machine that does so many operations a second, whatever the shape; it counts what it is asked to time."""

    operations: float = 3e11
    used: float = 0.0
    timed: int = 0

    def measure_throughput(self, model_config: ModelConfig, config: TrainConfig) -> Throughput:
        self.timed += 1
        speed = self.operations / (6 * weights_per_token(model_config))
        return Throughput(tokens_per_second=speed, precision="fp32", threads=1)

    def seconds_used(self) -> float:
        return self.used


def planned(num_tokens: int = 1_000_000, vocab_size: int = 65, *, words: bool = False, **given: object) -> Plan:
    return plan(num_tokens, vocab_size, given, FakeMachine(), words=words)


def test_the_larger_the_budget_the_larger_the_model_and_the_dropout() -> None:
    plans = [planned(minutes=minutes) for minutes in (0.05, 0.67, 2.5, 10.0, 60.0)]
    weights = [weights_per_token(found.model) for found in plans]
    shares = [found.model.dropout for found in plans]
    assert weights == sorted(weights)
    assert weights[0] < weights[2] < weights[4]
    assert shares == sorted(shares)
    assert shares[0] == 0 < shares[-1] <= 0.5


def test_the_faster_the_machine_the_larger_the_model() -> None:
    slow, fast = (plan(10**8, 65, {"minutes": 5}, FakeMachine(operations)) for operations in (1e10, 1e13))
    assert weights_per_token(slow.model) < weights_per_token(fast.model)


def test_time_that_is_used_up_does_not_learn() -> None:
    early, late = (plan(10**8, 65, {"minutes": 5}, FakeMachine(used=used)) for used in (0.0, 295.0))
    assert weights_per_token(late.model) < weights_per_token(early.model)
    assert plan(10**8, 65, {"minutes": 5}, FakeMachine(used=400.0)).epochs == 0


def test_a_small_text_bears_no_large_model() -> None:
    for num_tokens in (10_000, 100_000, 10**9):
        assert weights_per_token(planned(num_tokens, minutes=600.0).model) <= max(40_000, 4 * num_tokens)


def test_tokens_read_again_are_worth_less_and_less() -> None:
    worth = [tokens_worth(tokens, 1000) for tokens in range(0, 100_000, 500)]
    assert worth[:3] == [0, 500, 1000]
    assert np.all(np.diff(worth) > 0)
    assert np.all(np.diff(worth, 2)[1:] < 0)
    assert tokens_worth(2000, 1000) == pytest.approx(1000 + 15.4 * 1000 * (1 - math.exp(-1 / 15.4)))
    assert worth[-1] < tokens_worth(1e9, 1000) <= 16_400


def test_a_text_that_is_read_often_bears_a_smaller_model_than_a_longer_one() -> None:
    often, once = (planned(num_tokens, minutes=20.0).model for num_tokens in (1_000_000, 10**8))
    assert weights_per_token(often) < weights_per_token(once)


@pytest.mark.parametrize(("given", "epochs"), [({"epochs": 3.0}, 3.0), ({"steps": 1000}, 1000 * 16 * 64 / 1e6)])
def test_epochs_and_steps_are_planned_without_a_clock(given: dict[str, object], epochs: float) -> None:
    plans = [plan(1_000_000, 65, given, FakeMachine(operations)) for operations in (1e9, 1e15)]
    assert plans[0].model == plans[1].model
    assert plans[0].train == plans[1].train
    assert [found.epochs for found in plans] == [pytest.approx(epochs)] * 2


def test_few_shapes_are_timed() -> None:
    machine = FakeMachine()
    plan(10**8, 65, {"minutes": 60}, machine)
    assert machine.timed <= 3


def test_whatever_is_given_stays() -> None:
    given = {"minutes": 10.0, "hidden_size": 100, "num_layers": 3, "dropout": 0.1, "learning_rate": 1e-3}
    found = planned(**given, batch_size=8, seq_len=20, cell="gru")
    assert (found.model.hidden_size, found.model.num_layers, found.model.dropout) == (100, 3, 0.1)
    assert (found.train.learning_rate, found.train.batch_size, found.train.seq_len) == (1e-3, 8, 20)
    assert found.model.cell == "gru"
    assert {"hidden_size", "cell", "seq_len"} <= found.given
    assert "weight_decay" not in found.given


def test_layers_alone_or_units_alone_leave_the_other_to_the_plan() -> None:
    assert planned(minutes=10.0, num_layers=3).model.num_layers == 3
    assert planned(minutes=10.0, hidden_size=100).model.hidden_size == 100


def test_the_arithmetic_that_was_timed_is_taken() -> None:
    assert planned(minutes=1.0).train.precision == "fp32"


def test_without_an_end_a_short_text_has_steps_and_a_long_one_ends_by_itself() -> None:
    assert planned(100, 10).train.steps is not None
    long, longer = planned(100_000, 10), planned(10**9, 10)
    assert long.train.epochs is not None
    assert longer.train.minutes is not None
    for found in (long, longer):
        assert found.train.patience is not None
        assert "stops falling" in found.notes[0]
    assert planned(100_000, 10, minutes=1.0).train.patience is None
    assert planned(100_000, 10, patience=2).train.patience == 2


def test_sizes_shrink_to_a_short_text() -> None:
    found = planned(7, 7, steps=5)
    assert (found.train.batch_size, found.train.seq_len) == (1, 7)
    assert "fitted to 7 tokens" in found.notes[0]
    train = planned(200, 7, steps=5, seq_len=50).train
    assert (train.batch_size, train.seq_len) == (4, 50)


def test_a_short_text_is_there_to_be_learnt_by_heart() -> None:
    assert planned(1000, 65, epochs=100.0).model.dropout == 0
    assert planned(epochs=100.0).model.dropout == pytest.approx(0.5, abs=0.01)


def test_tied_weights_make_the_embedding_as_wide_as_the_layers() -> None:
    model = planned(5000, 9, steps=5, tie_weights=True).model
    assert model.embedding_dim == model.hidden_size
    assert planned(5000, 9, steps=5, tie_weights=True, hidden_size=20).model.embedding_dim == 20
    with pytest.raises(ConfigError, match="tie_weights needs"):
        planned(5000, 9, steps=5, tie_weights=True, hidden_size=20, embedding_dim=10)


def test_words_are_tied_and_drop_more_the_more_often_the_text_is_read() -> None:
    shapes = [planned(900_000, 10_000, words=True, epochs=epochs).model for epochs in (1.0, 6.0, 12.0, 40.0)]
    assert all(shape.tie_weights and shape.embedding_dim == shape.hidden_size for shape in shapes)
    shares = [shape.dropout for shape in shapes]
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert shares[-1] == 0.5
    assert shapes[-1].recurrent_dropout == 0.25


@pytest.mark.parametrize("given", [{"freeze_embeddings": True, "embedding_dim": 50}, {"embedding_dim": 50}])
def test_word_vectors_of_another_width_or_frozen_are_not_tied(given: dict[str, object]) -> None:
    model = planned(900_000, 10_000, words=True, epochs=12.0, **given).model
    assert (model.tie_weights, model.embedding_dim) == (False, 50)


def test_large_vocabularies_are_learnt_with_a_sampled_softmax() -> None:
    assert planned(900_000, 10_000, words=True, epochs=1.0).train.softmax_samples is None
    assert planned(900_000, 200_000, words=True, epochs=1.0).train.softmax_samples
    assert planned(900_000, 200_000, words=True, epochs=1.0, softmax_samples=0).train.softmax_samples == 0


def test_the_larger_the_budget_the_larger_a_model_of_words_as_far_as_its_text_bears() -> None:
    models = [planned(900_000, 10_000, words=True, minutes=minutes).model for minutes in (0.67, 2.5, 60.0)]
    weights = [weights_per_token(model) for model in models]
    assert weights == sorted(weights)
    assert weights[0] < weights[2]
    assert weights_per_token(planned(100_000, 10_000, words=True, minutes=60.0).model) < weights[2]


def test_rows_of_the_decoder_that_are_not_drawn_do_not_count() -> None:
    config = ModelConfig(vocab_size=1000, hidden_size=10, embedding_dim=10)
    assert weights_per_token(config) - weights_per_token(config, 100) == 900 * 10
    assert weights_per_token(config, 5000) == weights_per_token(config)


def test_nothing_is_dropped_in_the_first_epochs_and_connections_later_than_outputs() -> None:
    shares = [dropouts(epochs, words=False) for epochs in (1.9, 2.3, 6.0, 17.0, 1000.0)]
    assert [share["dropout"] for share in shares] == [0, 0.06, 0.15, 0.31, 0.5]
    assert [share["recurrent_dropout"] for share in shares] == [0, 0, 0.05, 0.11, 0.3]


def test_weights_forget_in_as_many_epochs_whatever_the_text_and_the_updates() -> None:
    for num_tokens, given in [(1_000_000, {}), (5_000_000, {"batch_size": 8}), (300_000, {"learning_rate": 2e-2})]:
        train = planned(num_tokens, minutes=1.0, **given).train
        updates = num_tokens / (train.batch_size * train.seq_len)
        forgotten_after = 1 / (train.learning_rate * train.weight_decay)
        assert forgotten_after / updates == pytest.approx(2, rel=0.05)


def test_weight_decay_has_a_bound_and_can_be_given() -> None:
    assert weight_decay(1e-2, 1) == 0.1
    assert planned(minutes=1.0, weight_decay=0.3).train.weight_decay == 0.3
    assert planned(1000, minutes=1.0).train.weight_decay == TrainConfig.weight_decay
    assert planned(words=True, minutes=1.0).train.weight_decay == TrainConfig.weight_decay


def test_layers_of_characters_are_skipped_unless_it_is_said_otherwise() -> None:
    assert planned(minutes=10.0, num_layers=2).model.skip_connections
    assert not planned(minutes=10.0, num_layers=2, skip_connections=False).model.skip_connections
    assert not planned(minutes=10.0, num_layers=1).model.skip_connections
    assert not planned(900_000, 10_000, words=True, epochs=1.0).model.skip_connections


def test_very_short_texts_keep_nothing_for_validation() -> None:
    assert share_to_validate(199, None) == 0
    assert share_to_validate(200, None) == TrainConfig.val_fraction
    assert share_to_validate(199, 0.5) == 0.5


def test_rare_words_are_unknown_in_long_texts_alone() -> None:
    assert words_to_know(10_000, TokenizerConfig(tokenizer="word")).min_count == 2
    assert words_to_know(9_999, TokenizerConfig(tokenizer="word")).min_count == 1
    assert words_to_know(10_000, TokenizerConfig(tokenizer="word", split="whitespace")).min_count == 1
    assert words_to_know(10_000, TokenizerConfig(tokenizer="word", min_count=5)).min_count == 5
    assert words_to_know(10_000, TokenizerConfig()) == TokenizerConfig()
