"""Losses of a network at each token of a text or of a list of items.

Shapes: N number of tokens, S number of streams, H hidden, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.text.ids import Ids
from charlm.training.counting import Nats
from charlm.training.items import IGNORED, Items
from charlm.training.network import LanguageModel, reset_state

Observer = Callable[[npt.NDArray[np.integer[Any]], Tensor], None]
"""Function that receives the indices of some tokens, (N,), and the logits that predict them, (N, V)."""

STREAM_TOKENS = 2048
"""Approximate number of tokens per stream. The text is read in parallel streams of consecutive parts."""

WARM_UP_TOKENS = 192
"""Number of tokens before its part that a stream reads first, without counting their loss. A recurrent model forgets
earlier tokens, so that the result is nearly that of one pass over the whole text (a test compares them)."""

MAX_LOGITS = 2**22
"""Maximum number of logits in memory at a time."""

BLOCK_STEPS = 32
"""Number of time steps that are read at a time; a divisor of `WARM_UP_TOKENS`. A validation can be stopped after each
block."""

ITEM_ROWS = 256
"""Number of items that are read in parallel."""

SAMPLE_STREAMS = 16
"""Number of evenly spaced parts of the training text, of `STREAM_TOKENS` tokens each, that are a sample of it."""


@contextmanager
def evaluation(model: LanguageModel) -> Iterator[None]:
    """Switch dropout off, and restore the mode of a model afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def item_nats(
    model: LanguageModel,
    items: Items,
    start_id: int,
    stop: Callable[[], bool] = lambda: False,
    observe: Observer | None = None,
) -> Nats | None:
    """Return the loss at each token of items, in nats. Each item starts from the zero state after one newline.

    Args:
        model: The model. Its mode, training or evaluation, stays the same.
        items: The items, at least one.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
        observe: Called with the logits that predict the tokens.

    Returns:
        The losses, (N,), in the order of the items.
    """
    device = model.decoder.bias.device
    nats: Nats = np.zeros(items.num_tokens, dtype=np.float32)
    firsts = np.cumsum(items.lengths) - items.lengths
    with evaluation(model):
        for rows in np.array_split(np.argsort(items.lengths, kind="stable"), -(-len(items) // ITEM_ROWS)):
            state, longest = model.core.zero_state(len(rows)), int(items.lengths[rows[-1]])
            for offset in range(0, longest, BLOCK_STEPS):
                if stop():
                    return None
                length = min(BLOCK_STEPS, longest - offset)
                ids, targets = map(torch.from_numpy, items.window(rows, offset, length, start_id))
                outputs, state = model.read(ids.to(device), state)
                counted = targets != IGNORED
                places = (firsts[rows][:, None] + np.arange(offset, offset + length))[counted.numpy()]
                kept_outputs, kept_targets = outputs[counted.to(device)], targets[counted].to(device)
                nats[places] = _target_nats(model, kept_outputs, kept_targets, places, observe)
    return nats


def validation_nats(
    model: LanguageModel,
    ids: Ids,
    start_id: int,
    stop: Callable[[], bool] = lambda: False,
    observe: Observer | None = None,
) -> Nats | None:
    """Return the loss at each token of a text, (N,), in nats.

    As in scoring, the text starts from the zero state after one newline.

    Args:
        model: The model. Its mode, training or evaluation, stays the same.
        ids: The text, (N,), at least one token.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
        observe: Called with the logits that predict the tokens.
    """
    num_streams = max(1, round(len(ids) / STREAM_TOKENS))
    length = -(-len(ids) // num_streams)
    nats = _part_nats(model, ids, np.arange(num_streams) * length, length, start_id, stop, observe)
    return None if nats is None else nats.flatten()[: len(ids)]


def sample_loss(
    model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Return the mean loss over evenly spaced parts of a text, in nats per token; see `validation_nats`.

    A text that is not longer than the sample is read completely.
    """
    if len(ids) <= SAMPLE_STREAMS * STREAM_TOKENS:
        nats = validation_nats(model, ids, start_id, stop)
    else:
        starts = np.linspace(0, len(ids) - STREAM_TOKENS, SAMPLE_STREAMS).astype(np.int64)
        nats = _part_nats(model, ids, starts, STREAM_TOKENS, start_id, stop)
    return None if nats is None else mean_of(nats)


@torch.no_grad()
def _part_nats(
    model: LanguageModel,
    ids: Ids,
    starts: npt.NDArray[np.int64],
    length: int,
    start_id: int,
    stop: Callable[[], bool],
    observe: Observer | None = None,
) -> Nats | None:
    """Return the loss at each token of parts of a text that are read in parallel, in nats.

    Args:
        model: The model.
        ids: The text, (N,).
        starts: First token of each part, (S,). The tokens before it are read without counting their loss.
        length: Number of tokens of each part. A part may extend beyond the end of the text.
        start_id: The newline token.
        stop: Called before every block. If it returns True, the result is None.
        observe: Called with the logits that predict the tokens, and with their places in the text.

    Returns:
        The losses, (S, `length`), 0 beyond the end of the text.
    """
    device = model.decoder.bias.device
    state = model.core.zero_state(len(starts))
    nats: Nats = np.zeros((len(starts), length), dtype=np.float32)
    with evaluation(model):
        for offset in range(-WARM_UP_TOKENS if len(starts) > 1 else 0, length, BLOCK_STEPS):
            if stop():
                return None
            if offset == 0:  # the first part has no tokens before it
                state = reset_state(state, starts == 0)
            places = starts[:, None] + np.arange(offset, min(offset + BLOCK_STEPS, length))
            counted = (places >= starts[:, None]) & (places < len(ids))
            places = places.clip(0, len(ids) - 1)
            inputs = ids[np.maximum(places - 1, 0)].astype(np.int64)  # the token before each place
            inputs[places == 0] = start_id
            outputs, state = model.read(torch.from_numpy(inputs).to(device), state)
            if offset >= 0 and counted.any():
                targets = torch.from_numpy(ids[places[counted]].astype(np.int64)).to(device)
                kept = outputs[torch.from_numpy(counted).to(device)]
                block = nats[:, offset : offset + counted.shape[1]]
                block[counted] = _target_nats(model, kept, targets, places[counted], observe)
    return nats


def _target_nats(
    model: LanguageModel,
    outputs: Tensor,
    targets: Tensor,
    places: npt.NDArray[np.integer[Any]],
    observe: Observer | None,
) -> Nats:
    """Return the loss at each target, (N,), in nats. Up to `MAX_LOGITS` logits are computed at a time.

    Args:
        model: The model.
        outputs: Inputs of its decoder, (N, H).
        targets: Correct tokens, (N,), int64.
        places: Indices of the targets, (N,).
        observe: Called with the logits that predict the targets.
    """
    nats: Nats = np.empty(len(places), dtype=np.float32)
    rows = max(1, MAX_LOGITS // model.config.vocab_size)
    for begin in range(0, len(places), rows):
        block = slice(begin, begin + rows)
        logits = model.decoder(outputs[block])
        nats[block] = F.cross_entropy(logits, targets[block], reduction="none").float().cpu().numpy()
        if observe is not None:
            observe(places[block], logits)
    return nats


def mean_of(nats: npt.NDArray[np.floating[Any]]) -> float:
    """Return the mean of losses, summed in double precision."""
    return float(nats.mean(dtype=np.float64))
