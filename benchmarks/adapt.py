"""Adaptation to the text that is read: counts of the document, gradient-based dynamic evaluation, and both.

The first half of a held-out text chooses everything: the weights of the parts, the gains of the adaptive part, and the
learning rate and the decay of dynamic evaluation. The losses are those of the second half. All methods read the whole
text in its order.

Dynamic evaluation changes the weights of the network after each segment of the text by a gradient step, whose elements
are divided by the root mean square of their gradients on the training text, and lets them decay to the trained ones.

Example:
    python -m benchmarks.adapt checkpoints/tiny held-out.txt

Source:
    Krause et al., Dynamic evaluation of neural sequence models, 2017, arXiv 1709.07432, section 5.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.report import table, write_section
from charlm.engine.adaptive import Adaptation
from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.engine.ngram_predictor import NGramPredictor
from charlm.engine.predictor import START
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.runs import find_model
from charlm.engine.training_text import load_training_text
from charlm.training.adapting import adaptive_loss, fit, predictions
from charlm.training.counting import best_weight, interpolated_token_nats
from charlm.training.network import LanguageModel

SEGMENT = 20
"""Number of tokens between two updates of dynamic evaluation."""

MEAN_SQUARE_SEGMENTS = 300
"""Number of segments of the training text for the mean squares of the gradients."""

LEARNING_RATES, DECAYS = (3e-4, 1e-3, 3e-3, 1e-2), (1e-3, 3e-3)
"""Settings of dynamic evaluation to choose from."""

CHOICE_TOKENS = 10_000
"""Number of tokens on which they are chosen."""

EPSILON = 0.01
"""Summand of the root mean squares, as a share of their mean."""

Nats = npt.NDArray[np.floating]


class Settings(NamedTuple):
    """Settings of dynamic evaluation."""

    learning_rate: float
    decay: float


def dynamic_nats(checkpoint: Checkpoint, scales: list[Tensor], ids: Tensor, settings: Settings) -> Nats:
    """Return the loss of each token but the first by a network that learns from each segment after it was scored.

    Args:
        checkpoint: The network.
        scales: Root mean squares of the gradients of its weights.
        ids: Tokens, (1 + T,).
        settings: Learning rate and decay.
    """
    model = _network(checkpoint)
    trained = [weight.detach().clone() for weight in model.parameters()]
    mean = torch.cat([scale.flatten() for scale in scales]).mean()
    decays = [(settings.decay * scale / mean).clamp(max=1) for scale in scales]
    state, parts = model.core.zero_state(1), []
    for begin in range(0, len(ids) - 1, SEGMENT):
        losses, state = _losses(model, ids[begin : begin + SEGMENT + 1], state)
        parts.append(losses.detach().numpy())
        gradients = torch.autograd.grad(losses.sum(), list(model.parameters()))
        with torch.no_grad():
            for weight, gradient, scale, old, decay in zip(
                model.parameters(), gradients, scales, trained, decays, strict=True
            ):
                weight -= settings.learning_rate * gradient / scale
                weight += decay * (old - weight)
    return np.concatenate(parts)


def root_mean_squares(checkpoint: Checkpoint, ids: Tensor) -> list[Tensor]:
    """Return the root mean squares of the gradients on evenly spaced segments of the training text, above 0."""
    model = _network(checkpoint)
    sums = [torch.zeros_like(weight) for weight in model.parameters()]
    for begin in np.linspace(0, len(ids) - SEGMENT - 1, MEAN_SQUARE_SEGMENTS).astype(int).tolist():
        losses, _ = _losses(model, ids[begin : begin + SEGMENT + 1], model.core.zero_state(1))
        for total, gradient in zip(sums, torch.autograd.grad(losses.sum(), list(model.parameters())), strict=True):
            total += gradient**2
    roots = [(total / MEAN_SQUARE_SEGMENTS).sqrt() for total in sums]
    mean = torch.cat([root.flatten() for root in roots]).mean()
    return [root + EPSILON * mean for root in roots]


def _network(checkpoint: Checkpoint) -> LanguageModel:
    model = LanguageModel(checkpoint.config).eval()
    model.load_tensors(checkpoint.tensors)
    return model


def _losses(model: LanguageModel, ids: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the losses of the tokens after the first, (T,), and the detached state after them."""
    outputs, state = model.read(ids[None, :-1], state)
    losses = F.cross_entropy(model.decoder(outputs[0]), ids[1:], reduction="none")
    return losses, tuple(part.detach() for part in state)


