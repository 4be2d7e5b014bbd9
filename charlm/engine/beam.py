"""Beam search: the likeliest text, where drawing would give a likely one."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from charlm.config import SampleConfig
from charlm.engine.decoding import log_softmax
from charlm.engine.novelty import Guard
from charlm.engine.rnn import START, RecurrentNetwork, Stepper
from charlm.engine.sampler import Writer
from charlm.errors import NoveltyError
from charlm.text.tokenizer import UNKNOWN_ID


class Beam(NamedTuple):
    """A text that a search holds for likely.

    Attributes:
        writer: Its account: tokens, cost, ending.
        text: What follows the prompt.
    """

    writer: Writer
    text: str


def beam_search(network: RecurrentNetwork, config: SampleConfig, prompt: str, guard: Guard | None = None) -> list[Beam]:
    """Find likely texts after a prompt.

    At each step the `beam` likeliest of all texts that are one token longer are kept. One that comes to its end, by
    a stop string or its lines, is set aside. The search ends when `beam` texts have ended, or at the length asked
    for.

    Args:
        network: The model.
        config: `beam`, `length`, `lines` and `stop`.
        prompt: What the texts follow.
        guard: Keeps them from repeating the training text.

    Returns:
        At most `beam` texts, that of the least cost a token first: of the same length, the likeliest.

    Raises:
        NoveltyError: If the guard leaves no text at all.
    """
    width = config.beam or 1
    state = network.zero_state(1)
    outputs = network.read(network.tokenizer.encode(START + prompt)[None], state)[:, -1]
    stepper = Stepper(network, state)
    growing, ended = [Beam(Writer(network.tokenizer, config, prompt, seed=0), "")], list[Beam]()
    for _ in range(config.limit):
        costs = -log_softmax(network.logits(outputs))
        if not config.allow_unknown:
            costs[:, UNKNOWN_ID] = np.inf
        grown = _longer(growing, costs, width, guard)
        ended += [beam for _, _, beam in grown if beam.writer.ending]
        going = [entry for entry in grown if not entry[2].writer.ending]
        if len(ended) >= width or not going:
            break
        parents, tokens, beams = zip(*going, strict=True)
        growing = list(beams)
        stepper.select(np.array(parents))
        outputs = stepper.step(np.array(tokens))
    if config.limit and not ended:
        raise NoveltyError(f"--novel: none of {width} beams can go on without repeating the training text; try more")
    return sorted(ended or growing, key=lambda beam: beam.writer.nats_per_token)[:width]


def _longer(
    growing: list[Beam], costs: npt.NDArray[np.float64], width: int, guard: Guard | None
) -> list[tuple[int, int, Beam]]:
    """The likeliest texts that are one token longer, `width` of them: row of the parent, token, text."""
    totals = costs + np.array([[beam.writer.nll_nats] for beam in growing])
    grown: list[tuple[int, int, Beam]] = []
    for place in np.argsort(totals, axis=None, kind="stable"):
        row, token = divmod(int(place), totals.shape[1])
        if len(grown) == width or not np.isfinite(totals[row, token]):
            break
        parent = growing[row]
        if guard is None or not guard.repeats(parent.writer.tail, parent.writer.piece(token)):
            writer = parent.writer.fork()
            grown.append((row, token, Beam(writer, parent.text + writer.take(token, float(costs[row, token])))))
    return grown
