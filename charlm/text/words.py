"""Splitting of text into words, and the spaces that are implied between them.

Text is first split at spaces and newlines into chunks. A chunk is split into words, numbers and punctuation by a rule
of `charlm.text.word_rules` when it occurs for the first time, and looked up after that. This is fast because most
chunks of a text are repetitions.

A space is implied between two tokens if the left one takes a space after it and the right one takes a space before it.
Words and numbers take a space on both sides. For other tokens, such as commas and brackets, the text decides: they take
a space on a side if most of their occurrences have one there. Explicit tokens mark the exceptions: `JOIN` where an
implied space is missing, and runs of spaces where there are other spaces than the implied ones.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from charlm.text.word_rules import WordRule

UNKNOWN_WORD = "<unk>"
"""Unknown token of word vocabularies. It decodes to itself."""

LINE_END_WORD = "<eos>"
"""Token for a newline in a vocabulary that is split at whitespace."""

JOIN = "<join>"
"""Token that cancels an implied space. It decodes to nothing. No text contains it, because brackets are split off."""

NEWLINE, SPACE = "\n", " "

BLOCK_CHARS = 1 << 22
"""Approximate length in characters of the blocks in which long texts are processed. It bounds the memory."""

MAX_CHUNKS = 1_000_000
"""Maximum number of distinct chunks whose ids are remembered."""

Numbers = npt.NDArray[np.int32]

SPACE_RUN = re.compile(" {2,}")


def blocks(text: str) -> Iterator[str]:
    """Split a long text into blocks that end after a newline. A line is never split."""
    begin = 0
    while len(text) - begin > BLOCK_CHARS:
        end = text.rfind(NEWLINE, begin, begin + BLOCK_CHARS) + 1 or text.find(NEWLINE, begin + BLOCK_CHARS) + 1
        if not end:
            break
        yield text[begin:end]
        begin = end
    yield text[begin:] if begin else text


def cut_at_spaces(text: str) -> list[str]:
    """Split a text at spaces. Each newline is a chunk, and an empty chunk stands between two neighbouring spaces."""
    return text.replace(NEWLINE, f"{SPACE}{NEWLINE}{SPACE}").split(SPACE)


def spaces_between(
    empty: npt.NDArray[np.bool_], newline: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Count the spaces between the chunks of a text.

    Args:
        empty: Whether each chunk of `cut_at_spaces` is empty, (number of chunks,), bool.
        newline: Whether each chunk is a newline, (number of chunks,), bool.

    Returns:
        Indices of the K chunks that are not empty, (K,), and the number of spaces before each of them and after the
        last, (K + 1,), both int64.
    """
    indices = np.flatnonzero(~empty)
    spaces = np.empty(len(indices) + 1, dtype=np.intp)
    if not len(indices):
        spaces[0] = len(empty) - 1
        return indices, spaces
    spaces[0] = indices[0]
    np.subtract(indices[1:], indices[:-1], out=spaces[1:-1])
    spaces[-1] = len(empty) - 1 - indices[-1]
    # cut_at_spaces has added a space on each side of a newline, which the text does not contain.
    newlines = newline[indices]
    spaces[:-1] -= newlines
    spaces[1:] -= newlines
    return indices, spaces


