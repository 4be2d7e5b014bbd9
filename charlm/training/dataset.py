"""Training and validation data: open texts become a vocabulary and two arrays of token ids."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.config import MAX_VOCAB, TokenizerConfig
from charlm.engine.spelling import SpellingModel
from charlm.errors import ConfigError, CorpusError
from charlm.text.corpus import CorpusReader, check_split, split_ids
from charlm.text.id_cache import encode_texts, prune
from charlm.text.ids import UNKNOWN_ID, Ids, count_ids, in_blocks
from charlm.text.item_detection import looks_like_list
from charlm.text.items import LINE, NO_ITEMS, ItemFormat, ItemText, item_ends
from charlm.text.tokenizer import Tokenizer, make_tokenizer
from charlm.text.words import JOIN, LINE_END_WORD, UNKNOWN_WORD
from charlm.training.finetune import extend_vocabulary
from charlm.training.items import Items, ItemSplit
from charlm.training.progress import LossUnits
from charlm.training.recipe import default_val_fraction, with_default_min_count
from charlm.training.spelling import learn_spelling, spelling_nats_per_token

Vocabulary = tuple[Tokenizer, SpellingModel | None]
"""A tokenizer, and its model of the spelling of unknown words, if it has one."""


@dataclass(frozen=True, kw_only=True)
class TextSources:
    """Open texts to train and validate on.

    Attributes:
        corpus: Text to train on.
        validation: Text to validate on; None to use the end of the corpus.
        val_fraction: Share of the corpus to validate on; None for the default.
        items: Kind of list, as the setting `items`; None to find out whether the corpus has one item per line.
        seed: Seed of the order of the items before they are divided into training and validation.
        cache: Folder for the ids of texts too long for memory.
    """

    corpus: CorpusReader
    validation: CorpusReader | None = None
    val_fraction: float | None = None
    items: str | None = NO_ITEMS
    seed: int = 1
    cache: Path

    def notes(self) -> list[str]:
        """Return sentences about files of a folder that are skipped."""
        return [note for text in (self.corpus, self.validation) if text is not None for note in text.notes]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Token ids to train and validate on, with their vocabulary.

    Attributes:
        tokenizer: Tokenizer of both texts.
        tokenizer_config: Settings with which the vocabulary was built.
        train_ids: Training text, (number of tokens,). For a list of items too long for memory, all of the list.
        val_ids: Validation text, (number of tokens,); may be empty.
        items: The items of these texts, if the corpus is a list.
        val_fraction: Share of the corpus that is validated on; 0 if the validation text is separate or missing.
        chars_per_token: Mean number of characters per token of the validation text, or of the training text if there is
            no validation text.
        spelling: Model of the spelling of unknown words; None for characters.
        spelling_nats: Mean cost of the spelling of unknown tokens in nats per token, in the same text.
        cache_files: Files in the cache that hold the ids; empty if they are in memory.
        cache_notes: Sentences about files that were removed from the cache.
    """

    tokenizer: Tokenizer
    tokenizer_config: TokenizerConfig = field(default_factory=TokenizerConfig)
    train_ids: Ids
    val_ids: Ids
    items: ItemSplit | None = None
    val_fraction: float = 0.0
    chars_per_token: float = 1.0
    spelling: SpellingModel | None = None
    spelling_nats: float = 0.0
    cache_files: tuple[Path, ...] = ()
    cache_notes: tuple[str, ...] = ()

    @property
    def num_train_tokens(self) -> int:
        """Number of tokens of the training text."""
        return len(self.train_ids) if self.items is None else self.items.train.num_tokens

    @property
    def loss_units(self) -> LossUnits:
        """Conversion of a loss to bits per character."""
        return LossUnits(chars_per_token=self.chars_per_token, spelling_nats=self.spelling_nats)

    def counts(self) -> npt.NDArray[np.int64]:
        """Return the number of occurrences of each token in the training text, (V,); a sample if the text is long."""
        return count_ids(self.train_ids, self.tokenizer.vocab_size)

    def check_learnable(self, sources: Iterable[str]) -> None:
        """Refuse a training text with fewer than two distinct tokens.

        For words, whitespace and special tokens are not counted.

        Args:
            sources: Names of the texts, for the message.

        Raises:
            CorpusError: If the training text has fewer.
        """
        words = self.tokenizer_config.tokenizer == "word"
        names = " ".join(sources)
        seen = [self.tokenizer.tokens[index] for index in np.flatnonzero(self.counts()).tolist()]
        if words:
            special = {UNKNOWN_WORD, LINE_END_WORD, JOIN}
            seen = [token for token in seen if token not in special and not token.isspace()]
        if words and not seen:
            raise CorpusError(
                f"{names}: no word is frequent enough for the vocabulary; set a lower min_count, or give a longer text",
                fields=["min_count"],
            )
        if len(seen) < 2 and (words or self.tokenizer.vocab_size < 3):
            only = f", {seen[0]!r}" if seen else ""
            kind = "word" if words else "character"
            raise CorpusError(f"{names}: only one distinct {kind}{only}: nothing to learn; give a longer text")

    def notes(self) -> list[str]:
        """Return sentences about items, unknown tokens and the cache."""
        notes: list[str] = [] if self.items is None else [self.items.note]
        if self.tokenizer_config.split == "whitespace":
            notes.append(
                "the text is split at whitespace, which is not kept: bits per character are exact only if single "
                "spaces separate the words"
            )
        for name, ids in (("training text", self.train_ids), ("validation text", self.val_ids)):
            if unknown := sum(int(np.count_nonzero(block == UNKNOWN_ID)) for block in in_blocks(ids)):
                notes.append(f"{unknown:,} of {len(ids):,} tokens of the {name} are unknown ({unknown / len(ids):.2%})")
        return [*notes, *(f"token ids are kept in {path}" for path in self.cache_files), *self.cache_notes]


