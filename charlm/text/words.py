"""How text is cut into words, and where spaces are implied.

Text is first cut at spaces and line ends into chunks, and each distinct chunk is cut into words, numbers and
punctuation once: the many others are looked up. A space between two tokens is implied if the left one takes a space
after it and the right one takes one before it. Words do; for the rest, such as commas and brackets, the text
itself says which is more common. Where a text departs from this, an explicit token says so: `JOIN` that there is
nothing where a space would be, a run of spaces what else there is.
"""

import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

UNKNOWN_WORD = "<unk>"
"""The unknown token of word vocabularies, and what it decodes to."""

LINE_END_WORD = "<eos>"
"""A line's end in a vocabulary that is split at white space."""

JOIN = "<join>"
"""No space here, although one is implied. It decodes to nothing; no text holds it, its brackets are cut off."""

NEWLINE, SPACE = "\n", " "

BLOCK_CHARS = 1 << 22
"""Long texts are cut in blocks of about so many characters, at line ends: this bounds the memory."""

MOST_CHUNKS = 1_000_000
"""So many distinct chunks are remembered."""

Numbers = npt.NDArray[np.int32]

# Clitics are cut as GloVe's own tokenizer, Stanford's, cuts them: do n't, he 's, they 'll.
PIECES = re.compile(
    r"\d+(?:[.,]\d+)+(?!\w)|\w+?(?=n['\u2019]t(?!\w))|n['\u2019]t(?!\w)|['\u2019](?:s|t|re|ve|m|ll|d)(?!\w)"
    r"|\w+|([^\w\s])\1*|\s",
    re.IGNORECASE,
)
NOT = re.compile(r"n['\u2019]t", re.IGNORECASE)
RUNS = re.compile(" {2,}")


def cut_chunk(chunk: str) -> list[str]:
    """Cut a text without spaces and newlines into words, numbers, runs of one punctuation mark, blanks."""
    return [match.group() for match in PIECES.finditer(chunk)]


def is_word(token: str) -> bool:
    """Whether a token is a word or a number, which take a space on both sides."""
    return (token[0].isalnum() or token[0] == "_") and not NOT.fullmatch(token)


def blocks(text: str) -> Iterator[str]:
    """Cut a long text at line ends; a line is never cut."""
    begin = 0
    while len(text) - begin > BLOCK_CHARS:
        end = text.rfind(NEWLINE, begin, begin + BLOCK_CHARS) + 1 or text.find(NEWLINE, begin + BLOCK_CHARS) + 1
        if not end:
            break
        yield text[begin:end]
        begin = end
    yield text[begin:] if begin else text


def cut_at_spaces(text: str) -> list[str]:
    """Cut a text at spaces; each line's end is a chunk of its own, and two neighbouring spaces have "" between."""
    return text.replace(NEWLINE, f"{SPACE}{NEWLINE}{SPACE}").split(SPACE)


