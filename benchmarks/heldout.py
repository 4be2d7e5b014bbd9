"""Loss of trained models on a held-out text, measured in the same way for charlm and for other programs.

The rule is that of `charlm score`: each text starts from the zero state after one newline, which is read but not
counted. All characters of the text count, so that programs with different vocabularies and contexts compare.

Shapes: R rows, T characters, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 256
"""Number of characters in a window that starts from the zero state."""

LATE = 64
"""Number of characters at the start of a window that the `late` loss leaves out, because they have little context."""

CHUNK = 128
"""Number of characters that a recurrent model reads at a time. Its state is carried from chunk to chunk."""

Costs = npt.NDArray[np.float32]
"""Loss of each character of a text in nats, (T,)."""

Scorer = Callable[[Sequence[str]], list[Costs]]
"""Function that returns the costs of texts. Each text starts from the zero state."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Mean losses in nats per character.

    Attributes:
        carried: Loss of the text, read once from start to end.
        cold: Loss of the text in windows of `WINDOW` characters, each read from the zero state.
        late: As `cold`, without the first `LATE` characters of each window.
    """

    carried: float
    cold: float
    late: float


def held_out(score: Scorer, text: str) -> HeldOut:
    """Measure the losses of a model on a text."""
    (whole,) = score([text])
    cold = np.concatenate(score([text[start : start + WINDOW] for start in range(0, len(text), WINDOW)]))
    assert len(whole) == len(cold) == len(text), "each character has a cost"
    late = cold[np.arange(len(cold)) % WINDOW >= LATE]
    means = [float(costs.mean(dtype=np.float64)) for costs in (whole, cold, late)]
    return HeldOut(carried=means[0], cold=means[1], late=means[2])


def rows_scorer(row_costs: Callable[[Tensor], Tensor], encode: Callable[[str], list[int]]) -> Scorer:
    """Return a scorer of texts, made from a function that scores rows of tokens.

    Args:
        row_costs: Maps tokens, (R, 1 + T), to the costs of all tokens but the first, (R, T). A token's cost must not
            depend on the tokens after it, because short texts are padded at the end.
        encode: Returns one token per character.
    """

    def score(texts: Sequence[str]) -> list[Costs]:
        rows = [encode("\n" + text) for text in texts]
        length = max(map(len, rows))
        tokens = torch.tensor([row + row[:1] * (length - len(row)) for row in rows])  # (R, 1 + T)
        with torch.inference_mode():
            nats = row_costs(tokens).numpy()
        return [costs[: len(row) - 1] for costs, row in zip(nats, rows, strict=True)]

    return score


def recurrent_costs(read: Callable[..., tuple[Tensor, object]]) -> Callable[[Tensor], Tensor]:
    """Return a function for `rows_scorer` that scores with a recurrent model.

    Args:
        read: Maps tokens, (R, T), and a state to logits, (R, T, V), and the next state. None is the zero state.
    """

    def row_costs(tokens: Tensor) -> Tensor:
        state, costs = None, []
        for start in range(0, tokens.shape[1] - 1, CHUNK):
            targets = tokens[:, start + 1 : start + 1 + CHUNK]
            logits, state = read(tokens[:, start : start + targets.shape[1]], state)
            costs.append(target_costs(logits, targets))
        return torch.cat(costs, dim=1)

    return row_costs


def sliding_costs(read: Callable[[Tensor], Tensor], block_size: int) -> Callable[[Tensor], Tensor]:
    """Return a function for `rows_scorer` that scores with a model of limited context, such as a transformer.

    The model reads blocks that overlap by half. Of every block but the first, only the second half is counted, so that
    each token has at least half a block of context if its row has as many tokens before it.

    Args:
        read: Maps tokens, (R, T) with T up to `block_size`, to logits, (R, T, V).
        block_size: Maximum number of tokens that the model reads.
    """

    def row_costs(tokens: Tensor) -> Tensor:
        length = tokens.shape[1] - 1
        done, costs = 0, []
        while done < length:
            end = min(length, done + block_size // 2 if done else block_size)
            start = max(0, end - block_size)
            nats = target_costs(read(tokens[:, start:end]), tokens[:, start + 1 : end + 1])
            costs.append(nats[:, done - start :])
            done = end
        return torch.cat(costs, dim=1)

    return row_costs


def target_costs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy of each target in nats, (R, T), from logits, (R, T, V)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view(targets.shape)
