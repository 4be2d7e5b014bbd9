"""Tables of the numbers that `charlm score` prints: the columns of a line, and the figures of a whole text.

This module does not import NumPy: the help text of `charlm score` needs its tables.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from charlm.errors import ConfigError
from charlm.text.printable import escape_controls

if TYPE_CHECKING:
    from charlm.engine.scores import Score

Scores = Sequence["Score"]
"""Scores of a text by each model. `LineScores` if the text is a line."""


class LineScores(list["Score"]):
    """Scores of a line by each model, or scores of a pair of texts by one model.

    Args:
        scores: The scores.
        source: Name of the text that contains the line.
        number: Number of the line in that text, from 1.
        line_end_nats: Negative log-likelihood of the newline by the first model, in nats.
        models: Names of the models.
    """

    def __init__(
        self, scores: Sequence["Score"], source: str, number: int, line_end_nats: float, models: Sequence[str] = ()
    ) -> None:
        super().__init__(scores)
        self.source = source
        self.number = number
        self.line_end_nats = line_end_nats
        self.models = models

    @property
    def ranking(self) -> list[int]:
        """Indices of the models, beginning with the model that gives the line the highest probability."""
        return sorted(range(len(self)), key=lambda index: self[index].nll_nats)


class Mode(Enum):
    """Kind of comparison that a row of the output shows."""

    ONE = "one model"
    VS = "vs"
    MODELS = "several models"
    PAIRS = "pairs"


REQUIREMENTS = {
    Mode.VS: ("vs", "compares two models; set vs"),
    Mode.MODELS: ("models", "compares several models; set `models` more than once"),
    Mode.PAIRS: ("pairs", "compares two texts; set pairs"),
}
"""Setting that a column needs, and the message if it is missing, by the mode of the column."""


@dataclass(frozen=True)
class Column:
    """A column of `--format`, or a figure of `--total`.

    Attributes:
        name: Name in `--format`, or in the output of `--total`.
        number_format: Format of the number in plain text; empty for a name.
        description: Meaning of the number and its unit.
        value: Function that computes the number, or None for the column of the line itself.
        mode: Mode to which the column is restricted, or None.
        best_is_high: Whether the best lines have the highest numbers.
    """

    name: str
    number_format: str
    description: str
    value: Callable[[Any], float | str] | None
    mode: Mode | None = None
    best_is_high: bool = False

    @property
    def json_key(self) -> str:
        """Name in JSON and in the headers of tables."""
        return self.name.replace("-", "_")

    @property
    def is_number(self) -> bool:
        """True for a column of numbers, not of names and not of the line itself."""
        return bool(self.number_format)

    def number(self, scores: Scores) -> float:
        """Return the number."""
        assert self.value is not None, "the line itself is not a number"
        number = self.value(scores)
        assert not isinstance(number, str), "a name is not a number"
        return number

    def plain_value(self, scores: Scores) -> str:
        """Return the value for a column of plain text."""
        assert self.value is not None, "the line itself has no value"
        value = self.value(scores)
        return escape_controls(value) if isinstance(value, str) else format(value, self.number_format)

    def json_value(self, scores: Scores) -> float | str | None:
        """Return the value, or None if JSON cannot represent it."""
        assert self.value is not None, "the line itself has no value"
        value = self.value(scores)
        return value if isinstance(value, str) or math.isfinite(value) else None


def _log_ratio(scores: Scores) -> float:
    """Return the logarithm of the ratio of the first score's probability to the second one's, in nats."""
    return scores[1].nll_nats - scores[0].nll_nats


def _margin(scores: LineScores) -> float:
    """Return the logarithm of the ratio of the best model's probability to that of the second best, in nats."""
    best, second, *_ = scores.ranking
    return scores[second].nll_nats - scores[best].nll_nats


def _posterior(scores: LineScores) -> float:
    """Return the probability of the best model if all models are equally probable before the line is read."""
    lowest = min(score.nll_nats for score in scores)
    return 1 / math.fsum(math.exp(lowest - score.nll_nats) for score in scores)


TEXT, BITS_PER_CHAR = "text", "bits-per-char"
LOG_RATIO_HELP = "Log-likelihood ratio in nats; above 0 if the first model predicts the text better than --vs."

TEXT_RULE = "Before another column, its control characters and backslashes are escaped, such as a tab as \\t."

SPELLING_HELP = "The part of bits_per_char for the spelling of unknown tokens."

