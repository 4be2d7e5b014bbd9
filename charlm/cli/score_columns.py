"""Tables of the numbers that `charlm score` prints: the columns of a line, and the figures of a whole text.

This module does not import NumPy: the help text of `charlm score` needs its tables.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from charlm.errors import ConfigError

if TYPE_CHECKING:
    from charlm.engine.scores import Score

Scores = Sequence["Score"]
"""Scores of a text by the first model and, if there is one, by the second model."""


@dataclass(frozen=True)
class Column:
    """A column of `--format`, or a figure of `--total`.

    Attributes:
        name: Name in `--format`, or in the output of `--total`.
        number_format: Format of the number in plain text.
        description: Meaning of the number and its unit.
        value: Function that computes the number, or None for the column of the line itself.
        needs_second_model: Whether the number compares two models.
    """

    name: str
    number_format: str
    description: str
    value: Callable[[Scores], float] | None
    needs_second_model: bool = False

    @property
    def json_key(self) -> str:
        """Name in JSON."""
        return self.name.replace("-", "_")

    def number(self, scores: Scores) -> float:
        """Return the number."""
        assert self.value is not None, "the line itself is not a number"
        return self.value(scores)

    def number_text(self, scores: Scores) -> str:
        """Return the number in plain text."""
        return format(self.number(scores), self.number_format)

    def json_number(self, scores: Scores) -> float | None:
        """Return the number, or None if JSON cannot represent it."""
        number = self.number(scores)
        return number if math.isfinite(number) else None


def _log_ratio(scores: Scores) -> float:
    """Return the logarithm of the ratio of the first model's probability to the second model's, in nats."""
    return scores[1].nll_nats - scores[0].nll_nats


TEXT, BITS_PER_CHAR, LOG_RATIO = "text", "bits-per-char", "log-ratio"
LOG_RATIO_HELP = "Log-likelihood ratio in nats; above 0 if the first model predicts the text better than --vs."

TEXT_RULE = "Before another column, its control characters and backslashes are escaped, such as a tab as \\t."

SPELLING_HELP = "The part of bits_per_char for the spelling of unknown tokens."

_COLUMNS = (
    Column(BITS_PER_CHAR, ".4f", "Bits per character.", lambda scores: scores[0].bits_per_char),
    Column("bits-per-byte", ".4f", "Bits per byte of UTF-8.", lambda scores: scores[0].bits_per_byte),
    Column("nats", ".4f", "Negative log-likelihood of the line in nats.", lambda scores: scores[0].nll_nats),
    Column(
        "spelling",
        ".4f",
        "The part of nats for the spelling of unknown tokens.",
        lambda scores: scores[0].spelling_nats,
    ),
    Column("tokens", "d", "Number of tokens.", lambda scores: scores[0].num_tokens),
    Column("unknowns", "d", "Number of tokens not in the vocabulary.", lambda scores: scores[0].num_unknown),
    Column("perplexity", ".4f", "Perplexity per token, without spelling.", lambda scores: scores[0].perplexity),
    Column("chars", "d", "Number of characters, including the newline.", lambda scores: scores[0].num_chars),
    Column(LOG_RATIO, ".4f", LOG_RATIO_HELP, _log_ratio, needs_second_model=True),
    Column(TEXT, "", "The line without its newline. " + TEXT_RULE, None),
)

COLUMNS = {column.name: column for column in _COLUMNS}
"""Columns of a line by name, in the order of the help text and of JSON."""

TOTAL_FIGURES = (
    Column("tokens", "d", "Number of tokens.", lambda scores: scores[0].num_tokens),
    Column("characters", "d", "Number of characters.", lambda scores: scores[0].num_chars),
    Column("bytes", "d", "Number of bytes in UTF-8.", lambda scores: scores[0].num_bytes),
    Column("unknown_tokens", "d", "Number of tokens not in the vocabulary.", lambda scores: scores[0].num_unknown),
    Column("nats_per_token", ".6f", "Nats per token.", lambda scores: scores[0].nats_per_token),
    Column("bits_per_token", ".6f", "Bits per token.", lambda scores: scores[0].bits_per_token),
    Column("nats_per_char", ".6f", "Nats per character.", lambda scores: scores[0].nats_per_char),
    Column("bits_per_char", ".6f", "Bits per character.", lambda scores: scores[0].bits_per_char),
    Column("spelling_bits_per_char", ".6f", SPELLING_HELP, lambda scores: scores[0].spelling_bits_per_char),
    Column("bits_per_byte", ".6f", "Bits per byte of UTF-8.", lambda scores: scores[0].bits_per_byte),
    Column("perplexity", ".6f", "Perplexity per token, without spelling.", lambda scores: scores[0].perplexity),
    Column("perplexity_of_known", ".6f", "Perplexity per known token.", lambda scores: scores[0].perplexity_of_known),
    Column("log_ratio", ".6f", LOG_RATIO_HELP, _log_ratio, needs_second_model=True),
)
"""Figures of a whole text, in the order of the output."""


def describe(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Return the names and the descriptions of columns, for help texts and documentation."""
    return [(column.name, column.description) for column in columns]


def total_figures(num_models: int) -> list[Column]:
    """Return the figures of a whole text for one model or two models."""
    return [column for column in TOTAL_FIGURES if num_models > 1 or not column.needs_second_model]


def parse_columns(names: str | None, *, num_models: int, all_by_default: bool = False) -> list[Column]:
    """Return the columns that `--format` names.

    Args:
        names: Names separated by commas, or None for the default: the main number and the line.
        num_models: Number of models.
        all_by_default: Whether the default has the columns of all numbers.

    Raises:
        ConfigError: If a column does not exist, or needs a second model and there is none.
    """
    if names is None:
        return _default_columns(num_models, with_all=all_by_default)
    columns = []
    for name in map(str.strip, names.split(",")):
        if name not in COLUMNS:
            raise ConfigError(
                f"columns {names}: no column {name!r}; choose from {', '.join(COLUMNS)}", fields=["columns"]
            )
        if COLUMNS[name].needs_second_model and num_models < 2:
            raise ConfigError(f"columns {names}: {name} compares two models; set vs", fields=["columns", "vs"])
        columns.append(COLUMNS[name])
    return columns


def _default_columns(num_models: int, *, with_all: bool) -> list[Column]:
    main = COLUMNS[LOG_RATIO if num_models > 1 else BITS_PER_CHAR]
    numbers = [column for column in COLUMNS.values() if column.value is not None and not column.needs_second_model]
    return [main, *(column for column in numbers if with_all and column is not main), COLUMNS[TEXT]]