class ChunkCache(dict[str, int]):
    """Cache of the token ids of chunks.

    As a dictionary, it maps a chunk to its number. Chunks that are missing are added. Its methods map arrays of numbers
    to ids.

    Args:
        ids_of: Returns the ids of a new chunk.
    """

    def __init__(self, ids_of: Callable[[str], list[int]]) -> None:
        super().__init__()
        self._ids_of = ids_of
        self._ids, self._bounds = array("i"), array("i", [0])

    def __missing__(self, chunk: str) -> int:
        self._ids.extend(self._ids_of(chunk))
        self._bounds.append(len(self._ids))
        self[chunk] = len(self._bounds) - 2
        return len(self._bounds) - 2

    def clear_if_full(self) -> None:
        """Remove all chunks if there are more than `MAX_CHUNKS`."""
        if len(self) > MAX_CHUNKS:
            self.clear()
            self._ids, self._bounds = array("i"), array("i", [0])

    def first_and_last_ids(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Return the first and the last id of each chunk, (K,) each, for the numbers of K chunks that are not empty."""
        ids, bounds = np.asarray(self._ids), np.asarray(self._bounds)
        return ids[bounds[numbers]], ids[bounds[numbers + 1] - 1]

    def all_ids(self, numbers: Numbers) -> Numbers:
        """Return the ids of all chunks, one chunk after the other, for the numbers of the chunks, (K,)."""
        ids, bounds = np.asarray(self._ids), np.asarray(self._bounds)
        begins = bounds[numbers]
        lengths = bounds[numbers + 1] - begins
        begins -= np.cumsum(lengths, dtype=np.int32)
        begins += lengths
        # The index of each id counts up within a chunk: it is a running index plus an offset per chunk.
        indices = np.repeat(begins, lengths)
        indices += np.arange(len(indices), dtype=np.int32)
        gathered: Numbers = ids[indices]
        return gathered


@dataclass(frozen=True, kw_only=True)
class WordCounts:
    """Statistics of the tokens of a text.

    Attributes:
        tokens: Number of occurrences of each token, in the order in which the tokens first occur.
        no_space_before: Tokens before which no space is implied.
        no_space_after: Tokens after which no space is implied.
    """

    tokens: Counter[str]
    no_space_before: frozenset[str]
    no_space_after: frozenset[str]


def count_words(texts: Iterable[str], rule: WordRule) -> WordCounts:
    """Count the tokens of a text.

    The counts of `JOIN` and of the single space are estimates. Exact counts would depend on all pairs of neighbours.

    Args:
        texts: The text in pieces, preferably cut after newlines.
        rule: Rule for splitting chunks.
    """
    chunks, space_runs = _count_chunks(texts)
    tokens, first, last = _count_tokens(chunks, rule)
    marks = {token for token in tokens if not rule.is_word(token)}
    whitespace = {token for token in marks if token.isspace()}
    # No space is implied on a side of a mark if at least half of its occurrences have none there.
    marks_before = {token for token in marks - whitespace if 2 * first[token] <= tokens[token]}
    marks_after = {token for token in marks - whitespace if 2 * last[token] <= tokens[token]}
    no_space_before, no_space_after = whitespace | marks_before, whitespace | marks_after
    spaces = sum(first[token] for token in marks_before) + sum(last[token] for token in marks_after)
    tokens.update({JOIN: _count_joins(chunks, rule, no_space_before, no_space_after), SPACE: spaces})
    tokens.update(space_runs)
    separators = {JOIN, SPACE, NEWLINE, *space_runs}
    return WordCounts(
        tokens=tokens,
        no_space_before=frozenset(separators | no_space_before),
        no_space_after=frozenset(separators | no_space_after),
    )


def _count_chunks(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Count the chunks between spaces and newlines, the newlines, and the runs of two or more spaces."""
    chunks: Counter[str] = Counter({NEWLINE: 0})  # first, so that its rank does not depend on how the text is cut
    space_runs: Counter[str] = Counter()
    for text in texts:
        for block in blocks(text):
            # Counting the result of one split is by far the fastest way. Newlines are counted separately.
            chunks.update(block.replace(NEWLINE, SPACE).split(SPACE))
            chunks[NEWLINE] += block.count(NEWLINE)
            space_runs.update(SPACE_RUN.findall(block))
    del chunks[""]
    return chunks, space_runs


def _count_tokens(chunks: Counter[str], rule: WordRule) -> tuple[Counter[str], Counter[str], Counter[str]]:
    """Count all tokens of chunks, the tokens at the beginning of a chunk, and those at the end of a chunk."""
    tokens: Counter[str] = Counter()
    first: Counter[str] = Counter()
    last: Counter[str] = Counter()
    for chunk, count in chunks.items():
        pieces = rule.cut(chunk)
        first[pieces[0]] += count
        last[pieces[-1]] += count
        for piece in pieces:
            tokens[piece] += count
    return tokens, first, last


def _count_joins(
    chunks: Counter[str], rule: WordRule, no_space_before: Container[str], no_space_after: Container[str]
) -> int:
    """Count the neighbours within chunks between which a space would be implied."""
    return sum(
        count * sum(a not in no_space_after and b not in no_space_before for a, b in pairwise(rule.cut(chunk)))
        for chunk, count in chunks.items()
    )


def count_split_words(texts: Iterable[str]) -> Counter[str]:
    """Count the words that whitespace separates, and newlines as `LINE_END_WORD`."""
    tokens: Counter[str] = Counter({LINE_END_WORD: 0})
    for text in texts:
        for block in blocks(text):
            tokens.update(block.split())
            tokens[LINE_END_WORD] += block.count(NEWLINE)
    return tokens


def most_frequent(counts: Counter[str], *, kept: Sequence[str], max_size: int | None, min_count: int) -> list[str]:
    """Return a vocabulary: the unknown token, then the other tokens by falling frequency.

    Tokens of equal frequency keep the order of `counts`.

    Args:
        counts: Number of occurrences of each token.
        kept: Tokens that are included even if they are rare.
        max_size: Maximum vocabulary size, including the unknown token and `kept`; None for no limit.
        min_count: Minimum number of occurrences of a token.
    """
    always = set(kept)
    ranked = [token for token, _ in counts.most_common() if token != UNKNOWN_WORD]
    room = len(ranked) if max_size is None else max_size - 1 - len(always)
    chosen = []
    for token in ranked:
        if token in always:
            chosen.append(token)
        elif room > 0 and counts[token] >= min_count:
            chosen.append(token)
            room -= 1
    return [UNKNOWN_WORD, *chosen]
