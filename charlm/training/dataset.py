"""Reads the text to learn and the one to validate on, and cuts both into tokens."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.config import TokenizerConfig
from charlm.errors import CorpusError
from charlm.text.corpus import CorpusReader, check_split, split_ids
from charlm.text.id_cache import encode_texts, prune
from charlm.text.ids import UNKNOWN_ID, Ids, count_ids, in_blocks
from charlm.text.tokenizer import Tokenizer, make_tokenizer
from charlm.text.words import JOIN, LINE_END_WORD, UNKNOWN_WORD
from charlm.training.finetune import extended
from charlm.training.recipe import default_val_fraction, with_default_min_count


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a training learns from.

    Attributes:
        tokenizer: The vocabulary.
        tokenizer_config: How the vocabulary was made.
        train_ids: The text to learn, (N,).
        val_ids: The text to validate on; may be empty.
        val_fraction: Its share of the whole; 0 if it is a text of its own, or there is none.
        chars_per_token: Of the text to validate on, or if there is none, of the one to learn.
        cached: The files that ids lie in.
        removed: What the cache has let go of, as lines for its user.
    """

    tokenizer: Tokenizer
    tokenizer_config: TokenizerConfig = TokenizerConfig()  # noqa: RUF009 - frozen
    train_ids: Ids
    val_ids: Ids
    val_fraction: float = 0.0
    chars_per_token: float = 1.0
    cached: tuple[Path, ...] = ()
    removed: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        texts: CorpusReader,
        held_out: CorpusReader | None,
        tokenizer_config: TokenizerConfig,
        val_fraction: float | None,
        folder: Path,
        tokenizer: Tokenizer | None = None,
        *,
        known: Tokenizer | None = None,
    ) -> "Dataset":
        """Read texts and cut them, with a vocabulary of their own if none is given.

        A vocabulary of words is that of the text to learn alone, so that what it lacks of the other is known.

        Args:
            texts: The text to learn, and its end the one to validate on, if there is no other.
            held_out: The other.
            tokenizer_config: How to make a vocabulary.
            val_fraction: The share to validate on; None for what suits the text.
            folder: Where the ids of a long text may lie.
            tokenizer: The vocabulary.
            known: A vocabulary that the texts' own shall extend.

        Raises:
            CorpusError: If there is nothing to learn.
            ConfigError: If the share leaves one side with nothing.
        """
        if tokenizer_config.tokenizer == "char" and tokenizer is None:
            tokenizer = _vocabulary(tokenizer_config, texts.blocks(), known)
        else:
            texts.read_through()
        tokenizer_config = with_default_min_count(texts.chars, tokenizer_config)
        fraction = 0.0 if held_out else default_val_fraction(texts.chars, val_fraction)
        if tokenizer_config.tokenizer == "char" and held_out is None:
            assert tokenizer is not None, "made above"
            ids, path = encode_texts(texts, tokenizer, folder)
            train_ids, val_ids = split_ids(ids, fraction)
            chars_per_token, paths = 1.0, [path]
        else:
            to_learn, to_validate = texts.split(fraction)
            if held_out is not None:
                held_out.read_through()
                _, to_validate = held_out.split(1.0)
            tokenizer = tokenizer or _vocabulary(tokenizer_config, to_learn.pieces(), known)
            (train_ids, train_path), (val_ids, val_path) = (
                encode_texts(part, tokenizer, folder) for part in (to_learn, to_validate)
            )
            check_split(len(train_ids), len(val_ids), fraction)
            measured, tokens = (to_validate, val_ids) if len(val_ids) else (to_learn, train_ids)
            chars_per_token, paths = measured.chars / len(tokens), [train_path, val_path]
        cached = tuple(path for path in paths if path is not None)
        dataset = cls(
            tokenizer=tokenizer,
            tokenizer_config=tokenizer_config,
            train_ids=train_ids,
            val_ids=val_ids,
            val_fraction=fraction,
            chars_per_token=chars_per_token,
            cached=cached,
            removed=tuple(prune(folder, cached)) if cached else (),
        )
        dataset.check_worth(texts)
        return dataset

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each token comes in the text to learn, (V,); of a long text, in a sample from all over it."""
        return count_ids(self.train_ids, self.tokenizer.vocab_size)

    def check_worth(self, texts: CorpusReader) -> None:
        """Refuse a text without two distinct tokens that say something.

        Raises:
            CorpusError: If it is one.
        """
        words = self.tokenizer_config.tokenizer == "word"
        seen = [self.tokenizer.tokens[index] for index in np.flatnonzero(self.counts()).tolist()]
        if words:
            nothing = {UNKNOWN_WORD, LINE_END_WORD, JOIN}
            seen = [token for token in seen if token not in nothing and not token.isspace()]
        if len(seen) < 2 and (words or self.tokenizer.vocab_size < 3):
            only = f", {seen[0]!r}" if seen else ""
            what = "word" if words else "character"
            raise CorpusError(f"{' '.join(texts.sources)}: only one distinct {what}{only}: nothing to learn")

    def notes(self) -> list[str]:
        """What of it is unknown, and where its ids lie."""
        notes = []
        for name, ids in (("text to learn", self.train_ids), ("validation text", self.val_ids)):
            if unknown := sum(int(np.count_nonzero(block == UNKNOWN_ID)) for block in in_blocks(ids)):
                notes.append(f"{unknown:,} of {len(ids):,} tokens of the {name} are unknown ({unknown / len(ids):.2%})")
        return [*notes, *(f"the text's ids are kept in {path}" for path in self.cached), *self.removed]


def _vocabulary(tokenizer_config: TokenizerConfig, pieces: Iterable[str], known: Tokenizer | None) -> Tokenizer:
    """The vocabulary of a text, or one that is known, extended by it."""
    if known is None:
        return make_tokenizer(tokenizer_config, pieces)
    return extended(
        known, make_tokenizer(replace(tokenizer_config, max_vocab=None), pieces), tokenizer_config.max_vocab
    )
