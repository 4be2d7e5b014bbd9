"""Mixtures of a network and an n-gram model: constant weights, and weights that depend on various numbers.

The first half of a held-out text fits the weights of each mixture. The losses are those of the second half. A gate in
the model file is not used. The weights are the softmax of linear functions of features; see `charlm.engine.gate`.

Example:
    python -m benchmarks.mixtures checkpoints/tiny held-out.txt

Shapes: N number of tokens, K order of the n-gram model, V vocabulary, P parts of a mixture, F features.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.report import table, write_section
from charlm.engine.checkpoint import load_checkpoint
from charlm.engine.ngram import NGram
from charlm.engine.predictor import START
from charlm.engine.runs import find_model
from charlm.training.counting import Nats, best_weight, interpolated_token_nats, text_sequence
from charlm.training.gating import GateFeatures, fit_coefficients, fit_gate, gate_inputs, gated_nats, mixture_nats
from charlm.training.network import LanguageModel
from charlm.training.token_losses import validation_nats

MAX_TOKENS = 100_000
"""Maximum number of tokens of a text, from its beginning."""

DECAY = 0.9
"""Factor of the moving average of the log ratio for each token."""

CONSTANT = "two parts: one constant weight"
"""Name of the mixture with which the others are compared."""

INTRODUCTION = """\
Loss of the second half of a held-out text, in nats per token. The first half fitted all weights. Numbers with a sign
are differences from the loss with one constant weight; negative ones are better. The standard errors of these
differences are up to {error:.4f}.

*Two parts*: the network and the n-grams. *Three parts*: also their geometric mean. The weights depend on:

- *entropies*: the collision entropies of network and n-grams, and the Bhattacharyya distance between them;
- *Shannon entropies*: those of network and n-grams, and the Kullback-Leibler divergences in both directions;
- *context*: the length of the longest context that the n-grams know;
- *recent losses*: a moving average of the log ratio of the probabilities that both gave to the latest tokens, with a
  factor of {decay} per token.

"""

Floats = npt.NDArray[np.floating[Any]]


class Features(GateFeatures):
    """Numbers on which weights can depend, at each token of a text; see `GateFeatures`.

    Attributes:
        shannon: Shannon entropy of the network, that of the n-gram model, and the Kullback-Leibler divergences
            KL(network || n-grams) and KL(n-grams || network), (4, N), float32, in nats.
    """

    def __init__(self, ngram: NGram, states: npt.NDArray[np.int32]) -> None:
        super().__init__(ngram, states)
        self.shannon = np.zeros((4, states.shape[1]), dtype=np.float32)

    def observe(self, places: npt.NDArray[np.integer[Any]], logits: Tensor) -> None:
        """Compute the numbers of some tokens; see `GateFeatures.observe`."""
        super().observe(places, logits)
        network = logits.float().log_softmax(dim=-1)
        ngram = torch.from_numpy(self._ngram.log_probs(self._states[:, places]))
        costs = torch.stack([network, ngram, network - ngram, ngram - network])
        costs[:2] *= -1
        weights = torch.stack([network, ngram]).exp().repeat(2, 1, 1)
        self.shannon[:, places] = (weights * costs).sum(dim=-1).numpy()


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Predictions of the tokens of a text by a network and an n-gram model.

    Attributes:
        network_nats: Loss of the network at each token, (N,).
        ngram_nats: That of the n-gram model.
        features: Numbers that depend on the distributions.
        known: Length of the longest context that the n-gram model knows, (N,), from 0 to K - 1.
    """

    network_nats: Nats
    ngram_nats: Nats
    features: Features
    known: npt.NDArray[np.integer[Any]]


class Mixture(NamedTuple):
    """Mixture whose weights are fitted.

    Attributes:
        losses: Loss of each part at each token, (P, N), float64.
        features: The numbers on which the weights depend, (F, N), float64.
    """

    losses: Tensor
    features: Tensor


def mixtures(predicted: Predicted) -> dict[str, Mixture]:
    """Return the mixtures that charlm does not have, by their names."""
    losses, inputs = gate_inputs(predicted.network_nats, predicted.ngram_nats, predicted.features.values)
    two, constant = losses[:2], inputs[:1]
    context = torch.eye(int(predicted.known.max()) + 1, dtype=torch.float64)[:, predicted.known]
    recent = moving_average(predicted.ngram_nats - predicted.network_nats)
    shannon = torch.from_numpy(predicted.features.shannon).double()
    return {
        "two parts: context": Mixture(two, context),
        "two parts: entropies": Mixture(two, inputs),
        "two parts: entropies, recent losses": Mixture(two, torch.cat([inputs, recent])),
        "three parts: constant weights": Mixture(losses, constant),
        "three parts: Shannon entropies": Mixture(losses, torch.cat([constant, shannon])),
        "three parts: entropies, context": Mixture(losses, torch.cat([inputs, context])),
        "three parts: entropies, recent losses": Mixture(losses, torch.cat([inputs, recent])),
    }


