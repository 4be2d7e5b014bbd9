"""Beam search: the most probable texts after a prompt, instead of random ones."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.engine.decoding import log_softmax
from charlm.engine.exclusions import Exclusions
from charlm.engine.generation import Generation
from charlm.engine.novelty import NoveltyFilter
from charlm.engine.predictor import Predictor
from charlm.engine.prompts import read_prompts
from charlm.errors import NoveltyError
from charlm.sample_config import SampleConfig
from charlm.text.tokenizer import UNKNOWN_ID


class Hypothesis(NamedTuple):
    """Text that a beam search has found.

    Attributes:
        generation: Its number of tokens, its negative log-likelihood, and what has ended it.
        text: The text after the prompt.
    """

    generation: Generation
    text: str


class _Extension(NamedTuple):
    """Hypothesis that is one token longer than its parent.

    Attributes:
        parent: Row of the parent.
        token_id: Id of the new token.
        hypothesis: The longer text.
    """

    parent: int
    token_id: int
    hypothesis: Hypothesis


def beam_search(
    predictor: Predictor, config: SampleConfig, prompt: str, novelty_filter: NoveltyFilter | None = None
) -> list[Hypothesis]:
    """Find the most probable texts after a prompt.

    In each step, every hypothesis is extended by every token, and the `beam` most probable extensions are kept. An
    extension that has reached its end, by a stop string, its number of lines or the maximum length, is set aside. The
    search ends when no unfinished text is more probable than the `beam` most probable ones that have reached their end.
    A longer text is never more probable than its beginning, so that the search would find no better ones.

    The probability of a text is the product of the probabilities of its tokens, including those that end it: the
    probability that sampling with temperature 1 generates exactly this text.

    Args:
        predictor: The model.
        config: `beam`, `length`, `lines`, `stop`, `ban` and `allow_unknown`.
        prompt: The prompt.
        novelty_filter: Filter that excludes repetitions of the training text.

    Returns:
        Up to `beam` hypotheses that have reached their end, the most probable first.

    Raises:
        NoveltyError: If every extension would repeat the training text.
        SamplingError: If every extension would write a banned text.
    """
    width, exclusions = config.beam or 1, Exclusions(novelty_filter=novelty_filter, ban=config.ban)
    reader = read_prompts(predictor, [prompt])
    growing = [Hypothesis(Generation(predictor.tokenizer, config, prompt, seed=0), "")]
    ended: list[Hypothesis] = []
    for _ in range(config.limit):
        nlls = -log_softmax(reader.logits())
        if not config.allow_unknown:
            nlls[:, UNKNOWN_ID] = np.inf
        unfinished, newly_ended = _separate_ended(_extend(growing, nlls, width, exclusions))
        ended += newly_ended
        ended = sorted(ended, key=_nll)[:width]
        if not unfinished or (
            len(ended) == width and _nll(ended[-1]) <= min(_nll(one.hypothesis) for one in unfinished)
        ):
            break
        growing = [extension.hypothesis for extension in unfinished]
        reader.select(np.array([extension.parent for extension in unfinished]))
        reader.advance(np.array([extension.token_id for extension in unfinished]))
    if config.limit and not ended:
        if novelty_filter is None:
            raise exclusions.error(growing[0].generation.tail)
        raise NoveltyError(
            f"novel: each of the {width} hypotheses can only continue by repeating the training text; use a larger "
            "value, or a larger beam",
            fields=["novel", "beam"],
        )
    return ended or growing


def _nll(hypothesis: Hypothesis) -> float:
    return hypothesis.generation.nll_nats


def _extend(
    growing: list[Hypothesis], nlls: npt.NDArray[np.float64], width: int, exclusions: Exclusions
) -> list[_Extension]:
    """Return the most probable extensions of hypotheses by one token.

    Args:
        growing: B hypotheses.
        nlls: Negative log-likelihoods of their next tokens, (B, V), in nats.
        width: Maximum number of extensions.
        exclusions: Texts that must not be written.
    """
    totals = nlls + np.array([[parent.generation.nll_nats] for parent in growing])
    extensions: list[_Extension] = []
    for index in np.argsort(totals, axis=None, kind="stable"):
        row, token_id = divmod(int(index), totals.shape[1])
        if len(extensions) == width or not np.isfinite(totals[row, token_id]):
            break
        generation = growing[row].generation
        if not exclusions or not exclusions.excludes(generation.tail, generation.decode_next(token_id)):
            longer = generation.fork()
            text = growing[row].text + longer.append(token_id, float(nlls[row, token_id]))
            extensions.append(_Extension(row, token_id, Hypothesis(longer, text)))
    return extensions


def _separate_ended(extensions: list[_Extension]) -> tuple[list[_Extension], list[Hypothesis]]:
    """Return the extensions that can be extended further, and the hypotheses that have reached their end."""
    unfinished: list[_Extension] = []
    ended: list[Hypothesis] = []
    for extension in extensions:
        if extension.hypothesis.generation.ended_by:
            ended.append(extension.hypothesis)
        else:
            unfinished.append(extension)
    return unfinished, ended
