"""Fit of the gate between a network and an n-gram model to the validation text; see `charlm.engine.gate`.

Shapes: N number of tokens, V vocabulary, K order of the n-gram model, P parts of a mixture, F features.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from charlm.engine.gate import MAX_COEFFICIENT, NUM_FEATURES, Gate
from charlm.engine.ngram import MIN_PROB, NGram
from charlm.training.counting import Nats
from charlm.training.optimizer import LBFGS

MAX_PROBS = 2**20
"""Maximum number of probabilities in memory at a time."""

FIT_TOKENS = 2**16
"""Maximum number of evenly spaced tokens to which a gate is fitted. With eight coefficients, the loss on all tokens is
then up to 0.0001 nats higher than with a fit to all of them."""

MAX_ITERATIONS = 60
"""Maximum number of iterations of the fit."""

COEFFICIENT_DEVIATION = 5.0
"""Standard deviation of the normal distribution that is assumed for coefficients, which matters for few tokens. Fitted
coefficients were between -5 and 9, and one was 16."""

DIGITS = 4
"""Number of decimal digits of a coefficient."""

INITIAL_SHARE = 0.02
"""Minimum weight of network and n-gram model at the beginning of the fit."""

INITIAL_SCORE = -2.0
"""Constant of the score of the geometric mean at the beginning of the fit."""

Floats = npt.NDArray[np.float64]


class GateFeatures:
    """Numbers on which the weights of a gate depend, at each token of a text.

    Args:
        ngram: The n-gram model.
        states: Its state before each token, (K - 1, N), as from `NGram.states`.

    Attributes:
        values: Collision entropy of the network, that of the n-gram model, and the Bhattacharyya distance between
            their distributions, (3, N), float32, in nats; 0 before the token was observed.
    """

    def __init__(self, ngram: NGram, states: npt.NDArray[np.int32]) -> None:
        self._ngram = ngram
        self._states = states
        self.values = np.zeros((3, states.shape[1]), dtype=np.float32)

    def observe(self, places: npt.NDArray[np.integer[Any]], logits: Tensor) -> None:
        """Compute the numbers of some tokens.

        Args:
            places: Indices of the tokens, (T,).
            logits: Logits by the network that predict them, (T, V).
        """
        rows = max(1, MAX_PROBS // self._ngram.vocab_size)
        for begin in range(0, len(places), rows):
            block = places[begin : begin + rows]
            network = logits[begin : begin + rows].float().softmax(dim=-1)
            ngram = torch.from_numpy(self._ngram.probs(self._states[:, block])).to(network.device)
            both = (network * ngram).sqrt_()
            sums = torch.stack([network.square().sum(dim=-1), ngram.square().sum(dim=-1), both.sum(dim=-1)])
            self.values[:, block] = -sums.clamp_min(float(MIN_PROB)).log().cpu().numpy()


def fit_gate(network_nats: Nats, ngram_nats: Nats, features: npt.NDArray[np.float32], weight: float) -> Gate:
    """Return the gate with the lowest loss.

    Args:
        network_nats: Loss of the network at each token, (N,), in nats, finite.
        ngram_nats: That of the n-gram model.
        features: The numbers on which the weights depend, (3, N).
        weight: Constant weight of the n-gram model with which the fit begins.
    """
    chosen = slice(None, None, -(-len(network_nats) // FIT_TOKENS))
    losses, inputs = gate_inputs(network_nats[chosen], ngram_nats[chosen], features[:, chosen])
    weight = min(max(weight, INITIAL_SHARE), 1 - INITIAL_SHARE)
    initial = torch.zeros(2, NUM_FEATURES, dtype=torch.float64)
    initial[:, 0] = torch.tensor([np.log(weight / (1 - weight)), INITIAL_SCORE])
    coefficients = fit_coefficients(losses, inputs, initial)
    return Gate(coefficients.clamp(-MAX_COEFFICIENT, MAX_COEFFICIENT).numpy().round(DIGITS))


def fit_coefficients(losses: Tensor, features: Tensor, initial: Tensor) -> Tensor:
    """Return the coefficients of the scores with which a mixture has the lowest loss, (P - 1, F), float64.

    Args:
        losses: Loss of each part at each token, (P, N), float64, in nats.
        features: The numbers on which the scores depend, (F, N), float64.
        initial: Coefficients with which the fit begins, (P - 1, F), float64.
    """
    coefficients = initial.clone().requires_grad_()
    optimizer = LBFGS([coefficients], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        nats, _ = mixture_nats(coefficients, losses, features)
        penalty = coefficients.square().sum() / (2 * COEFFICIENT_DEVIATION**2)
        total = nats.mean() + penalty / len(nats)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)
    return coefficients.detach()


@torch.no_grad()
def gated_nats(
    gate: Gate, network_nats: Nats, ngram_nats: Nats, features: npt.NDArray[np.float32]
) -> tuple[Floats, float]:
    """Return the loss at each token with a gate, (N,), in nats, and the mean weight of the n-gram model.

    The geometric mean adds half of its weight to that of the n-gram model.

    Args:
        gate: The gate.
        network_nats: Loss of the network at each token, (N,), in nats.
        ngram_nats: That of the n-gram model.
        features: The numbers on which the weights depend, (3, N).
    """
    losses, inputs = gate_inputs(network_nats, ngram_nats, features)
    nats, weights = mixture_nats(torch.from_numpy(gate.coefficients), losses, inputs)
    return nats.numpy(), float((weights[1] + weights[2] / 2).mean())


def gate_inputs(network_nats: Nats, ngram_nats: Nats, features: npt.NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Return the losses of network, n-gram model and geometric mean, (3, N), and the features after a row of ones."""
    network, ngram, values = (torch.from_numpy(part).double() for part in (network_nats, ngram_nats, features))
    losses = torch.stack([network, ngram, (network + ngram) / 2 - values[2]])
    return losses, torch.cat([torch.ones_like(values[:1]), values])


def mixture_nats(coefficients: Tensor, losses: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of a mixture at each token, (N,), in nats, and the weights, (P, N); see `fit_coefficients`."""
    scores = coefficients @ features
    log_weights = torch.cat([torch.zeros_like(scores[:1]), scores]).log_softmax(dim=0)
    return -torch.logsumexp(log_weights - losses, dim=0), log_weights.exp()
