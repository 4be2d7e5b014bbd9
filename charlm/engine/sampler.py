"""Random generation of texts with a model, all in one batch, one token of each at a time.

Shapes: B batch, V vocabulary.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.engine.decoding import draw, log_softmax, penalise_repeats, relative_probabilities
from charlm.engine.exclusions import Exclusions
from charlm.engine.generation import Generation
from charlm.engine.novelty import NoveltyFilter
from charlm.engine.predictor import Array, Predictor
from charlm.engine.prompts import read_prompts
from charlm.errors import ConfigError
from charlm.sample_config import SampleConfig
from charlm.text.line_ends import fold_line_ends
from charlm.text.tokenizer import UNKNOWN_ID, Tokenizer

NUM_SEEDS = 2**31
"""Number of seeds from which one is drawn if none is set. A seed has at most ten digits, so that it is easy to type."""


def next_tokens(predictor: Predictor, prompt: str) -> list[tuple[str, float]]:
    """Return all tokens and their probabilities of being the next token after a prompt, the most probable first."""
    logits = read_prompts(predictor, [prompt]).logits()
    probs = relative_probabilities(logits, SampleConfig(temperature=1.0))[0]
    probs /= probs.sum()
    return [(predictor.tokenizer.tokens[index], float(probs[index])) for index in np.argsort(-probs, kind="stable")]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Model with the settings to generate text with it.

    Attributes:
        predictor: The model.
        config: Settings of generation.
        novelty_filter: Filter that excludes repetitions of the training text.
        with_nll: Whether the negative log-likelihood of the generated text is summed up.
        separator: Text after which the model starts from the zero state, because it was trained on a list; or None.
    """

    predictor: Predictor
    config: SampleConfig
    novelty_filter: NoveltyFilter | None = None
    with_nll: bool = False
    separator: str | None = None

    def start(self, prompts: Sequence[str]) -> list[Generation]:
        """Return the texts to generate: `count` for each prompt, in order, with consecutive seeds.

        If no seed is set, the first one is random.

        Raises:
            ConfigError: If the texts have no end because the model knows no newline, or cannot write a stop string.
        """
        check_end(self.predictor.tokenizer, self.config)
        seed = self.first_seed()
        repeated = [prompt for prompt in prompts for _ in range(self.config.count)]
        return [self.new_generation(prompt, seed + index) for index, prompt in enumerate(repeated)]

    def first_seed(self) -> int:
        """Return the seed of the first text: the one that is set, or a random one."""
        return secrets.randbelow(NUM_SEEDS) if self.config.seed is None else self.config.seed

    def new_generation(self, prompt: str, seed: int) -> Generation:
        """Return a text to generate."""
        return Generation(self.predictor.tokenizer, self.config, prompt, seed)

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
        reader = read_prompts(self.predictor, [self._read_part(generation.prompt) for generation in generations])
        active = list(range(len(generations)))
        while True:
            ids, nlls = self._choose(reader.logits(), [generations[index] for index in active])
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
                reader.select(np.array(unfinished))
            reader.advance(ids)
            if self.separator is not None:
                ended = [row for row, index in enumerate(active) if generations[index].tail.endswith(self.separator)]
                if ended:
                    reader.restart(ended)

    def complete(self, generations: Sequence[Generation]) -> Iterator[tuple[Generation, str]]:
        """Generate texts; yield them in order, each as soon as it and all before it are complete, without the prompt.

        Args:
            generations: New texts, from `start`.
        """
        texts: list[list[str]] = [[] for _ in generations]
        num_complete = 0
        for new_pieces in self.generate(generations):
            for pieces, piece in zip(texts, new_pieces, strict=True):
                pieces.append(piece)
            while num_complete < len(generations) and generations[num_complete].ended_by:
                yield generations[num_complete], "".join(texts[num_complete])
                num_complete += 1
        for generation, pieces in zip(generations[num_complete:], texts[num_complete:], strict=True):
            yield generation, "".join(pieces)

    def _read_part(self, prompt: str) -> str:
        """Return the part of a prompt that the state depends on: for a list, the part after the last separator."""
        if self.separator is None:
            return prompt
        return fold_line_ends(prompt).rpartition(self.separator)[2]

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

        A token that would repeat the training text, or write a banned text, is excluded, and another one is drawn for
        this text.

        Raises:
            NoveltyError: If all tokens of a text are excluded, at least some because of the training text.
            SamplingError: If all tokens of a text are excluded because of banned texts.
        """
        ids = self._draw_any(logits, generations)
        exclusions = Exclusions(novelty_filter=self.novelty_filter, ban=self.config.ban)
        if not exclusions:
            return ids
        excluded = _excluded_rows(exclusions, ids, generations, range(len(ids)))
        while excluded:
            logits[excluded, ids[excluded]] = -np.inf
            for row in excluded:
                if not np.isfinite(logits[row]).any():
                    raise exclusions.error(generations[row].tail)
            ids[excluded] = self._draw_any(logits[excluded], [generations[row] for row in excluded])
            excluded = _excluded_rows(exclusions, ids, generations, excluded)
        return ids

    def _draw_any(self, logits: Array, generations: Sequence[Generation]) -> npt.NDArray[np.intp]:
        """Draw the next token of each text, (B,), from logits, (B, V), without regard to the training text."""
        numbers = [next(generation.random_numbers) for generation in generations]
        return draw(relative_probabilities(logits, self.config), numbers)


def _excluded_rows(
    exclusions: Exclusions, ids: npt.NDArray[np.intp], generations: Sequence[Generation], rows: Sequence[int]
) -> list[int]:
    """Return the rows, out of those given, whose next token is excluded."""
    return [
        row for row in rows if exclusions.excludes(generations[row].tail, generations[row].decode_next(int(ids[row])))
    ]


def check_end(tokenizer: Tokenizer, config: SampleConfig) -> None:
    """Check that a text whose length is not limited can end.

    Raises:
        ConfigError: If the model has no token with a newline, or with a character of a stop string.
    """
    ends = [("lines", "\n")] if config.lines is not None and (config.length is None or config.length < 0) else []
    ends += [("stop", text) for text in config.stop] if config.limit < 0 else []
    if not ends:
        return
    known = set[str]().union(*(tokenizer.decode([index]) for index in range(1, tokenizer.vocab_size)))
    if not any(known.issuperset(text) for _, text in ends):
        name, text = ends[0]
        raise ConfigError(
            f"{name}: the model cannot write {text!r}, so that the text has no end; set length",
            fields=[name, "length"],
        )
