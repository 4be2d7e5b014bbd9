import pytest

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.errors import ConfigError
from charlm.plan import dropouts, expected_epochs, plan, share_to_validate, words_to_know


def test_characters_take_the_defaults_of_the_settings() -> None:
    model, train, notes = plan(1_000_000, 65, {"minutes": 0.5, "dropout": None})
    assert model == ModelConfig(vocab_size=65)
    assert train == TrainConfig(minutes=0.5)
    assert notes == []


def test_characters_that_are_read_often_are_dropped_from_unless_the_text_is_short() -> None:
    shares = [plan(1_000_000, 65, {"epochs": epochs})[0].dropout for epochs in (1, 4, 8, 100)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.1 <= shares[2] <= 0.3
    assert shares[-1] == 0.5
    assert plan(1000, 65, {"epochs": 100})[0].dropout == 0
    assert plan(1_000_000, 65, {"epochs": 100, "dropout": 0.1})[0].dropout == 0.1


def test_without_a_budget_a_short_text_has_steps_and_a_long_one_minutes() -> None:
    assert plan(100, 10, {})[1].steps is not None
    _, train, notes = plan(100_000, 10, {})
    assert train.minutes is not None
    assert "training for" in notes[0]


def test_sizes_shrink_to_a_short_text() -> None:
    _, train, notes = plan(7, 7, {"steps": 5})
    assert (train.batch_size, train.seq_len) == (1, 7)
    assert "fitted to 7 tokens" in notes[0]
    _, train, _ = plan(200, 7, {"steps": 5, "seq_len": 50})
    assert (train.batch_size, train.seq_len) == (4, 50)


def test_tied_weights_make_the_embedding_as_wide_as_the_layers() -> None:
    assert plan(5000, 9, {"steps": 5, "tie_weights": True})[0].embedding_dim == ModelConfig.hidden_size
    assert plan(5000, 9, {"steps": 5, "tie_weights": True, "hidden_size": 20})[0].embedding_dim == 20
    with pytest.raises(ConfigError, match="--tie needs"):
        plan(5000, 9, {"steps": 5, "tie_weights": True, "hidden_size": 20, "embedding_dim": 10})


def test_words_are_tied_and_drop_more_the_more_often_the_text_is_read() -> None:
    shapes = [plan(900_000, 10_000, {"epochs": epochs}, words=True)[0] for epochs in (1.0, 6.0, 12.0, 40.0)]
    assert all(shape.tie_weights and shape.embedding_dim == shape.hidden_size for shape in shapes)
    shares = [shape.dropout for shape in shapes]
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert shares[-1] == 0.5
    assert shapes[-1].recurrent_dropout == 0.25


def test_what_is_given_for_words_stays() -> None:
    given = {"epochs": 12.0, "dropout": 0.1, "hidden_size": 60, "tie_weights": False, "learning_rate": 1e-3}
    model, train, _ = plan(900_000, 10_000, given, words=True)
    assert (model.dropout, model.hidden_size, model.tie_weights, model.embedding_dim) == (0.1, 60, False, 64)
    assert train.learning_rate == 1e-3


@pytest.mark.parametrize("given", [{"freeze_embeddings": True, "embedding_dim": 50}, {"embedding_dim": 50}])
def test_word_vectors_of_another_width_or_frozen_are_not_tied(given: dict[str, object]) -> None:
    model, _, _ = plan(900_000, 10_000, {"epochs": 12.0, **given}, words=True)
    assert (model.tie_weights, model.embedding_dim) == (False, 50)


def test_large_vocabularies_are_learnt_with_a_sampled_softmax() -> None:
    assert plan(900_000, 10_000, {"epochs": 1.0}, words=True)[1].softmax_samples is None
    assert plan(900_000, 200_000, {"epochs": 1.0}, words=True)[1].softmax_samples
    assert plan(900_000, 200_000, {"epochs": 1.0, "softmax_samples": 0}, words=True)[1].softmax_samples == 0


def test_expected_epochs_are_exact_but_from_minutes() -> None:
    shape = {"batch_size": 20, "seq_len": 35, "hidden_size": 400, "num_layers": 2}
    assert expected_epochs(7000, 100, {**shape, "epochs": 3.0}) == 3
    assert expected_epochs(7000, 100, {**shape, "steps": 20}) == 2
    short, long = (expected_epochs(7000, 100, {**shape, "minutes": minutes}) for minutes in (1.0, 3.0))
    assert long == pytest.approx(3 * short)
    assert dropouts(1.9)["dropout"] == 0


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
