"""Lists of items: corpora whose items do not depend on their order, such as names, recipes or JSON lines.

An item is the text between two separators, without newlines at its ends. Empty items are dropped. A model reads and
writes each item with one separator after it.
"""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from charlm.errors import CorpusError
from charlm.text.corpus import MAX_PIECE_CHARS, CorpusReader
from charlm.text.ids import Ids

LINE, BLANK, NO_ITEMS = "line", "blank", "none"
"""Values of the setting `items` that have a meaning of their own. Any other value is the separator."""

NEWLINE = "\n"

MAX_ITEM_CHARS = 2**24
"""Maximum length of an item in characters. A longer one means that the separator is wrong."""

PIECE_CHARS = 2**20
"""Approximate length of the pieces in which items are encoded."""

BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
LEADING_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)+")


@dataclass(frozen=True, kw_only=True)
class ItemFormat:
    r"""Division of a text into items.

    Attributes:
        kind: `line`, `blank` for items between blank lines, or the text that separates two items.
        separator: Text after each item that a model reads or writes. It includes the newlines around `kind`.

    Example:
        >>> form = ItemFormat.of("<|endoftext|>", ["one\n<|endoftext|>\ntwo\n<|endoftext|>\n"])
        >>> form.separator, list(form.split(["one\n<|endoftext|>\ntwo\n"]))
        ('\n<|endoftext|>\n', ['one', 'two'])
    """

    kind: str
    separator: str

    @classmethod
    def of(cls, kind: str, pieces: Iterable[str], name: str = "text") -> "ItemFormat":
        """Return the format of a text.

        Args:
            kind: As the attribute. One newline means `line`, several mean `blank`.
            pieces: The text.
            name: Name of the text, for the message.

        Raises:
            CorpusError: If the separator is not in the text.
        """
        if kind.strip(NEWLINE) == "":
            kind = LINE if kind == NEWLINE else BLANK
        if kind == LINE:
            return cls(kind=LINE, separator=NEWLINE)
        pattern = BLANK_LINES if kind == BLANK else re.compile(f"\n*{re.escape(kind)}\n*")
        for piece in pieces:
            inside = [found[0] for found in pattern.finditer(piece) if found.start() > 0 and found.end() < len(piece)]
            if inside or pattern.search(piece):
                most_frequent = Counter(inside or [kind]).most_common(1)[0][0]
                return cls(kind=kind, separator=NEWLINE * 2 if kind == BLANK else most_frequent)
        wanted = "blank line" if kind == BLANK else f"separator {kind!r}"
        raise CorpusError(
            f"{name}: no {wanted} found: set items to line, to another separator, or to none", fields=["items"]
        )

    def with_own_line(self) -> "ItemFormat":
        """Return this format with a separator that begins and ends with a newline, unless it is a newline."""
        if self.separator.endswith(NEWLINE) and (self.kind in (LINE, BLANK) or self.separator.startswith(NEWLINE)):
            return self
        return replace(self, separator=f"{NEWLINE}{self.separator.strip(NEWLINE)}{NEWLINE}")

    @property
    def description(self) -> str:
        """Words that say where the items are."""
        return {LINE: "one per line", BLANK: "separated by blank lines"}.get(self.kind, f"separated by {self.kind!r}")

    def split(self, pieces: Iterable[str]) -> Iterator[str]:
        """Split a text that arrives in pieces into its items.

        Raises:
            CorpusError: If an item is longer than `MAX_ITEM_CHARS`.
        """
        rest = ""
        for piece in pieces:
            text = rest + piece
            *parts, rest = BLANK_LINES.split(text) if self.kind == BLANK else text.split(self._delimiter)
            if len(rest) > MAX_ITEM_CHARS:
                raise CorpusError(
                    f"an item is longer than {MAX_ITEM_CHARS:,} characters: set items to another separator, or to none",
                    fields=["items"],
                )
            yield from filter(None, map(self._stripped, parts))
        if last := self._stripped(rest):
            yield last

    @property
    def _delimiter(self) -> str:
        return NEWLINE if self.kind == LINE else self.kind

    def _stripped(self, item: str) -> str:
        if self.kind == LINE:
            return item if not item.isspace() else ""
        item = LEADING_BLANK_LINES.sub("", item, count=1) if item[:1].isspace() else item
        return "" if item.isspace() else item.strip(NEWLINE)


class ItemText:
    """Text of the items of a corpus, each followed by one separator. `encode_texts` reads it like a corpus.

    Args:
        corpus: The corpus, after its first pass.
        form: Its format.

    Attributes:
        form: As given.
        lengths: Number of characters of each item, (number of items,), the separator included.
        returns_per_item: Mean number of carriage returns that belong to line ends, which `lengths` does not count.

    Raises:
        CorpusError: If there are no items.
    """

    def __init__(self, corpus: CorpusReader, form: ItemFormat) -> None:
        self._corpus = corpus
        self.form = form
        lengths = array("q", (len(item) + len(form.separator) for item in self.items()))
        self.lengths = np.array(lengths, dtype=np.int64)
        if not lengths:
            raise CorpusError(f"{' '.join(corpus.sources)}: no items found; give a text with content")

        self.returns_per_item = corpus.num_returns / len(lengths)

    @property
    def num_items(self) -> int:
        """Number of items."""
        return len(self.lengths)

    @property
    def in_memory(self) -> bool:
        """True if the corpus is short enough to be kept in memory."""
        return self._corpus.in_memory

    @property
    def sha256(self) -> str:
        """String that identifies this text: hash of the corpus, and the format."""
        return f"{self._corpus.sha256}[{self.form.kind!r} {self.form.separator!r}]"

    def items(self) -> Iterator[str]:
        """Read the items in the order of the corpus."""
        return self.form.split(self._corpus.pieces())

    def pieces(self, selected: npt.NDArray[np.bool_] | None = None) -> Iterator[str]:
        """Read the text in pieces that end after a separator.

        Args:
            selected: Whether to read each item, (number of items,); None for all.
        """
        waiting: list[str] = []
        size = 0
        for index, item in enumerate(self.items()):
            if selected is not None and not selected[index]:
                continue
            waiting += [item, self.form.separator]
            size += len(item)
            if size >= PIECE_CHARS:
                yield "".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield "".join(waiting)

    blocks = pieces


def item_ends(ids: Ids, separator: Ids) -> npt.NDArray[np.int64]:
    """Return the position after each separator in token ids.

    Args:
        ids: Ids of a text in which a separator follows each item, (N,).
        separator: Ids of the separator, (S,).

    Returns:
        Positions in ascending order, (number of items,). Occurrences that overlap an earlier one are not counted.
    """
    size, found = len(separator), []
    for begin in range(0, len(ids), MAX_PIECE_CHARS):
        block: npt.NDArray[Any] = np.asarray(ids[begin : begin + MAX_PIECE_CHARS + size - 1])
        count = max(0, len(block) - size + 1)
        matches = np.ones(count, dtype=np.bool_)
        for offset, token_id in enumerate(separator.tolist()):
            matches &= block[offset : offset + count] == token_id
        found.append(np.flatnonzero(matches) + begin + size)
    ends = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    if size > 1 and len(ends) and (np.diff(ends) < size).any():
        ends = np.array(_without_overlaps(ends.tolist(), size), dtype=np.int64)
    return ends.astype(np.int64, copy=False)


def _without_overlaps(ends: list[int], size: int) -> list[int]:
    kept: list[int] = []
    for end in ends:
        if not kept or end - size >= kept[-1]:
            kept.append(end)
    return kept