def moving_average(log_ratios: Nats) -> Tensor:
    """Return the moving average of the log ratios of all tokens before each token, (1, N), float64."""
    average, averages = 0.0, []
    for log_ratio in log_ratios.tolist():
        averages.append(average)
        average = DECAY * average + (1 - DECAY) * log_ratio
    return torch.tensor([averages], dtype=torch.float64)


def second_half_nats(predicted: Predicted) -> dict[str, Floats]:
    """Return the losses of the second half of the tokens, (N / 2,), by network, n-grams and all mixtures."""
    half = len(predicted.network_nats) // 2
    network, ngram, values = predicted.network_nats, predicted.ngram_nats, predicted.features.values
    first, second = ((network[part], ngram[part], values[:, part]) for part in (slice(half), slice(half, None)))
    weight = best_weight(*first[:2])
    nats = {
        "network": second[0],
        "n-grams": second[1],
        CONSTANT: interpolated_token_nats(*second[:2], weight),
        "three parts: entropies (the gate)": gated_nats(fit_gate(*first, weight), *second)[0],
    }
    for name, (losses, features) in mixtures(predicted).items():
        initial = torch.zeros(len(losses) - 1, len(features), dtype=torch.float64)
        coefficients = fit_coefficients(losses[:, :half], features[:, :half], initial)
        nats[name] = mixture_nats(coefficients, losses[:, half:], features[:, half:])[0].numpy()
    return nats


def predict(path: Path, text: Path, max_tokens: int) -> tuple[Predicted, str]:
    """Return the predictions of a text by the parts of a model, and a description of both."""
    checkpoint = load_checkpoint(path)
    assert checkpoint.counts is not None, "the model has an n-gram part"
    ngram, tokenizer, config = checkpoint.counts.ngram, checkpoint.tokenizer, checkpoint.config
    ids = tokenizer.encode(text.read_text(encoding="utf-8"))[:max_tokens]
    start_id = int(tokenizer.encode(START)[0])
    sequence = text_sequence(ids, start_id)
    states = sequence.states(ngram)
    features = Features(ngram, states)
    model = LanguageModel(config)
    model.load_tensors(checkpoint.tensors)
    nats = validation_nats(model, ids, start_id, observe=features.observe)
    assert nats is not None, "nothing stops it"
    lengths = np.arange(1, ngram.order)[:, None]
    known = np.max((states >= 0) * lengths, axis=0, initial=0)
    facts = (
        f"{text.name}, {len(ids):,} tokens, vocabulary {config.vocab_size:,}; "
        f"network {config.num_layers} x {config.hidden_size}; {ngram.num_ngrams:,} n-grams of order {ngram.order}"
    )
    return Predicted(network_nats=nats, ngram_nats=sequence.nats(ngram), features=features, known=known), facts


class Column(NamedTuple):
    """Measured losses of a model, and their largest standard error."""

    cells: dict[str, str]
    error: float


def column(predicted: Predicted) -> Column:
    """Measure all mixtures."""
    nats = second_half_nats(predicted)
    absolute = [*nats][: 1 + [*nats].index(CONSTANT)]
    cells = {name: f"{nats[name].mean(dtype=np.float64):.4f}" for name in absolute}
    differences = {name: nats[name] - nats[CONSTANT] for name in nats if name not in absolute}
    cells |= {name: f"{values.mean():+.4f}" for name, values in differences.items()}
    return Column(cells, max(float(values.std()) / len(values) ** 0.5 for values in differences.values()))


def main() -> None:
    """Measure the models and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("arguments", nargs="+", metavar="RUN TEXT", help="pairs of a run and a held-out text")
    parser.add_argument("--tokens", type=int, default=MAX_TOKENS, help="maximum number of tokens of each text")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    columns, facts = {}, []
    for run, text in zip(given.arguments[::2], given.arguments[1::2], strict=True):
        path = find_model(run)
        predicted, fact = predict(path, Path(text), given.tokens)
        columns[path.parent.name] = column(predicted)
        facts.append(f"- {path.parent.name}: {fact}")
    names = next(iter(columns.values())).cells
    rows = [[name, *(found.cells[name] for found in columns.values())] for name in names]
    body = INTRODUCTION.format(decay=DECAY, error=max(found.error for found in columns.values()))
    body += table(["", *columns], rows) + "\n\n" + "\n".join(facts)
    write_section("mixtures", "Mixtures of network and n-grams", body, packages=("numpy", "torch"))


if __name__ == "__main__":
    main()
