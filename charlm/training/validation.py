"""Measures a model on a text while it learns another.

Shapes: B streams, T tokens.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from charlm.text.tokenizer import Ids
from charlm.training.network import LanguageModel, reset_state

VALIDATION_STREAM, WARM_UP = 2048, 192
"""Validation goes in parallel streams of about so many tokens, each of which reads the tokens before its own
first, uncounted: a recurrent model forgets, so that this gives what one carried pass would."""

VALIDATION_BLOCK = 2**22
"""Logits held at a time, however large the vocabulary."""

VALIDATION_STEPS = 32
"""Tokens of each stream read at a time; a part of `WARM_UP`. Between two of them the validation may be broken off."""


@torch.no_grad()
def validation_loss(
    model: LanguageModel, ids: Ids, start_id: int, stop: Callable[[], bool] = lambda: False
) -> float | None:
    """The mean loss over a text that is read as one stream, in nats a token.

    The text begins as a scored text does, from the zero state after one newline token.

    Args:
        model: The model; its mode, training or not, is left as it was.
        ids: The text, (N,), at least one token.
        start_id: The newline token.
        stop: Asked now and then; once it says True, the answer is None.
    """
    device = model.decoder.bias.device
    was_training = model.training
    model.eval()
    streams = max(1, round(len(ids) / VALIDATION_STREAM))
    length = -(-len(ids) // streams)
    tokens = np.concatenate([np.array([start_id]), ids]).astype(np.int64)
    begins = np.arange(streams)[:, None] * length
    state = model.core.zero_state(streams)
    total, rows = 0.0, max(1, VALIDATION_BLOCK // model.config.vocab_size)
    try:
        for offset in range(-WARM_UP if streams > 1 else 0, length, VALIDATION_STEPS):
            if stop():
                return None
            if offset == 0:  # the first stream has nothing before it
                state = reset_state(state, np.arange(streams) == 0)
            places = begins + np.arange(offset, min(offset + VALIDATION_STEPS, length))
            inside = (places >= begins) & (places < len(ids))
            places = places.clip(0, len(ids) - 1)
            outputs, state = model.read(torch.from_numpy(tokens[places]).to(device), state)
            if offset >= 0 and inside.any():
                outputs = outputs[torch.from_numpy(inside).to(device)]
                targets = torch.from_numpy(tokens[places + 1][inside]).to(device)
                for part, wanted in zip(torch.split(outputs, rows), torch.split(targets, rows), strict=True):
                    total += float(F.cross_entropy(model.decoder(part), wanted, reduction="sum"))
    finally:
        model.train(was_training)
    return total / len(ids)
