"""What `charlm score` prints of a line: a row of columns, or a row a token."""

import json
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from charlm.errors import ConfigError, CorpusError
from charlm.text.lines import Lines

if TYPE_CHECKING:
    from charlm.engine.scorer import Costs, Follower, Score, Scorer
    from charlm.text.tokenizer import Tokenizer

COLUMNS = {
    "bits-per-char": ".4f",
    "bits-per-byte": ".4f",
    "nats": ".4f",
    "tokens": "d",
    "unknowns": "d",
    "perplexity": ".4f",
    "chars": "d",
    "log-ratio": ".4f",
    "text": "",
}
"""The columns that `--format` knows, and how their numbers are written."""

SPOOLED = 2**20
"""Bytes of a line that are kept in memory until its score is known; more go to a temporary file."""


class View(Protocol):
    """Takes in scored lines, of which long ones come in parts, and shows them."""

    def add(self, costs: "Sequence[Costs]") -> None:
        """Take in the next part of a line: its costs by each model."""
        ...

    def end_line(self) -> None:
        """The line is whole."""
        ...

    def end(self) -> None:
        """There are no more lines."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScoreFilter:
    """The numbers that a line must have to be shown.

    Attributes:
        above: It must be greater than this.
        below: It must be less than this.
    """

    above: float | None
    below: float | None

    def holds(self, value: float) -> bool:
        """Whether a number is among them."""
        return (self.above is None or value > self.above) and (self.below is None or value < self.below)


def parse_columns(text: str | None, *, compares: bool, everything: bool = False) -> list[str]:
    """The columns that a `--format` asks for.

    Args:
        text: Its value, or None.
        compares: Whether there are two models.
        everything: Without a value take all columns there are.

    Raises:
        ConfigError: If there is no such column, or it needs a second model.
    """
    if text is None:
        main = "log-ratio" if compares else "bits-per-char"
        others = [name for name in COLUMNS if everything and name not in (main, "log-ratio", "text")]
        return [main, *others, "text"]
    columns = [name.strip() for name in text.split(",")]
    for name in columns:
        if name not in COLUMNS:
            raise ConfigError(f"--format {text}: no column {name!r}; there is {', '.join(COLUMNS)}")
        if name == "log-ratio" and not compares:
            raise ConfigError(f"--format {text}: log-ratio compares two models; give the other with --vs")
    return columns


def figure(name: str, scores: "Sequence[Score]") -> float:
    """The number in a column."""
    first = scores[0]
    match name:
        case "bits-per-char":
            return first.bits_per_char
        case "bits-per-byte":
            return first.bits_per_byte
        case "nats":
            return first.nll_nats
        case "tokens":
            return first.tokens
        case "unknowns":
            return first.unknowns
        case "perplexity":
            return first.perplexity
        case "chars":
            return first.chars
        case "log-ratio":
            return scores[1].nll_nats - first.nll_nats
    raise AssertionError(name)


class RowView:
    """Prints a row for each line: its numbers, and the line.

    Args:
        columns: From `parse_columns`.
        band: Which lines to show, by their first number.
        as_json: Print objects instead.
    """

    def __init__(self, columns: Sequence[str], band: ScoreFilter, *, as_json: bool) -> None:
        self._columns = columns
        self._numbers = [name for name in columns if name != "text"]
        self._measure = self._numbers[0] if self._numbers else "bits-per-char"
        self._band = band
        self._as_json = as_json
        self._scores: list[Score] = []
        self._spool = _Spool()
        self._shown = 0

    @property
    def nothing_passed(self) -> bool:
        """Whether lines were to be left out, and all were."""
        return self._shown == 0 and self._band != ScoreFilter(above=None, below=None)

    def add(self, costs: "Sequence[Costs]") -> None:
        """Take in the next part of a line: its costs by each model."""
        scores = [part.score for part in costs]
        self._scores = [old + new for old, new in zip(self._scores, scores, strict=True)] if self._scores else scores
        self._spool.write(costs[0].text.removesuffix("\n"))

    def end_line(self) -> None:
        """Print the line, if it is to be shown."""
        if self._band.holds(figure(self._measure, self._scores)):
            self._shown += 1
            (self._write_json if self._as_json else self._write_row)()
        self._scores = []
        self._spool.clear()

    def end(self) -> None:
        """There are no more lines."""

    def _write_row(self) -> None:
        out = sys.stdout
        for place, name in enumerate(self._columns):
            if place:
                out.write("\t")
            if name != "text":
                out.write(format(figure(name, self._scores), COLUMNS[name]))
                continue
            for part in self._spool.parts():
                out.write(part)
        out.write("\n")

    def _write_json(self) -> None:
        out = sys.stdout
        numbers = {name: figure(name, self._scores) for name in self._numbers}
        facts = {name.replace("-", "_"): finite(number) for name, number in numbers.items()}
        if "text" not in self._columns:
            out.write(json.dumps(facts) + "\n")
            return
        out.write(json.dumps({**facts, "text": ""})[:-2])
        for part in self._spool.parts():
            out.write(json.dumps(part)[1:-1])
        out.write('"}\n')


class TokenView:
    """Prints a row for each token: the number of its line, its cost in nats, itself.

    Args:
        tokenizer: The model's.
        as_json: Print objects instead.
    """

    def __init__(self, tokenizer: "Tokenizer", *, as_json: bool) -> None:
        self._tokenizer = tokenizer
        self._as_json = as_json
        self._line = 1

    def add(self, costs: "Sequence[Costs]") -> None:
        """Print the tokens of the next part of a line."""
        from charlm.engine.scorer import token_texts
        from charlm.text.printable import escape_unprintable
        from charlm.text.tokenizer import UNKNOWN_ID

        (part,) = costs
        texts = token_texts(self._tokenizer, part)
        for text, index, nats in zip(texts, part.ids.tolist(), part.nats.tolist(), strict=True):
            if self._as_json:
                facts = {"line": self._line, "token": text, "nats": nats, "known": index != UNKNOWN_ID}
                sys.stdout.write(json.dumps(facts) + "\n")
            else:
                sys.stdout.write(f"{self._line}\t{nats:.4f}\t{escape_unprintable(text)}\n")

    def end_line(self) -> None:
        """Go on to the next line."""
        self._line += 1

    def end(self) -> None:
        """There are no more lines."""


@dataclass
class Counts:
    """How many tokens were scored, and how many of them the first model does not know."""

    tokens: int = 0
    unknowns: int = 0


def show_lines(scorers: "Sequence[Scorer]", blocks: Iterable[Lines], view: View) -> Counts:
    """Score lines as they arrive and show them, each block as soon as it is scored.

    Args:
        scorers: The models.
        blocks: The lines; the last of a block may go on in the next.
        view: Shows them.
    """
    counts = Counts()
    followers: list[Follower] = []  # of a line that came in parts so far

    def show(costs: "Sequence[Costs]") -> None:
        score = costs[0].score
        counts.tokens += score.tokens
        counts.unknowns += score.unknowns
        view.add(costs)

    for block in blocks:
        whole = list(block)
        if followers:
            show([follower.feed(whole[0]) for follower in followers])
            del whole[0]
            if whole or not block.ends_mid_line:
                view.end_line()
                followers = []
        begun = whole.pop() if block.ends_mid_line and not followers else None
        for costs in zip(*(scorer.score_lines(whole) for scorer in scorers), strict=True):
            show(costs)
            view.end_line()
        if begun is not None:
            followers = [scorer.follow() for scorer in scorers]
            show([follower.feed(begun) for follower in followers])
        sys.stdout.flush()
    view.end()
    return counts


def print_total(scorers: "Sequence[Scorer]", blocks: Iterable[Lines], *, as_json: bool) -> Counts:
    """Score all text as one stream and print its figures.

    Raises:
        CorpusError: If there is no text.
    """
    from charlm.engine.scorer import Score

    followers = [scorer.follow() for scorer in scorers]
    scores = [Score() for _ in scorers]
    for block in blocks:
        text = "".join(block)
        scores = [score + follower.feed(text).score for score, follower in zip(scores, followers, strict=True)]
    found = scores[0]
    if not found.chars:
        raise CorpusError("empty, there is nothing to score")
    figures = {
        "tokens": found.tokens,
        "characters": found.chars,
        "bytes": found.bytes,
        "unknown_tokens": found.unknowns,
        "nats_per_token": found.nats_per_token,
        "bits_per_token": found.bits_per_token,
        "nats_per_char": found.nats_per_char,
        "bits_per_char": found.bits_per_char,
        "bits_per_byte": found.bits_per_byte,
        "perplexity": found.perplexity,
        "perplexity_of_known": found.perplexity_of_known,
    }
    if len(scores) > 1:
        figures["log_ratio"] = scores[1].nll_nats - found.nll_nats
    if as_json:
        sys.stdout.write(json.dumps({name: finite(value) for name, value in figures.items()}) + "\n")
    else:
        rows = (
            f"{name}\t{value}" if isinstance(value, int) else f"{name}\t{value:.6f}" for name, value in figures.items()
        )
        sys.stdout.write("\n".join(rows) + "\n")
    return Counts(found.tokens, 0 if as_json else found.unknowns)


def finite(number: float) -> float | None:
    """A number that JSON has, or None."""
    return number if math.isfinite(number) else None


class _Spool:
    """The text of a line, on disk if it is long."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._file: IO[str] | None = None

    def write(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > SPOOLED:
            if self._file is None:
                self._file = tempfile.TemporaryFile(  # noqa: SIM115 - `clear` closes it
                    "w+", encoding="utf-8", errors="surrogatepass", newline=""
                )
            self._file.write("".join(self._parts))
            self._parts, self._size = [], 0

    def parts(self) -> Iterator[str]:
        if self._file is not None:
            self._file.seek(0)
            while part := self._file.read(SPOOLED):
                yield part
        yield "".join(self._parts)

    def clear(self) -> None:
        if self._file is not None:
            self._file.close()
        self._parts, self._size, self._file = [], 0, None
