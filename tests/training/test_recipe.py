import math
from dataclasses import fields

import numpy as np
import pytest

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.training.recipe import (
    AUTOMATIC,
    CHARACTER_SCALING,
    WORD_SCALING,
    default_batch_size,
    default_val_fraction,
    dropouts,
    effective_tokens,
    peak_learning_rate,
    weight_decay,
    with_default_min_count,
)


def test_repeated_tokens_are_worth_less_and_less() -> None:
    worth = [effective_tokens(tokens, 1000) for tokens in range(0, 100_000, 500)]
    assert worth[:3] == [0, 500, 1000]
    assert np.all(np.diff(worth) > 0)
    assert np.all(np.diff(worth, 2)[1:] < 0)
    assert effective_tokens(2000, 1000) == pytest.approx(1000 + 15.4 * 1000 * (1 - math.exp(-1 / 15.4)))
    assert worth[-1] < effective_tokens(1e9, 1000) <= 16_400


def test_nothing_is_dropped_in_two_epochs_and_recurrent_weights_are_dropped_later_than_outputs() -> None:
    found = [dropouts(epochs, words=False) for epochs in (1.9, 2.3, 6.0, 17.0, 1000.0)]
    assert [share.dropout for share in found] == [0, 0.06, 0.15, 0.31, 0.5]
    assert [share.recurrent_dropout for share in found] == [0, 0, 0, 0.11, 0.3]
    assert all(share.input_dropout == share.token_dropout == 0 for share in found)


def test_models_that_are_small_beside_their_text_have_less_dropout() -> None:
    found = [dropouts(16.0, words=False, size=size).dropout for size in (0.1, 0.45, 1.0, 1.5, 5.0)]
    assert found == [0.02, 0.09, 0.2, 0.3, 0.3]
    assert [dropouts(6.0, words=True, size=size).dropout for size in (4.5, 9.0, 20.0)] == [0.12, 0.25, 0.25]


def test_words_have_the_dropout_proportions_of_awd_lstm() -> None:
    found = dropouts(1000.0, words=True)
    assert (found.dropout, found.input_dropout, found.recurrent_dropout, found.token_dropout) == (0.5, 0.5, 0.25, 0.1)
    assert dropouts(6.0, words=True).dropout == 0.25


def test_wider_and_deeper_models_have_a_smaller_learning_rate() -> None:
    assert peak_learning_rate(CHARACTER_SCALING, 1, 64) == 0.015
    assert peak_learning_rate(CHARACTER_SCALING, 1, 600) == 0.01
    assert peak_learning_rate(CHARACTER_SCALING, 3, 600) == pytest.approx(0.01 * 0.75**2)
    assert peak_learning_rate(WORD_SCALING, 1, 600) == 0.005


def test_weight_decay_is_limited() -> None:
    assert weight_decay(1e-2, 1) == 0.1
    assert weight_decay(1e-2, 1000) == 0.05


def test_a_larger_batch_must_leave_enough_updates() -> None:
    assert default_batch_size(8_000 * 32 * 64 - 1, 64) == 16
    assert default_batch_size(8_000 * 32 * 64, 64) == 32
    assert default_batch_size(1e12, 64) == 64
    assert default_batch_size(0, 64) == 16


def test_very_short_texts_have_no_validation_text_unless_a_share_is_given() -> None:
    assert default_val_fraction(199, None) == 0
    assert default_val_fraction(200, None) == TrainConfig.val_fraction
    assert default_val_fraction(199, 0.5) == 0.5


def test_rare_words_are_dropped_from_the_vocabulary_of_long_texts_only() -> None:
    assert with_default_min_count(10_000, TokenizerConfig(tokenizer="word")).min_count == 2
    assert with_default_min_count(9_999, TokenizerConfig(tokenizer="word")).min_count == 1
    assert with_default_min_count(10_000, TokenizerConfig(tokenizer="word", split="whitespace")).min_count == 1
    assert with_default_min_count(10_000, TokenizerConfig(tokenizer="word", min_count=5)).min_count == 5
    assert with_default_min_count(10_000, TokenizerConfig()) == TokenizerConfig()


def test_every_description_of_an_automatic_choice_is_of_a_setting() -> None:
    settings = {spec.name for kind in (ModelConfig, TrainConfig, TokenizerConfig) for spec in fields(kind)}
    assert AUTOMATIC.keys() <= settings
    assert (
        AUTOMATIC["batch_size"]
        == "16 to 64, or 64 to 256 on a GPU, more in longer trainings; 20 for words; 16 to 512 items of a list"
    )
