"""State of a text that is being generated: its last tokens, its number of tokens, and the rules that end it."""

from collections import deque
from copy import copy
from typing import Literal

from charlm.engine.decoding import random_numbers
from charlm.engine.prompts import encode_prompt
from charlm.sample_config import MAX_NOVELTY_CHARS, SampleConfig
from charlm.text.line_ends import fold_line_ends
from charlm.text.tokenizer import Tokenizer

DECODING_WINDOW = 16
"""Number of previous tokens that are decoded together with a new one, because the space before a word depends on the
token before it."""

EndReason = Literal["", "length", "lines", "stop"]


class Generation:
    """One text that is being generated after a prompt.

    Args:
        tokenizer: Tokenizer of the model.
        config: Rules that end the text: `length`, `lines` and `stop`.
        prompt: The prompt.
        seed: Seed of the random numbers.

    Attributes:
        prompt: The prompt.
        seed: Seed of the random numbers.
        random_numbers: Random numbers from [0, 1), without end.
        recent_ids: Ids of the latest `repeat_last` tokens, including the prompt's.
        tail: End of the text, including the prompt. It has at least `MAX_NOVELTY_CHARS` characters if the text has.
        num_tokens: Number of generated tokens.
        nll_nats: Negative log-likelihood of the generated tokens, in nats.
        ended_by: Setting that has ended the text; empty before the end.
        stop_text: Stop string that has ended the text; empty if there is none.
    """

    def __init__(self, tokenizer: Tokenizer, config: SampleConfig, prompt: str, seed: int) -> None:
        self.prompt = prompt
        self.seed = seed
        self.random_numbers = random_numbers(seed)
        ids, self._drops_space = encode_prompt(tokenizer, prompt)
        self.recent_ids: deque[int] = deque(ids[-config.repeat_last :].tolist(), maxlen=config.repeat_last)
        self.tail = fold_line_ends(prompt)
        self.num_tokens = 0
        self.nll_nats = 0.0
        self.ended_by: EndReason = ""
        self.stop_text = ""
        self._tokenizer = tokenizer
        self._limit = config.limit
        self._window: deque[int] = deque(ids[-DECODING_WINDOW:].tolist(), maxlen=DECODING_WINDOW)
        self._stop = config.stop
        self._keeps_stop = config.keep_stop
        self._held_back = ""
        self._lines_left = config.lines

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood of the generated tokens, in nats per token."""
        return self.nll_nats / max(1, self.num_tokens)

    @property
    def cut_before_newline(self) -> bool:
        """True if the maximum length has ended the text before its last newline."""
        return self.ended_by == "length" and self._lines_left is not None

    def fork(self) -> "Generation":
        """Return a copy that can be continued with other tokens. Both share one source of random numbers."""
        other = copy(self)
        other.recent_ids, other._window = self.recent_ids.copy(), self._window.copy()
        return other

    def decode_next(self, token_id: int) -> str:
        """Return the text that a token would append.

        If the prompt ends with the space that the next word implies, the first text does not begin with that space.
        """
        if self._tokenizer.kind == "char":  # the text of a character does not depend on its neighbours
            return self._tokenizer.tokens[token_id]
        length = len(self._tokenizer.decode([*self._window]))
        text = self._tokenizer.decode([*self._window, token_id])[length:]
        return text.removeprefix(" ") if self._drops_space and not self.num_tokens else text

    def append(self, token_id: int, nll_nats: float = 0.0) -> str:
        """Append a token.

        Args:
            token_id: Id of the token.
            nll_nats: Its negative log-likelihood, in nats.

        Returns:
            Text that can be written now. Text that may be the beginning of a stop string is held back until the next
            tokens decide.
        """
        text = self.decode_next(token_id)
        self.recent_ids.append(token_id)
        self._window.append(token_id)
        if len(self.tail) > 3 * MAX_NOVELTY_CHARS:  # not at every token: each cut copies the text
            self.tail = self.tail[-MAX_NOVELTY_CHARS:]
        self.tail += text
        self.num_tokens += 1
        self.nll_nats += nll_nats
        if self._lines_left is not None:
            text = self._count_lines(text, self._lines_left)
        if self.num_tokens == self._limit and not self.ended_by:
            self.ended_by = "length"
        return self._until_stop(text) if self._stop else text

    def _count_lines(self, text: str, lines_left: int) -> str:
        """Count the newlines of a text. End at the last newline allowed, and return the text up to it."""
        newlines = text.count("\n")
        self._lines_left = lines_left - newlines
        if newlines < lines_left:
            return text
        self.ended_by = "lines"
        return "\n".join(text.split("\n")[:lines_left]) + "\n"

    def _until_stop(self, text: str) -> str:
        """Return the text up to a stop string, and hold back an end that may be the beginning of one."""
        text = self._held_back + text
        found = [(start, stop) for stop in self._stop if (start := text.find(stop)) >= 0]
        if found:
            start, self.stop_text = min(found)
            self.ended_by = "stop"
            return text[:start] + self.stop_text * self._keeps_stop
        num_held = 0 if self.ended_by else max(_overlap(text, stop) for stop in self._stop)
        self._held_back = text[len(text) - num_held :]
        return text[: len(text) - num_held]


def _overlap(text: str, stop: str) -> int:
    """Return the number of characters at the end of a text that are the beginning of a stop string."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