_COLUMNS = (
    Column(BITS_PER_CHAR, ".4f", "Bits per character.", lambda scores: scores[0].bits_per_char),
    Column("bits-per-byte", ".4f", "Bits per byte of UTF-8.", lambda scores: scores[0].bits_per_byte),
    Column("nats", ".4f", "Negative log-likelihood of the line in nats.", lambda scores: scores[0].nll_nats),
    Column(
        "nats-no-newline",
        ".4f",
        "Negative log-likelihood of the line without its newline, in nats.",
        lambda scores: scores[0].nll_nats - scores.line_end_nats,
    ),
    Column(
        "spelling",
        ".4f",
        "The part of nats for the spelling of unknown tokens.",
        lambda scores: scores[0].spelling_nats,
    ),
    Column("tokens", "d", "Number of tokens.", lambda scores: scores[0].num_tokens),
    Column("unknowns", "d", "Number of tokens not in the vocabulary.", lambda scores: scores[0].num_unknown),
    Column("perplexity", ".4f", "Perplexity per token, without spelling.", lambda scores: scores[0].perplexity),
    Column("perplexity-of-known", ".4f", "Perplexity per known token.", lambda scores: scores[0].perplexity_of_known),
    Column("chars", "d", "Number of characters, including the newline.", lambda scores: scores[0].num_chars),
    Column("line", "d", "Number of the line in its file, from 1.", lambda scores: scores.number),
    Column("file", "", "Name of the file; - for stdin.", lambda scores: scores.source),
    Column("log-ratio", ".4f", LOG_RATIO_HELP, _log_ratio, Mode.VS, best_is_high=True),
    Column(
        "best",
        "",
        "With several -m: the model that gives the line the highest probability.",
        lambda scores: scores.models[scores.ranking[0]],
        Mode.MODELS,
    ),
    Column(
        "margin",
        ".4f",
        "With several -m: log-likelihood ratio of the best model to the second best, in nats.",
        _margin,
        Mode.MODELS,
        best_is_high=True,
    ),
    Column(
        "posterior",
        ".4f",
        "With several -m: probability of the best model, from 0 to 1, if all are equally probable a priori.",
        _posterior,
        Mode.MODELS,
        best_is_high=True,
    ),
    Column(
        "difference",
        ".4f",
        "With --pairs: nats of the second text minus nats of the first; above 0 if the first is more probable.",
        _log_ratio,
        Mode.PAIRS,
        best_is_high=True,
    ),
    Column("first-nats", ".4f", "With --pairs: nats of the first text.", lambda scores: scores[0].nll_nats, Mode.PAIRS),
    Column(
        "second-nats", ".4f", "With --pairs: nats of the second text.", lambda scores: scores[1].nll_nats, Mode.PAIRS
    ),
    Column(TEXT, "", "The line without its newline. " + TEXT_RULE, None),
)

COLUMNS = {column.name: column for column in _COLUMNS}
"""Columns of a line by name, in the order of the help text and of JSON."""

DEFAULT_COLUMNS = {
    Mode.ONE: (BITS_PER_CHAR, TEXT),
    Mode.VS: ("log-ratio", TEXT),
    Mode.MODELS: ("best", "margin", "posterior", TEXT),
    Mode.PAIRS: ("difference", "first-nats", "second-nats", TEXT),
}
"""Columns if none are chosen."""

MODE_LABELS = {
    Mode.ONE: "",
    Mode.VS: "with --vs: ",
    Mode.MODELS: "with several -m: ",
    Mode.PAIRS: "with --pairs: ",
}
"""Labels of the default columns in the help text."""

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
    Column("log_ratio", ".6f", LOG_RATIO_HELP, _log_ratio, Mode.VS),
)
"""Figures of a whole text, in the order of the output."""


def describe(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Return the names and the descriptions of columns, for help texts and documentation."""
    return [(column.name, column.description) for column in columns]


def total_figures(num_models: int, *, adaptive: bool = False) -> list[Column]:
    """Return the figures of a whole text for one model or two models, whose scores may be adaptive."""
    figures = [column for column in TOTAL_FIGURES if num_models > 1 or column.mode is None]
    return adaptive_columns(figures) if adaptive else figures


def adaptive_columns(columns: Sequence[Column]) -> list[Column]:
    """Return columns of adaptive scores. Their names say so, so that nobody compares them with others."""
    return [
        replace(column, name=f"adaptive{'-' if '-' in column.name else '_'}{column.name}")
        if column.number_format.endswith("f")
        else column
        for column in columns
    ]


def parse_columns(names: str | None, mode: Mode, *, all_by_default: bool = False) -> list[Column]:
    """Return the columns that `--format` names.

    Args:
        names: Names separated by commas, or None for the default: the main numbers and the line.
        mode: Kind of comparison.
        all_by_default: Whether the default has all columns of the mode.

    Raises:
        ConfigError: If a column does not exist or does not belong to the mode.
    """
    if names is None:
        return _default_columns(mode, with_all=all_by_default)
    columns = []
    for name in map(str.strip, names.split(",")):
        if name not in COLUMNS:
            raise ConfigError(
                f"columns {names}: no column {name!r}; choose from {', '.join(COLUMNS)}", fields=["columns"]
            )
        column = COLUMNS[name]
        if column.mode not in (None, mode):
            assert column.mode is not None, "None is in the list"
            setting, message = REQUIREMENTS[column.mode]
            raise ConfigError(f"columns {names}: {name} {message}", fields=["columns", setting])
        columns.append(column)
    return columns


def _default_columns(mode: Mode, *, with_all: bool) -> list[Column]:
    *main, text = (COLUMNS[name] for name in DEFAULT_COLUMNS[mode])
    others = [
        column
        for column in COLUMNS.values()
        if with_all and column.mode in (None, mode) and column.value is not None and column not in main
    ]
    return [*main, *(others if mode != Mode.PAIRS else []), text]