class Measured(NamedTuple):
    """Losses of the second half of a text in nats per token, without and with the adaptive part."""

    static: float
    adaptive: float


def measure(ids: npt.NDArray[np.integer], nats: Nats, kind: str) -> Measured:
    """Fit the adaptive part to the first half of a text, and return the losses of the second half.

    Args:
        ids: Tokens, (1 + T,).
        nats: Loss of each token but the first by a model that does not count the text.
        kind: Kind of the tokenizer.
    """
    default, half = Adaptation.default(kind), len(nats) // 2
    of_half = predictions(ids[: half + 1], default.context_lengths)
    fitted = fit(nats[:half], of_half, default)
    whole = adaptive_loss(nats, predictions(ids, default.context_lengths), fitted) * len(nats)
    first = adaptive_loss(nats[:half], of_half, fitted) * half
    return Measured(float(nats[half:].mean()), (whole - first) / (len(nats) - half))


def rows_of(path: Path, text: str) -> list[list[str]]:
    """Return the rows of the table for a model and a text."""
    checkpoint = load_checkpoint(path)
    assert checkpoint.counts is not None, "the model has an n-gram part"
    network = RecurrentNetwork(checkpoint)
    ids = network.tokenizer.encode(START + text).astype(np.int64)
    half = (len(ids) - 1) // 2
    static = network.start_stream().score(ids[1:]).nats
    ngram = NGramPredictor(checkpoint.counts.ngram, network.tokenizer, network.unknown_tokens)
    counts = ngram.start_stream().score(ids[1:]).nats
    tokens = torch.from_numpy(ids)
    began = time.perf_counter()
    training = network.tokenizer.encode(load_training_text(path, checkpoint.metadata)).astype(np.int64)
    scales = root_mean_squares(checkpoint, torch.from_numpy(training))
    choices = [Settings(*values) for values in itertools.product(LEARNING_RATES, DECAYS)]
    best = min(choices, key=lambda one: dynamic_nats(checkpoint, scales, tokens[: CHOICE_TOKENS + 1], one).mean())
    chosen = time.perf_counter()
    dynamic = dynamic_nats(checkpoint, scales, tokens, best)
    seconds = time.perf_counter() - chosen
    print(f"chosen in {chosen - began:.0f} s: {best}; {len(dynamic) / seconds:,.0f} tokens per second")
    rows = []
    for name, nats in (("network", static), ("network, dynamic evaluation", dynamic)):
        weight = best_weight(nats[:half], counts[:half])
        mixed = interpolated_token_nats(nats, counts, weight)
        for parts, losses in ((name, nats), (f"{name}, n-grams (weight {weight:.2f})", mixed)):
            found = measure(ids, losses, network.tokenizer.kind)
            rows.append([path.parent.name, parts, f"{found.static:.3f}", f"{found.adaptive:.3f}"])
    return rows


def main() -> None:
    """Measure the models and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("arguments", nargs="+", metavar="RUN TEXT", help="pairs of a run and a held-out text")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pairs = zip(given.arguments[::2], given.arguments[1::2], strict=True)
    rows = [row for run, text in pairs for row in rows_of(find_model(run), Path(text).read_text(encoding="utf-8"))]
    body = (
        "Loss of the second half of a held-out text, in nats per token. The first half chose all weights and settings. "
        "*With `--adapt`*: a further part counts the text that is read.\n\n"
        + table(["model", "parts", "as trained", "with `--adapt`"], rows)
    )
    write_section("adapt", "Adaptation to the text that is read", body, packages=("numpy", "torch"))


if __name__ == "__main__":
    main()