def spaces_between(
    empty: npt.NDArray[np.bool_], newline: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Count the spaces of a text that `cut_at_spaces` has cut.

    Args:
        empty: Whether a chunk is empty, (number of chunks,).
        newline: Whether a chunk is a line's end, (number of chunks,).

    Returns:
        The places of the chunks that are not empty, (K,), and the spaces before each of them and after the last,
        (K + 1,).
    """
    places = np.flatnonzero(~empty)
    spaces = np.empty(len(places) + 1, dtype=np.intp)
    if not len(places):
        spaces[0] = len(empty) - 1
        return places, spaces
    spaces[0] = places[0]
    np.subtract(places[1:], places[:-1], out=spaces[1:-1])
    spaces[-1] = len(empty) - 1 - places[-1]
    # The two spaces that were put around each newline are none of the text's.
    newlines = newline[places]
    spaces[:-1] -= newlines
    spaces[1:] -= newlines
    return places, spaces


class ChunkMemory(dict[str, int]):
    """Remembers the ids of chunks: a chunk leads to its number, and numbers to ids, many at a time.

    Args:
        ids_of: Gives the ids of a chunk that is new.
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

    def forget_if_full(self) -> None:
        """Forget everything once there are `MOST_CHUNKS`."""
        if len(self) > MOST_CHUNKS:
            self.clear()
            self._ids, self._bounds = array("i"), array("i", [0])

    def ends(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """The first and the last id of each of these chunks, none of them empty."""
        ids, bounds = np.asarray(self._ids), np.asarray(self._bounds)
        return ids[bounds[numbers]], ids[bounds[numbers + 1] - 1]

    def gather(self, numbers: Numbers) -> Numbers:
        """The ids of all these chunks, one after the other."""
        ids, bounds = np.asarray(self._ids), np.asarray(self._bounds)
        begins = bounds[numbers]
        lengths = bounds[numbers + 1] - begins
        begins -= np.cumsum(lengths, dtype=np.int32)
        begins += lengths
        # Where each id comes from: counting up, shifted anew at the beginning of each chunk.
        places = np.repeat(begins, lengths)
        places += np.arange(len(places), dtype=np.int32)
        gathered: Numbers = ids[places]
        return gathered


@dataclass(frozen=True, kw_only=True)
class WordCounts:
    """What there is in a text.

    Attributes:
        tokens: How often each token comes, in the order of their first coming.
        close_before: The tokens that stand close to what comes before.
        close_after: The tokens that stand close to what comes after.
    """

    tokens: Counter[str]
    close_before: frozenset[str]
    close_after: frozenset[str]


def count_words(texts: Iterable[str]) -> WordCounts:
    """Count the tokens of a text that comes in pieces, best cut at line ends.

    How often `JOIN` and the single space are needed is estimated: that depends on what stands side by side.
    """
    chunks: Counter[str] = Counter({NEWLINE: 0})  # it goes before its equals, wherever a piece of the text ends
    runs: Counter[str] = Counter()
    for text in texts:
        for block in blocks(text):
            # Much the fastest way to count; newlines are cut off for it and counted by themselves.
            chunks.update(block.replace(NEWLINE, SPACE).split(SPACE))
            chunks[NEWLINE] += block.count(NEWLINE)
            runs.update(RUNS.findall(block))
    del chunks[""]
    tokens: Counter[str] = Counter()
    first: Counter[str] = Counter()
    last: Counter[str] = Counter()
    for chunk, count in chunks.items():
        pieces = cut_chunk(chunk)
        first[pieces[0]] += count
        last[pieces[-1]] += count
        for piece in pieces:
            tokens[piece] += count
    others = {token for token in tokens if not is_word(token)}
    blanks = {token for token in others if token.isspace()}
    close_before = blanks | {token for token in others if 2 * first[token] <= tokens[token]}
    close_after = blanks | {token for token in others if 2 * last[token] <= tokens[token]}
    spaces = sum(first[token] for token in close_before - blanks) + sum(last[token] for token in close_after - blanks)
    joins = sum(
        count * sum(a not in close_after and b not in close_before for a, b in pairwise(cut_chunk(chunk)))
        for chunk, count in chunks.items()
    )
    tokens.update({JOIN: joins, SPACE: spaces})
    tokens.update(runs)
    silent = frozenset({JOIN, SPACE, NEWLINE, *runs})
    return WordCounts(tokens=tokens, close_before=silent | close_before, close_after=silent | close_after)


def count_split_words(texts: Iterable[str]) -> Counter[str]:
    """Count what white space separates, and line ends as `LINE_END_WORD`."""
    tokens: Counter[str] = Counter({LINE_END_WORD: 0})
    for text in texts:
        for block in blocks(text):
            tokens.update(block.split())
            tokens[LINE_END_WORD] += block.count(NEWLINE)
    return tokens


def most_frequent(counts: Counter[str], *, kept: Sequence[str], max_size: int | None, min_count: int) -> list[str]:
    """The vocabulary of a text: the unknown token, then the most frequent first, equals in the order they came.

    Args:
        counts: How often each token comes.
        kept: Tokens that stay however rare they are.
        max_size: The greatest size, the unknown token and those kept included; None for any.
        min_count: What comes less often is left out.
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
