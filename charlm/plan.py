"""Fits the settings to the text: fills in what was left open, and shrinks what a small text cannot hold."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig

DEFAULT_MINUTES = 5.0
DEFAULT_STEPS = 500
"""For a text so short that minutes would be thousands of epochs."""

SHORT_TEXT = 10_000
"""Tokens below which a text is short."""

TOO_SHORT_TO_SPLIT = 200
"""Characters below which nothing is kept for validation, unless it is asked for."""

MULTIPLICATIONS_PER_SECOND = 1.5e11
"""What two cores do of a training's, between those with and without bf16: for a guess at the epochs in some minutes."""

LARGE_VOCABULARY = 30_000
"""Words from which the softmax is estimated in training: see `charlm.loss.sampled_softmax_loss`."""

SOFTMAX_SAMPLES = 8192
"""Words drawn for that."""

WORD_SHAPE: dict[str, Any] = {"num_layers": 2, "hidden_size": 400, "batch_size": 20, "seq_len": 35}
"""Sizes for words, between Zaremba's small and medium (arXiv 1409.2329), tied as in AWD-LSTM (1708.02182)."""

WORD_RATE = 4e-3
"""The peak learning rate for words."""

RARE = 2
"""In a text that is not short, a word that comes less often is left unknown, so that the unknown one is learnt too."""


def words_to_know(num_chars: int, config: TokenizerConfig) -> TokenizerConfig:
    """Choose how rare a word may be, if that was left open."""
    rare = RARE if config.split == "words" and num_chars >= SHORT_TEXT else 1
    return replace(config, min_count=rare) if config.tokenizer == "word" and config.min_count is None else config


def share_to_validate(num_chars: int, given: float | None) -> float:
    """The share of a text to keep for validation: as asked for, else the default, but none of a very short text."""
    if given is not None:
        return given
    return TrainConfig.val_fraction if num_chars >= TOO_SHORT_TO_SPLIT else 0.0


def plan(
    num_tokens: int, vocab_size: int, given: Mapping[str, Any], *, words: bool = False
) -> tuple[ModelConfig, TrainConfig, list[str]]:
    """Choose the settings of a training.

    Args:
        num_tokens: Length of the text to learn.
        vocab_size: Number of token types.
        given: The settings asked for, by field name; None for what is left open.
        words: Whether the tokens are words.

    Returns:
        The model's shape, the training's settings, and notes on what was fitted to the text.

    Raises:
        ConfigError: If a setting is out of its range.
    """
    notes = []
    chosen = {name: value for name, value in given.items() if value is not None} | {"vocab_size": vocab_size}
    if not {"minutes", "epochs", "steps"} & chosen.keys():
        chosen |= {"steps": DEFAULT_STEPS} if num_tokens < SHORT_TEXT else {"minutes": DEFAULT_MINUTES}
        limit = f"{DEFAULT_STEPS} steps" if num_tokens < SHORT_TEXT else f"{DEFAULT_MINUTES:g} minutes"
        notes.append(f"no --minutes, --epochs or --steps given: training for {limit}")
    if words:
        chosen = word_settings(num_tokens, vocab_size, chosen)
    elif num_tokens >= SHORT_TEXT:  # a short one is there to be learnt by heart
        chosen.setdefault("dropout", dropouts(expected_epochs(num_tokens, vocab_size, chosen))["dropout"])
    if chosen.get("tie_weights") and "embedding_dim" not in chosen:
        chosen["embedding_dim"] = chosen.get("hidden_size", ModelConfig.hidden_size)
    model, train = ModelConfig.pick(chosen), TrainConfig.pick(chosen)
    seq_len = max(1, min(train.seq_len, num_tokens))
    batch_size = max(1, min(train.batch_size, num_tokens // seq_len))
    if (batch_size, seq_len) != (train.batch_size, train.seq_len):
        train = replace(train, batch_size=batch_size, seq_len=seq_len)
        notes.append(f"fitted to {num_tokens:,} tokens: {batch_size} parallel stream(s), {seq_len} tokens an update")
    return model, train, notes


def word_settings(num_tokens: int, vocab_size: int, given: dict[str, Any]) -> dict[str, Any]:
    """The settings for words, where they are not given: shape, tied weights, and dropout by the number of epochs."""
    chosen = WORD_SHAPE | {"learning_rate": WORD_RATE} | given
    may_tie = not given.get("freeze_embeddings") and given.get("embedding_dim") in (None, chosen["hidden_size"])
    chosen.setdefault("tie_weights", may_tie)
    if vocab_size > LARGE_VOCABULARY:
        chosen.setdefault("softmax_samples", SOFTMAX_SAMPLES)
    return dropouts(expected_epochs(num_tokens, vocab_size, chosen)) | chosen


def expected_epochs(num_tokens: int, vocab_size: int, given: Mapping[str, Any]) -> float:
    """The passes over the text that a budget is good for; from minutes that is a guess.

    A token costs three multiplications with each weight of layers and decoder, one forward and two backward.
    """
    if (epochs := given.get("epochs")) is not None:
        return float(epochs)
    given = {"batch_size": TrainConfig.batch_size, "seq_len": TrainConfig.seq_len} | dict(given)
    tokens_per_step = given["batch_size"] * given["seq_len"]
    if (steps := given.get("steps")) is not None:
        return float(steps * tokens_per_step / num_tokens)
    hidden = given.get("hidden_size", ModelConfig.hidden_size)
    decoder = hidden * (given.get("softmax_samples") or vocab_size)
    multiplications = 3 * (8 * hidden * hidden * given.get("num_layers", ModelConfig.num_layers) + decoder)
    return float(given["minutes"] * 60 * MULTIPLICATIONS_PER_SECOND / multiplications / num_tokens)


def dropouts(epochs: float) -> dict[str, float]:
    """What to drop from a word model that sees its text so many times: nothing before it could learn it by heart.

    The proportions are AWD-LSTM's, arXiv 1708.02182, where hundreds of epochs bear half of everything.
    """
    share = round(min(0.5, 0.025 * epochs), 2) if epochs >= 2 else 0.0
    return {
        "dropout": share,
        "input_dropout": share,
        "token_dropout": round(share / 5, 2),
        "recurrent_dropout": round(share / 2, 2),
    }
