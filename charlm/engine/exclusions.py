"""Texts that a generated text must not contain: runs of the training text, and banned texts."""

from dataclasses import dataclass

from charlm.engine.novelty import NoveltyFilter
from charlm.errors import CharlmError, NoveltyError, SamplingError

SHOWN_CHARS = 40
"""Number of characters that an error message shows of a text."""


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """Rules that exclude tokens because of the text that they would complete.

    Attributes:
        novelty_filter: Filter that recognises repetitions of the training text.
        ban: Texts that are never written.

    Example:
        >>> Exclusions(ban=("cat",)).excludes("a ca", "ts"), Exclusions(ban=("cat",)).excludes("cat", "s")
        (True, False)
    """

    novelty_filter: NoveltyFilter | None = None
    ban: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.novelty_filter or self.ban)

    def excludes(self, preceding: str, piece: str) -> bool:
        """Return True if a text that must not be written would end within a piece.

        Args:
            preceding: The text before the piece.
            piece: Text that would be appended.
        """
        if any(text in preceding[max(0, len(preceding) - len(text) + 1) :] + piece for text in self.ban):
            return True
        return self.novelty_filter is not None and self.novelty_filter.repeats(preceding, piece)

    def error(self, preceding: str) -> CharlmError:
        """Return the error for a text after which every token is excluded."""
        if self.novelty_filter is None:
            return SamplingError(
                f"ban: every token after {preceding[-SHOWN_CHARS:]!r} would write a banned text; omit one of them",
                fields=["ban"],
            )
        length = self.novelty_filter.length
        return NoveltyError(
            f"novel {length}: every token after {preceding[-length:]!r} would repeat {length} characters of the "
            "training text; use a larger value",
            fields=["novel"],
        )