def read_dataset(
    sources: TextSources,
    config: TokenizerConfig,
    *,
    tokenizer: Tokenizer | None = None,
    spelling: SpellingModel | None = None,
    base: Tokenizer | None = None,
) -> Dataset:
    """Read texts, build a vocabulary unless one is given, and encode the texts.

    The vocabulary of words is built from the training text alone, so that the number of unknown words in the validation
    text is measured.

    Args:
        sources: The texts.
        config: Kind of tokenizer, and limits of its vocabulary.
        tokenizer: Tokenizer to use instead of building one.
        spelling: Spelling model of this tokenizer, if it has one.
        base: Tokenizer whose vocabulary is extended by that of the texts.

    Raises:
        CorpusError: If a text cannot be read or has nothing to learn.
        ConfigError: If the validation share leaves one side empty.
    """
    corpus = sources.corpus
    if config.tokenizer == "char" and tokenizer is None:
        folds = config.lowercase or config.normalize != "none"
        texts = corpus.pieces() if folds else corpus.blocks()
        tokenizer = build_vocabulary(config, texts, base)  # this is also the first pass over the text
    else:
        corpus.read_through()
    config = with_default_min_count(corpus.num_chars, config)
    fraction = 0.0 if sources.validation else default_val_fraction(corpus.num_chars, sources.val_fraction)
    form = _find_items(sources, config)

    def vocabulary(pieces: Iterable[str]) -> Vocabulary:
        """Return the given vocabulary, or else that of the training text, in pieces."""
        if tokenizer is not None:
            return tokenizer, spelling
        built = build_vocabulary(config, pieces, base)
        return built, learn_spelling(built)

    if form is not None:
        split = _encode_items(sources, form, fraction, vocabulary)
    elif tokenizer is not None and _has_token_per_char(tokenizer, corpus) and sources.validation is None:
        split = _encode_whole(sources, tokenizer, fraction)
    else:
        split = _encode_parts(sources, fraction, vocabulary)
    dataset = replace(
        split,
        tokenizer_config=config,
        val_fraction=fraction,
        cache_notes=tuple(prune(sources.cache, split.cache_files)) if split.cache_files else (),
    )
    dataset.check_learnable(corpus.sources)
    return dataset


def _has_token_per_char(tokenizer: Tokenizer, corpus: CorpusReader) -> bool:
    """Return True if each character of the original text is a token, so that positions of both are the same."""
    return tokenizer.kind == "char" and not tokenizer.folding.is_active and not corpus.num_returns


def build_vocabulary(config: TokenizerConfig, pieces: Iterable[str], base: Tokenizer | None = None) -> Tokenizer:
    """Return a tokenizer with the vocabulary of a text.

    Args:
        config: Kind of tokenizer, and limits of its vocabulary.
        pieces: The text, in pieces.
        base: Tokenizer to extend by this vocabulary; None to build a new one.
    """
    if base is None:
        return make_tokenizer(config, pieces)
    # The limit applies to both vocabularies together. A large one has no effect, but orders the tokens by frequency.
    ranked = config if config.max_vocab is None else replace(config, max_vocab=MAX_VOCAB)
    return extend_vocabulary(base, make_tokenizer(ranked, pieces, base), config.max_vocab)


def _encode_whole(sources: TextSources, tokenizer: Tokenizer, fraction: float) -> Dataset:
    """Encode a text of characters as a whole and split its ids, so that one cache file serves every split."""
    ids, path = encode_texts(sources.corpus, tokenizer, sources.cache)
    train_ids, val_ids = split_ids(ids, fraction)
    return Dataset(
        tokenizer=tokenizer,
        train_ids=train_ids,
        val_ids=val_ids,
        spelling_nats=spelling_nats_per_token(tokenizer, None, val_ids if len(val_ids) else train_ids),
        cache_files=() if path is None else (path,),
    )


