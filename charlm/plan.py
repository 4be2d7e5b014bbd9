"""Fits the settings to the text: fills in what was left open, and shrinks what a small text cannot hold."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from charlm.config import ModelConfig, TrainConfig

DEFAULT_MINUTES = 5.0
DEFAULT_STEPS = 500
"""For a text so short that minutes would be thousands of epochs."""

SHORT_TEXT = 10_000
"""Tokens below which a text is short."""

TOO_SHORT_TO_SPLIT = 200
"""Tokens below which nothing is kept for validation, unless it is asked for."""


def plan(num_tokens: int, vocab_size: int, given: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig, list[str]]:
    """Choose the settings of a training.

    Args:
        num_tokens: Length of the whole text.
        vocab_size: Number of token types.
        given: The settings asked for, by field name; None for what is left open.

    Returns:
        The model's shape, the training's settings, and notes on what was fitted to the text.

    Raises:
        ConfigError: If a setting is out of its range.
    """
    notes = []
    chosen = {**given, "vocab_size": vocab_size}
    if given.get("tie_weights") and given.get("embedding_dim") is None:
        chosen["embedding_dim"] = given.get("hidden_size") or ModelConfig.hidden_size
    if given.get("val_fraction") is None and num_tokens < TOO_SHORT_TO_SPLIT:
        chosen["val_fraction"] = 0.0
        notes.append(f"{num_tokens:,} tokens are too few to keep some for validation: training on all")
    if all(given.get(budget) is None for budget in ("minutes", "epochs", "steps")):
        chosen |= {"steps": DEFAULT_STEPS} if num_tokens < SHORT_TEXT else {"minutes": DEFAULT_MINUTES}
        limit = f"{DEFAULT_STEPS} steps" if num_tokens < SHORT_TEXT else f"{DEFAULT_MINUTES:g} minutes"
        notes.append(f"no --minutes, --epochs or --steps given: training for {limit}")
    model, train = ModelConfig.pick(chosen), TrainConfig.pick(chosen)
    room = num_tokens - round(num_tokens * train.val_fraction)
    seq_len = max(1, min(train.seq_len, room))
    batch_size = max(1, min(train.batch_size, room // seq_len))
    if (batch_size, seq_len) != (train.batch_size, train.seq_len):
        train = replace(train, batch_size=batch_size, seq_len=seq_len)
        notes.append(f"fitted to {room:,} tokens: {batch_size} parallel stream(s), {seq_len} tokens an update")
    return model, train, notes
