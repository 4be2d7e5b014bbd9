"""Drawing text from a model: temperature, top-k, top-p, min-p, seeds, a stream of pieces."""

import itertools
import secrets
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from charlm.config import SampleConfig
from charlm.engine import START, Array, Engine, State
from charlm.tokenizer import UNKNOWN_ID

DRAWS = 1024
"""Random numbers are made in blocks of so many."""


def token_probabilities(logits: npt.ArrayLike, config: SampleConfig) -> npt.NDArray[np.float64]:
    """The probabilities that tokens are drawn with, after all filters.

    The filters go in the order top-k, top-p, min-p, each on what the last has left and at the temperature asked
    for. The likeliest token always stays.

    Args:
        logits: (B, V).
        config: Temperature and filters. At temperature 0 the first of the likeliest tokens has probability 1.

    Returns:
        (B, V), float64, each row with the sum 1.

    Source:
        top-p: Holtzman et al., arXiv 1904.09751; min-p: Nguyen et al., arXiv 2407.01082.
    """
    values = np.asarray(logits, dtype=np.float64)
    best = values.argmax(axis=-1, keepdims=True)
    if config.temperature == 0:
        probs = np.zeros_like(values)
        np.put_along_axis(probs, best, 1.0, axis=-1)
        return probs
    with np.errstate(over="ignore"):  # next to temperature 0 all but the likeliest go to exp(-inf) = 0
        probs = np.exp((values - np.take_along_axis(values, best, axis=-1)) / config.temperature)
    if config.top_k is not None and config.top_k < probs.shape[-1]:
        order = np.argsort(-probs, axis=-1, kind="stable")
        np.put_along_axis(probs, order[:, config.top_k :], 0.0, axis=-1)
    if config.top_p is not None:
        order = np.argsort(-probs, axis=-1, kind="stable")
        ranked = np.take_along_axis(probs, order, axis=-1)
        before = np.cumsum(ranked, axis=-1) - ranked  # the mass of all tokens that are likelier
        ranked[before >= config.top_p * ranked.sum(axis=-1, keepdims=True)] = 0.0
        np.put_along_axis(probs, order, ranked, axis=-1)
    if config.min_p is not None:
        probs[probs < config.min_p] = 0.0  # the likeliest stands at 1 still
    probs /= probs.sum(axis=-1, keepdims=True)
    return probs


def next_tokens(engine: Engine, prompt: str) -> list[tuple[str, float]]:
    """All tokens with their probability of coming after a prompt, the likeliest first, as the model has them."""
    ids = engine.tokenizer.encode(START + prompt)[None, :]
    logits = engine.logits(engine.read(ids, engine.zero_state(1))[:, -1])
    probs = token_probabilities(logits, SampleConfig(temperature=1.0))[0]
    return [(engine.tokenizer.tokens[index], float(probs[index])) for index in np.argsort(-probs, kind="stable")]


class Sampler:
    """Writes texts with a model, several as one batch.

    Args:
        engine: The model.
        config: How tokens are drawn. Without a seed one is drawn, and kept in `seed`.
        allow_unknown: Whether the unknown token may be drawn.

    Attributes:
        seed: The first sample's seed; sample i has `seed + i`.
    """

    def __init__(self, engine: Engine, config: SampleConfig, *, allow_unknown: bool = False) -> None:
        self._engine = engine
        self._config = config
        self._allow_unknown = allow_unknown
        self.seed = secrets.randbelow(2**31) if config.seed is None else config.seed

    def stream(self, prompt: str = "") -> Iterator[list[str]]:
        """Write on from a prompt, a token at a time.

        Yields:
            The next piece of text of each sample, `count` of them; the prompt is not repeated.
        """
        engine, rows = self._engine, self._config.count
        start = engine.zero_state(1)
        outputs = engine.read(engine.tokenizer.encode(START + prompt)[None, :], start)[:, -1].repeat(rows, axis=0)
        state: State = tuple(part.repeat(rows, axis=1) for part in start)
        uniforms = self._uniforms(rows)
        for step in itertools.count():
            if step == self._config.length:
                return
            logits = engine.logits(outputs)
            if not self._allow_unknown:
                logits[:, UNKNOWN_ID] = -np.inf
            ids = self._draw(logits, next(uniforms))
            yield [engine.tokenizer.decode([token]) for token in ids]
            outputs = engine.read(ids[:, None], state)[:, -1]

    def _draw(self, logits: Array, uniforms: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
        cumulative = token_probabilities(logits, self._config).cumsum(axis=-1)
        # The sum may miss 1 by rounding: scaling the draw by it keeps the draw on a token with probability.
        drawn: npt.NDArray[np.intp] = (cumulative > uniforms[:, None] * cumulative[:, -1:]).argmax(axis=-1)
        return drawn

    def _uniforms(self, rows: int) -> Iterator[npt.NDArray[np.float64]]:
        generators = [np.random.default_rng(self.seed + row) for row in range(rows)]
        while True:
            yield from np.stack([generator.random(DRAWS) for generator in generators], axis=1)