def _encode_parts(sources: TextSources, fraction: float, vocabulary: Callable[[Iterable[str]], Vocabulary]) -> Dataset:
    """Split the text, or take the separate validation text, and encode both parts."""
    train_part, val_part = sources.corpus.split(fraction)
    if sources.validation is not None:
        sources.validation.read_through()
        _, val_part = sources.validation.split(1.0)
    tokenizer, spelling = vocabulary(train_part.pieces())
    encoded = [encode_texts(part, tokenizer, sources.cache) for part in (train_part, val_part)]
    (train_ids, _), (val_ids, _) = encoded
    check_split(len(train_ids), len(val_ids), fraction)
    measured_part, measured_ids = (val_part, val_ids) if len(val_ids) else (train_part, train_ids)
    return Dataset(
        tokenizer=tokenizer,
        train_ids=train_ids,
        val_ids=val_ids,
        chars_per_token=measured_part.num_chars / len(measured_ids),
        spelling=spelling,
        spelling_nats=spelling_nats_per_token(tokenizer, spelling, measured_ids, measured_part.pieces()),
        cache_files=tuple(path for _, path in encoded if path is not None),
    )


def _find_items(sources: TextSources, config: TokenizerConfig) -> ItemFormat | None:
    """Return the format of the corpus if it is a list of items."""
    corpus, kind = sources.corpus, sources.items
    if kind is None:
        kind = LINE if looks_like_list(corpus.pieces()) else NO_ITEMS
    if kind == NO_ITEMS:
        return None
    form = ItemFormat.of(kind, corpus.pieces(), " ".join(corpus.sources))
    return form if config.tokenizer == "char" else form.with_own_line()


def _encode_items(
    sources: TextSources, form: ItemFormat, fraction: float, vocabulary: Callable[[Iterable[str]], Vocabulary]
) -> Dataset:
    """Shuffle the items, divide them into training and validation, or take the separate validation text, and encode.

    The order of the shuffled items is in memory, also if their ids are not.
    """
    text = ItemText(sources.corpus, form)
    order = np.random.default_rng((sources.seed, text.num_items)).permutation(text.num_items)
    num_validation = max(1, round(text.num_items * fraction)) if fraction else 0
    train_order, val_order = order[num_validation:], order[:num_validation]
    if not len(train_order):
        raise ConfigError(
            f"val_fraction {fraction:g} of {text.num_items:,} items leaves none to train on: set another fraction, or "
            "give a longer list",
            fields=["val_fraction"],
        )
    selected = np.ones(text.num_items, dtype=np.bool_)
    selected[val_order] = False
    tokenizer, spelling = vocabulary(text.pieces(selected))
    items, path = _locate_items(text, tokenizer, sources.cache)
    train, validation, val_path = items.select(train_order), items.select(val_order), None
    measured, lengths = (validation, text.lengths[val_order]) if num_validation else (items, text.lengths)
    num_chars = lengths.sum() + text.returns_per_item * len(lengths)
    measured_pieces = text.pieces(~selected if num_validation else None)
    if sources.validation is not None:
        sources.validation.read_through()
        val_text = ItemText(sources.validation, form)
        validation, val_path = _locate_items(val_text, tokenizer, sources.cache)
        measured, num_chars = validation, val_text.lengths.sum() + sources.validation.num_returns
        measured_pieces = val_text.pieces()
        validation = validation.select(np.random.default_rng(sources.seed).permutation(len(validation)))
    if path is None:
        train = train.gathered()
    validation = validation.gathered()
    return Dataset(
        tokenizer=tokenizer,
        train_ids=train.ids,
        val_ids=validation.ids,
        items=ItemSplit(form=form, train=train, validation=validation, detected=sources.items is None),
        chars_per_token=float(num_chars) / measured.num_tokens,
        spelling=spelling,
        spelling_nats=spelling_nats_per_token(
            tokenizer, spelling, validation.ids if len(validation) else train.ids, measured_pieces
        ),
        cache_files=tuple(file for file in (path, val_path) if file is not None),
    )


def _locate_items(text: ItemText, tokenizer: Tokenizer, cache: Path) -> tuple[Items, Path | None]:
    """Return the encoded items in the order of the text, and the cache file that contains them, if any.

    Raises:
        ConfigError: If the separator is not in the vocabulary, or is changed by the tokenizer.
    """
    ids, path = encode_texts(text, tokenizer, cache)
    separator = tokenizer.encode(text.form.separator)
    ends = item_ends(ids, separator)
    if len(ends) != text.num_items or UNKNOWN_ID in separator:
        raise ConfigError(
            f"items {text.form.kind!r}: this separator has tokens that are not in the vocabulary, or that are also in "
            "an item; set another one",
            fields=["items"],
        )
    lengths = np.diff(ends, prepend=0)
    return Items(ids, ends - lengths, lengths), path
