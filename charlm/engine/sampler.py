"""Writing texts with a model: prompts, seeds, ends, and a stream of pieces."""

import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from charlm.config import SampleConfig
from charlm.engine.decoding import draw, log_softmax, penalise_repeats, token_probabilities, token_weights, uniforms
from charlm.engine.novelty import LONGEST_GUARDED, Guard
from charlm.engine.rnn import START, Array, RecurrentNetwork, Stepper
from charlm.errors import NoveltyError
from charlm.text.tokenizer import UNKNOWN_ID, Ids, Tokenizer

WINDOW = 16
"""Tokens that a new one is decoded with: how it is set off may depend on its neighbours."""

Ending = Literal["", "length", "lines", "stop"]


def next_tokens(network: RecurrentNetwork, prompt: str) -> list[tuple[str, float]]:
    """All tokens with their probability of coming after a prompt, the likeliest first, as the model has them."""
    ids = network.tokenizer.encode(START + prompt)[None, :]
    logits = network.logits(network.read(ids, network.zero_state(1))[:, -1])
    probs = token_probabilities(logits, SampleConfig(temperature=1.0))[0]
    return [(network.tokenizer.tokens[index], float(probs[index])) for index in np.argsort(-probs, kind="stable")]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Writes texts with a model, all as one batch.

    Attributes:
        network: The model.
        config: How tokens are drawn.
        guard: Keeps it from repeating the training text.
        with_costs: Keep account of the texts' log-probabilities.
    """

    network: RecurrentNetwork
    config: SampleConfig
    guard: Guard | None = None
    with_costs: bool = False

    def writers(self, prompts: Sequence[str]) -> list["Writer"]:
        """One for each sample: `count` of them for each prompt; without a seed, one is drawn."""
        seed = secrets.randbelow(2**31) if self.config.seed is None else self.config.seed
        tokenizer, count = self.network.tokenizer, self.config.count
        return [
            Writer(tokenizer, self.config, prompt, seed + place * count + copy)
            for place, prompt in enumerate(prompts)
            for copy in range(count)
        ]

    def stream(self, prompt: str = "") -> Iterator[list[str]]:
        """Write on from a prompt, a token at a time: `write` for the samples of one prompt."""
        return self.write(self.writers([prompt]))

    def write(self, writers: Sequence["Writer"]) -> Iterator[list[str]]:
        """Let texts be written, a token of each at a time.

        Yields:
            The next piece of each text; prompts are not repeated. A piece is empty where a text has ended, or where
            it may be the beginning of a stop string.

        Raises:
            NoveltyError: If the guard leaves no token that could follow.
        """
        if self.config.limit == 0:
            return
        stepper, outputs = self._read_prompts(writers)
        active = list(range(len(writers)))
        while True:
            tokens, costs = self._choose(self.network.logits(outputs), [writers[index] for index in active])
            pieces = [""] * len(writers)
            for index, token, cost in zip(active, tokens.tolist(), costs, strict=True):
                pieces[index] = writers[index].take(token, cost)
            yield pieces
            going = [row for row, index in enumerate(active) if not writers[index].ending]
            if not going:
                return
            if len(going) < len(active):
                active = [active[row] for row in going]
                tokens = tokens[going]
                stepper.select(np.array(going))
            outputs = stepper.step(tokens)

    def _read_prompts(self, writers: Sequence["Writer"]) -> tuple[Stepper, Array]:
        """Read each distinct prompt once; returns a stepper with a row for each writer, and the last outputs."""
        network = self.network
        places: dict[str, int] = {}
        for writer in writers:
            places.setdefault(writer.prompt, len(places))
        rows = np.array([places[writer.prompt] for writer in writers])
        encoded = [network.tokenizer.encode(START + prompt) for prompt in places]
        state = network.zero_state(len(encoded))
        if len(encoded) == 1:
            outputs = network.read(encoded[0][None], state)[:, -1]
        else:
            outputs = np.empty((len(encoded), network.config.hidden_size), dtype=np.float32)
            order = sorted(range(len(encoded)), key=lambda place: -len(encoded[place]))
            for time, (stepper, now) in enumerate(network.step_ragged([encoded[place] for place in order])):
                ends = [row for row in range(len(now)) if len(encoded[order[row]]) == time + 1]
                if ends:
                    targets = [order[row] for row in ends]
                    outputs[targets] = now[ends]
                    for part, there in zip(state, stepper.state(), strict=True):
                        part[:, targets] = there[:, ends]
        stepper = Stepper(network, state)
        stepper.select(rows)
        return stepper, outputs[rows]

    def _choose(self, logits: Array, writers: Sequence["Writer"]) -> tuple[npt.NDArray[np.intp], Sequence[float]]:
        """Draw a token for each writer, (B,), from logits, (B, V); returns them and what they cost, in nats."""
        config = self.config
        believed = log_softmax(logits) if self.with_costs else None
        if not config.allow_unknown:
            logits[:, UNKNOWN_ID] = -np.inf
        if config.repeat_penalty != 1:
            for row, writer in zip(logits, writers, strict=True):
                penalise_repeats(row, writer.recent, config.repeat_penalty)
        tokens = draw(token_weights(logits, config), [next(writer.draws) for writer in writers])
        if self.guard is not None:
            for row, writer in enumerate(writers):
                tokens[row] = self._new_token(self.guard, logits[row : row + 1], int(tokens[row]), writer)
        if believed is None:
            return tokens, [0.0] * len(writers)
        return tokens, (-believed[np.arange(len(writers)), tokens]).tolist()

    def _new_token(self, guard: Guard, logits: Array, token: int, writer: "Writer") -> int:
        """Strike out tokens that would repeat the training text, and draw again, until one would not."""
        while guard.repeats(writer.tail, writer.piece(token)):
            logits[0, token] = -np.inf
            if not np.isfinite(logits).any():
                raise NoveltyError(
                    f"--novel {guard.length}: whatever follows {writer.tail[-guard.length :]!r} repeats "
                    f"{guard.length} characters of the training text; give a greater number"
                )
            token = int(draw(token_weights(logits, self.config), [next(writer.draws)])[0])
        return token


class Writer:
    """One text in the making.

    Args:
        tokenizer: Turns tokens into text.
        config: When to end.
        prompt: What it begins with.
        seed: Of its random numbers.

    Attributes:
        prompt: What it begins with.
        seed: Of its random numbers.
        draws: Those numbers.
        recent: Its latest tokens, the prompt's among them.
        tail: The end of its text so far, the prompt included: `LONGEST_GUARDED` characters at least, if there are.
        tokens: How many it has written.
        nll_nats: What they cost.
        ending: Why it has ended; empty while it goes on.
    """

    def __init__(self, tokenizer: Tokenizer, config: SampleConfig, prompt: str, seed: int) -> None:
        self.prompt = prompt
        self.seed = seed
        self.draws = uniforms(seed)
        ids: Ids = tokenizer.encode(START + prompt)
        self.recent: deque[int] = deque(ids[-config.repeat_last :].tolist(), maxlen=config.repeat_last)
        self.tail = prompt
        self.tokens = 0
        self.nll_nats = 0.0
        self.ending: Ending = ""
        self._tokenizer = tokenizer
        self._config = config
        self._limit = config.limit
        self._window: list[int] = ids[-WINDOW:].tolist()
        self._held = ""
        self._lines_left = config.lines

    @property
    def nats_per_token(self) -> float:
        """Mean cost of a token, in nats."""
        return self.nll_nats / max(1, self.tokens)

    def fork(self) -> "Writer":
        """A copy that goes its own way."""
        other = copy(self)
        other.recent = self.recent.copy()
        return other

    def piece(self, token: int) -> str:
        """The text that a token would add."""
        if self._tokenizer.kind == "char":  # stands for itself, whatever is beside it
            return self._tokenizer.tokens[token]
        before = len(self._tokenizer.decode(self._window))
        return self._tokenizer.decode([*self._window, token])[before:]

    def take(self, token: int, cost: float = 0.0) -> str:
        """Write a token; returns the text that can be shown now."""
        piece = self.piece(token)
        self.recent.append(token)
        self._window = [*self._window[1 - WINDOW :], token]
        if len(self.tail) > 3 * LONGEST_GUARDED:
            self.tail = self.tail[-LONGEST_GUARDED:]
        self.tail += piece
        self.tokens += 1
        self.nll_nats += cost
        if self._lines_left is not None:
            piece = self._count_lines(piece, self._lines_left)
        if self.tokens == self._limit and not self.ending:
            self.ending = "length"
        return self._hold_back(piece) if self._config.stop else piece

    def _count_lines(self, piece: str, left: int) -> str:
        ends = piece.count("\n")
        self._lines_left = left - ends
        if ends < left:
            return piece
        self.ending = "lines"
        return "\n".join(piece.split("\n")[:left]) + "\n"

    def _hold_back(self, piece: str) -> str:
        """Text up to a stop string, and short of what may become one."""
        text = self._held + piece
        places = [place for place in map(text.find, self._config.stop) if place >= 0]
        if places:
            self.ending = "stop"
            return text[: min(places)]
        held = 0 if self.ending else max(_overlap(text, stop) for stop in self._config.stop)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    sizes = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((size for size in sizes if text.endswith(stop[:size])), 0)
