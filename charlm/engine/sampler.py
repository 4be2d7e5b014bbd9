"""Random generation of texts with a model, all in one batch, one token of each at a time.

Shapes: B batch, V vocabulary.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.config import SampleConfig
from charlm.engine.decoding import draw, log_softmax, penalise_repeats, relative_probabilities
from charlm.engine.generation import Generation
from charlm.engine.novelty import NoveltyFilter
from charlm.engine.prompts import read_prompts
from charlm.engine.rnn import Array, RecurrentNetwork
from charlm.errors import NoveltyError
from charlm.text.tokenizer import UNKNOWN_ID

NUM_SEEDS = 2**31
"""Number of seeds from which one is drawn if none is set. A seed has at most ten digits, so that it is easy to type."""


def next_tokens(network: RecurrentNetwork, prompt: str) -> list[tuple[str, float]]:
    """Return all tokens and their probabilities of being the next token after a prompt, the most probable first."""
    _, outputs = read_prompts(network, [prompt])
    probs = relative_probabilities(network.logits(outputs), SampleConfig(temperature=1.0))[0]
    probs /= probs.sum()
    return [(network.tokenizer.tokens[index], float(probs[index])) for index in np.argsort(-probs, kind="stable")]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Model with the settings to generate text with it.

    Attributes:
        network: The model.
        config: Settings of generation.
        novelty_filter: Filter that excludes repetitions of the training text.
        with_nll: Whether the negative log-likelihood of the generated text is summed up.
    """

    network: RecurrentNetwork
    config: SampleConfig
    novelty_filter: NoveltyFilter | None = None
    with_nll: bool = False

    def start(self, prompts: Sequence[str]) -> list[Generation]:
        """Return the texts to generate: `count` for each prompt, in order, with consecutive seeds.

        If no seed is set, the first one is random.
        """
        seed = secrets.randbelow(NUM_SEEDS) if self.config.seed is None else self.config.seed
        repeated = [prompt for prompt in prompts for _ in range(self.config.count)]
        return [
            Generation(self.network.tokenizer, self.config, prompt, seed + index)
            for index, prompt in enumerate(repeated)
        ]

    def stream(self, prompt: str = "") -> Iterator[list[str]]:
        """Generate the samples of one prompt; see `generate`."""
        return self.generate(self.start([prompt]))

    def generate(self, generations: Sequence[Generation]) -> Iterator[list[str]]:
        """Generate texts, one token of each at a time.

        Args:
            generations: New texts, from `start`.

        Yields:
            The next piece of each text, without the prompt. A piece is empty if the text has ended, or if it may be
            the beginning of a stop string.

        Raises:
            NoveltyError: If every next token would repeat the training text.
        """
        if self.config.limit == 0:
            return
        stepper, outputs = read_prompts(self.network, [generation.prompt for generation in generations])
        active = list(range(len(generations)))
        while True:
            ids, nlls = self._choose(self.network.logits(outputs), [generations[index] for index in active])
            pieces = [""] * len(generations)
            for index, token_id, nll_nats in zip(active, ids.tolist(), nlls, strict=True):
                pieces[index] = generations[index].append(token_id, nll_nats)
            yield pieces
            unfinished = [row for row, index in enumerate(active) if not generations[index].ended_by]
            if not unfinished:
                return
            if len(unfinished) < len(active):
                active = [active[row] for row in unfinished]
                ids = ids[unfinished]
                stepper.select(np.array(unfinished))
            outputs = stepper.step(ids)

    def _choose(self, logits: Array, generations: Sequence[Generation]) -> tuple[npt.NDArray[np.intp], Sequence[float]]:
        """Choose the next token of each text.

        Args:
            logits: Logits, (B, V), float32. They are overwritten.
            generations: The B texts.

        Returns:
            The ids, (B,), and their negative log-likelihoods in nats; zeros unless `with_nll` is set.
        """
        log_probs = log_softmax(logits) if self.with_nll else None  # of the model itself, before any setting applies
        if not self.config.allow_unknown:
            logits[:, UNKNOWN_ID] = -np.inf
        if self.config.repeat_penalty != 1:
            for row, generation in zip(logits, generations, strict=True):
                penalise_repeats(row, generation.recent_ids, self.config.repeat_penalty)
        ids = self._draw(logits, generations)
        if log_probs is None:
            return ids, [0.0] * len(generations)
        return ids, (-log_probs[np.arange(len(ids)), ids]).tolist()

    def _draw(self, logits: Array, generations: Sequence[Generation]) -> npt.NDArray[np.intp]:
        """Draw the next token of each text, (B,), from logits, (B, V).

        A token that would repeat the training text is excluded, and another one is drawn for this text.

        Raises:
            NoveltyError: If all tokens of a text are excluded.
        """
        ids = self._draw_any(logits, generations)
        if self.novelty_filter is None:
            return ids
        repeats = _repeating_rows(self.novelty_filter, ids, generations, range(len(ids)))
        while repeats:
            logits[repeats, ids[repeats]] = -np.inf
            _check_possible(self.novelty_filter, logits, generations, repeats)
            ids[repeats] = self._draw_any(logits[repeats], [generations[row] for row in repeats])
            repeats = _repeating_rows(self.novelty_filter, ids, generations, repeats)
        return ids

    def _draw_any(self, logits: Array, generations: Sequence[Generation]) -> npt.NDArray[np.intp]:
        """Draw the next token of each text, (B,), from logits, (B, V), without regard to the training text."""
        numbers = [next(generation.random_numbers) for generation in generations]
        return draw(relative_probabilities(logits, self.config), numbers)


def _repeating_rows(
    novelty_filter: NoveltyFilter,
    ids: npt.NDArray[np.intp],
    generations: Sequence[Generation],
    rows: Sequence[int],
) -> list[int]:
    """Return the rows, out of those given, whose text would repeat the training text with its next token."""
    return [
        row
        for row in rows
        if novelty_filter.repeats(generations[row].tail, generations[row].decode_next(int(ids[row])))
    ]


def _check_possible(
    novelty_filter: NoveltyFilter, logits: Array, generations: Sequence[Generation], rows: Sequence[int]
) -> None:
    """Check that each of these rows has a token that is not excluded.

    Raises:
        NoveltyError: If a row has none.
    """
    length = novelty_filter.length
    for row in rows:
        if not np.isfinite(logits[row]).any():
            raise NoveltyError(
                f"novel {length}: every token after {generations[row].tail[-length:]!r} would repeat {length} "
                "characters of the training text; use a larger value",
                fields=["novel"],
            )
