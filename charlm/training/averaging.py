"""Average of the last weights of a training."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WINDOW_SHARE = 0.1
"""Length of the averaging window at the peak learning rate, as a share of the updates so far."""

AVERAGE_EVERY = 8
"""Number of updates between two additions to the average. An addition takes a fiftieth of the time of an update."""

FIRST_UPDATES = 64
"""Number of updates at the beginning of a training each of which is added to the average."""


class WeightAverage:
    """Average of each weight over the last updates.

    The averaged weights have the validation loss that a falling learning rate would lead to. As the learning rate
    falls, the averaging window becomes shorter, because older weights would raise the loss.

    Args:
        model: The model.

    Attributes:
        weights: The averages by parameter name, each with the shape of the parameter.

    Source:
        Polynomial-decay averaging, Shamir and Zhang, arXiv 1212.1824.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.weights: dict[str, Tensor] = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.no_grad()
    def update(self, step: int, rate_share: float) -> None:
        """Add the weights after an update to the average, if an addition is due at this update.

        Args:
            step: Number of the update, from 1.
            rate_share: Learning rate of the update as a share of the peak.
        """
        distance = 1 if step <= FIRST_UPDATES else AVERAGE_EVERY
        if step % distance:
            return
        share = min(1.0, distance / (WINDOW_SHARE * rate_share * step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._model.parameters()), share)

    @contextmanager
    def applied(self, *, half: bool = False) -> Iterator[None]:
        """Replace the weights of the model by their averages within the context.

        Args:
            half: Whether to round the averages to half precision, in which the model file stores them.
        """
        own = [weight.detach().clone() for weight in self._model.parameters()]
        self._set_weights(value.half() if half else value for value in self.weights.values())
        try:
            yield
        finally:
            self._set_weights(own)

    def _set_weights(self, values: Iterable[Tensor]) -> None:
        for weight, value in zip(self._model.parameters(), values, strict=True):
            weight.detach().copy_(value)
