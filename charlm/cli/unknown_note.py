"""Note of `charlm score` about the tokens that the model does not know."""

from typing import TYPE_CHECKING

from charlm.cli.options import note

if TYPE_CHECKING:
    from charlm.engine.scorer import Scorer

MAX_NAMED_WORDS = 5
"""Number of unknown words that the note names."""

MAX_NAMED_CHARS = 30
"""Number of characters of an unknown word that the note shows."""


def note_unknown_tokens(scorer: "Scorer", num_unknown: int, num_tokens: int, *, quiet: bool) -> None:
    """Print the number of unknown tokens and the most frequent ones, if there are any.

    Args:
        scorer: The scorer of the text.
        num_unknown: Number of unknown tokens.
        num_tokens: Number of tokens.
        quiet: Whether to print nothing.
    """
    if not num_unknown:
        return
    ranked = scorer.unknown_words.most_common(MAX_NAMED_WORDS)
    named = ", ".join(f"'{_shortened(word)}' ({count:,})" for word, count in ranked)
    most = f"; the most frequent: {named}" if ranked else ""
    note(f"{num_unknown:,} of {num_tokens:,} tokens were unknown to the model{most}", quiet=quiet)
    if not scorer.spells_unknown_tokens:
        note(
            "the model file has no spelling model, because an earlier version wrote it: unknown words seem too "
            "probable, and bits per character cannot be compared with those of other models",
            quiet=quiet,
        )


def _shortened(word: str) -> str:
    return word if len(word) <= MAX_NAMED_CHARS else word[:MAX_NAMED_CHARS] + "..."
