"""What a trained model, anybody's, costs on a text that it has not learnt: the same measure for all.

Every text starts cold, behind one newline that is read and not counted, as `charlm score` has it; and every character
counts, so that programs with vocabularies and contexts of their own compare.

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
"""Characters of a cold window."""

LATE = 64
"""Characters of a window that are left out of its late part: until then a model lacks context."""

CHUNK = 128
"""Characters that a recurrent model reads at a time; its state goes on from one to the next."""

Costs = npt.NDArray[np.float32]
Scorer = Callable[[Sequence[str]], list[Costs]]
"""Gives the cost of each character of some texts, in nats; each text starts cold."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Mean costs in nats a character.

    Attributes:
        carried: Of the text read from its beginning to its end.
        cold: Of the text cut into windows of `WINDOW` characters, each of which starts cold.
        late: Of these windows' characters past the first `LATE`.
    """

    carried: float
    cold: float
    late: float


def held_out(score: Scorer, text: str) -> HeldOut:
    """Measure a model on a text."""
    (whole,) = score([text])
    cold = np.concatenate(score([text[begin : begin + WINDOW] for begin in range(0, len(text), WINDOW)]))
    assert len(whole) == len(cold) == len(text), "each character has a cost"
    late = cold[np.arange(len(cold)) % WINDOW >= LATE]
    means = [float(part.mean(dtype=np.float64)) for part in (whole, cold, late)]
    return HeldOut(carried=means[0], cold=means[1], late=means[2])


def rows_scorer(row_costs: Callable[[Tensor], Tensor], encode: Callable[[str], list[int]]) -> Scorer:
    """Score texts with what scores rows of tokens.

    Args:
        row_costs: Gives the costs, (R, T), of all tokens of (R, 1 + T) but the first; what follows a token must not
            change its cost, since short texts are filled up.
        encode: Gives a token for each character.
    """

    def score(texts: Sequence[str]) -> list[Costs]:
        rows = [encode("\n" + text) for text in texts]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + row[:1] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            nats = row_costs(tokens).numpy()
        return [costs[: len(row) - 1] for costs, row in zip(nats, rows, strict=True)]

    return score


def recurrent_costs(read: Callable[..., tuple[Tensor, object]]) -> Callable[[Tensor], Tensor]:
    """The costs of rows under a recurrent model, whose state is carried from each row's beginning to its end.

    Args:
        read: Takes (R, T) and the state, None for the zero state; gives logits, (R, T, V), and the state after.
    """

    def row_costs(tokens: Tensor) -> Tensor:
        state, costs = None, []
        for begin in range(0, tokens.shape[1] - 1, CHUNK):
            targets = tokens[:, begin + 1 : begin + 1 + CHUNK]
            logits, state = read(tokens[:, begin : begin + targets.shape[1]], state)
            costs.append(target_costs(logits, targets))
        return torch.cat(costs, dim=1)

    return row_costs


def sliding_costs(read: Callable[[Tensor], Tensor], block_size: int) -> Callable[[Tensor], Tensor]:
    """The costs of rows under a model that sees so many tokens and no more.

    It reads overlapping blocks, half a block apart, and all but the first count with their second half: so a token has
    half a block of context at least, where its row has so much.

    Args:
        read: Takes (R, T), at most `block_size` tokens each; gives logits, (R, T, V).
        block_size: How many tokens it sees.
    """

    def row_costs(tokens: Tensor) -> Tensor:
        length = tokens.shape[1] - 1
        done, costs = 0, []
        while done < length:
            end = min(length, done + block_size // 2 if done else block_size)
            begin = max(0, end - block_size)
            nats = target_costs(read(tokens[:, begin:end]), tokens[:, begin + 1 : end + 1])
            costs.append(nats[:, done - begin :])
            done = end
        return torch.cat(costs, dim=1)

    return row_costs


def target_costs(logits: Tensor, targets: Tensor) -> Tensor:
    """The cost of each target, (R, T), under logits, (R, T, V)."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none").view(targets.shape)
