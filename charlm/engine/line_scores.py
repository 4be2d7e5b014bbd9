"""Scoring of text that arrives in blocks of lines, with one or several models.

Memory use does not depend on the length of the text or of a line: a long line is scored in parts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from charlm.engine.adaptive_predictor import AdaptiveScorer
from charlm.engine.scorer import Scorer, StreamScorer
from charlm.engine.scores import Score, TokenScores
from charlm.errors import CorpusError
from charlm.text.lines import LONG_LINE, Lines

EMPTY = "the text is empty; there is nothing to score"


class ScoredPart(NamedTuple):
    """A scored line, or a scored part of a long line.

    Attributes:
        scores: The scores by each model, in the order of the models.
        ends_line: Whether the line ends here.
        starts_line: Whether the line starts here.
    """

    scores: Sequence[TokenScores]
    ends_line: bool = True
    starts_line: bool = True


class LineScorer:
    """Scorer of lines that arrive in blocks. Each line starts from the zero state.

    A line that continues in the next block is scored as a stream, so that its state is carried from part to part.

    Args:
        scorers: The models.

    Attributes:
        num_tokens: Number of tokens scored so far.
        num_unknown: Number of tokens scored so far that are unknown to the first model.
    """

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self._scorers = scorers
        self._source: str | None = None
        self._streams: list[StreamScorer] = []  # scorers of the line that continues, if there is one
        self.num_tokens = 0
        self.num_unknown = 0

    def score_block(self, block: Lines) -> Iterator[ScoredPart]:
        """Score a block of lines.

        Args:
            block: The lines, with their newlines. The last line may continue in the next block.

        Yields:
            The scored lines, in the order of the lines. Read all of them before the next block is scored.
        """
        if block.source != self._source:
            self._start_document(block.source)
        lines, num_parts = list(block), 0
        if self._streams:
            first, num_parts = lines.pop(0), 1
            part = self._score_part(first, ends_line=bool(lines) or not block.ends_mid_line)
            yield _with_returns(part._replace(starts_line=False), 0 in block.with_return)
        continued = lines.pop() if block.ends_mid_line and lines else None
        for index, scores in enumerate(self._score_lines(lines), start=num_parts):
            yield _with_returns(self._count(scores, ends_line=True), index in block.with_return)
        if continued is not None:
            self._streams = [scorer.start_stream() for scorer in self._scorers]
            yield self._score_part(continued, ends_line=False)

    def _start_document(self, source: str) -> None:
        """Let adaptive scorers forget the lines of other texts."""
        self._source = source
        for scorer in self._scorers:
            if isinstance(scorer, AdaptiveScorer):
                scorer.start_document()

    def _score_lines(self, lines: Sequence[str]) -> Iterator[Sequence[TokenScores]]:
        """Score whole lines. A batch with a long line would need much memory for padding."""
        if max(map(len, lines), default=0) < 2 * LONG_LINE:
            yield from zip(*(scorer.score_lines(lines) for scorer in self._scorers), strict=True)
            return
        for line in lines:
            yield [scorer.start_stream().feed(line) for scorer in self._scorers]

    def _score_part(self, text: str, *, ends_line: bool) -> ScoredPart:
        """Score a part of the line that continues."""
        part = self._count([stream.feed(text) for stream in self._streams], ends_line=ends_line)
        if ends_line:
            self._streams = []
        return part

    def _count(self, scores: Sequence[TokenScores], *, ends_line: bool) -> ScoredPart:
        score = scores[0].score
        self.num_tokens += score.num_tokens
        self.num_unknown += score.num_unknown
        return ScoredPart(scores, ends_line)


def _with_returns(part: ScoredPart, num_returns: int) -> ScoredPart:
    """Return a scored part with the number of carriage returns in its line end."""
    if not num_returns:
        return part
    return part._replace(scores=[replace(scores, num_returns=num_returns) for scores in part.scores])


def score_stream(scorers: Sequence[Scorer], blocks: Iterable[Lines]) -> list[Score]:
    """Score all text as one stream.

    Args:
        scorers: The models.
        blocks: The text.

    Returns:
        The score of the text by each model.

    Raises:
        CorpusError: If the text is empty.
    """
    streams = [scorer.start_stream() for scorer in scorers]
    scores = [Score() for _ in scorers]
    for block in blocks:
        text, num_returns = "".join(block), len(block.with_return)
        fed = [replace(stream.feed(text), num_returns=num_returns) for stream in streams]
        scores = [score + part.score for score, part in zip(scores, fed, strict=True)]
    if not scores[0].num_chars:
        raise CorpusError(EMPTY)
    return scores
