"""Training recipe: the formulas and constants behind the settings that are chosen automatically.

docs/recipe.md has all measurements; the docstrings here quote some of them. A model reaches a validation loss in nats
per character or, if its tokens are words, a perplexity. The text is tiny Shakespeare unless another one is named.
`2 x 384` means two layers of 384 units each.

This module imports nothing but the settings, because `charlm train --help` shows `AUTOMATIC`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig

DEFAULT_MAX_MINUTES = 60.0
"""Maximum duration of a training in minutes if no length is given. Usually `DEFAULT_PATIENCE` ends it earlier."""

DEFAULT_MAX_EPOCHS = 100.0
"""Maximum number of epochs if no length is given. It applies if `DEFAULT_MAX_MINUTES` would be more epochs."""

DEFAULT_PATIENCE = 6
"""Number of validations in a row without a lower validation loss that ends a training for which no length is given."""

DEFAULT_STEPS = 500
"""Number of updates on a short text if no length is given; an hour would be thousands of epochs."""

SHORT_TEXT = 10_000
"""Number of tokens below which a text is short. A model is meant to memorise it, so that nothing is regularised.
Before the text is split into tokens, its characters are counted instead."""

MIN_CHARS_TO_VALIDATE = 200
"""Number of characters below which no validation text is split off by default: its loss would be too uncertain."""

SHORT_TEXT_SHAPE = (1, 128)
"""Number of layers and units for a short text; enough to memorise it."""

UPDATE_TIME_SHARE = 0.95
"""Share of the remaining time that is spent on updates. The rest is validation and saving."""

RARE_COUNT = 2
"""Default of `min_count` for a long text. Words that occur once are replaced by the unknown token, so that it is
trained too."""

MAX_DROPOUT = 0.5
"""Dropout, as a share, that trainings of many epochs approach. It is too much for few epochs: 2 x 384 without skip
connections, 17 epochs, reaches 1.409 with dropout 0.3 and DropConnect 0.1, and 1.475 with 0.5 and 0.3."""

MIN_DROPOUT_EPOCHS = 2.0
"""Number of epochs below which nothing is dropped, because a text read once or twice is hardly memorised."""

HALF_DROPOUT_EPOCHS = 12.0
"""Number of epochs at which dropout for characters is half of `MAX_DROPOUT`. 384 units, 10 epochs: no dropout reaches
1.470, 0.08 reaches 1.445, 0.15 reaches 1.436."""

HALF_DROPOUT_EPOCHS_WORDS = 6.0
"""Number of epochs at which dropout for words is half of `MAX_DROPOUT`. 1 x 256, 8 epochs: 0.21 reaches a perplexity of
55.7, 0.35 reaches 54.2."""

FULL_DROPOUT_SIZE = 1.5
"""Number of weights per character of the text from which dropout is that of `HALF_DROPOUT_EPOCHS`. Smaller models can
memorise less, and have less dropout in proportion. The first 360,000 characters, 16 epochs: 1 x 160 units, 0.4 weights
per character, reach 1.376 with dropout 0.07, 1.380 with 0.14 and 1.406 with 0.34; 1 x 256 units, 1.0 weights per
character, 1.354 with 0.14, 1.352 with 0.24 and 1.366 with 0.34."""

FULL_DROPOUT_SIZE_WORDS = 9.0
"""The same for words. 1 x 384, 5.4 weights per word of Penn Treebank, 4.7 epochs, beside n-grams: dropout 0.14 reaches
a perplexity of 94.0, 0.24 reaches 96.1, 0.35 reaches 101.6. Tiny Shakespeare: see `HALF_DROPOUT_EPOCHS_WORDS`."""

MIN_DROPOUT_FOR_DROPCONNECT = 0.2
"""Dropout for characters below which recurrent weights are not dropped, because DropConnect makes an update a fifth
slower. 1 x 384, 5.5 epochs, dropout 0.14, beside n-grams: 1.377 with DropConnect 0.05 (two seeds), 1.370 without (three
seeds)."""

DROPCONNECT_SHARE = 1 / 3
"""DropConnect for characters as a share of dropout, while dropout is moderate. A network alone of 512 units, 5 to 6
epochs, dropout 0.14: 1.451 without DropConnect, 1.433 with 0.05."""

DROPCONNECT_DISTANCE = 0.2
"""Maximum difference between dropout and DropConnect for characters; it applies if dropout is above 0.3."""

WORD_DROPCONNECT_SHARE = 1 / 2
"""DropConnect for words as a share of dropout; the proportion of AWD-LSTM, arXiv 1708.02182."""

WORD_TOKEN_DROPOUT_SHARE = 1 / 5
"""Token dropout for words as a share of dropout; the proportion of AWD-LSTM, arXiv 1708.02182."""

REPETITION_SCALE = 15.4
"""R*, the number of repetitions of a text, after the first reading, that are worth anything, in total. Source: arXiv
2305.16264."""

LAYER_TOKENS_FACTOR = 1.8
"""Factor by which each layer above the first raises the number of tokens needed per weight: depth pays later than
width. 40 seconds: 1 x 384 reaches 1.451, 2 x 224 reaches 1.457 and takes longer."""

LAYER_RATE_FACTOR = 0.75
"""Factor by which each layer above the first reduces the learning rate. 2 x 384, 17 epochs: a rate of 0.0088 with a
decay of 0.03 reaches 1.367, 0.0117 with 0.06 reaches 1.348. The rate is 0.01125 with this factor, 0.015 without."""

DECAY_EPOCHS = 2
"""Number of epochs in which weight decay makes weights forget an update, at the peak learning rate. 5.5 epochs, 512
units: a decay of 0.01 reaches 1.424, 0.03 reaches 1.410."""

MAX_WEIGHT_DECAY = 0.1
"""Maximum weight decay; it limits the decay of texts with few updates per epoch."""

BATCH_SIZES = (16, 32, 64)
"""Numbers of parallel streams for characters. More streams are faster (1.4 times from 16 to 64, 384 units, AMX), but
make fewer updates of the same number of tokens."""

GPU_BATCH_SIZES = (64, 128, 256)
"""Numbers of parallel streams for characters on a GPU, where an update of 64 streams takes as long as one of 16: 3.9 ms
and 4.7 ms (1 x 512, 64 tokens per stream, H100)."""

MIN_UPDATES = 8_000
"""Number of updates that a larger batch must leave. 1 x 256, 16 million characters: 16 and 64 streams reach 1.429 and
1.437 on tiny Shakespeare, 1.050 and 1.043 on Penn Treebank."""

WORD_BATCH_SIZE = 20
"""Number of parallel streams for words."""

WORD_SEQ_LEN = 35
"""Number of words per stream in an update."""

MAX_ITEM_CHARS, MAX_ITEM_WORDS = 256, 70
"""Maximum number of characters, or of words, of a list's item that are read in one update. Longer items are continued
in the next update."""

MIN_ITEMS, MAX_ITEMS = 16, 512
"""Minimum and maximum number of items per update. Between them, an update has as many tokens as for a text."""

SIZE_ALONE = 64.0
"""Maximum size of a model without a network, in MB, if none is given. Penn Treebank, characters: all n-grams up to
order 12 need 13.8 MB."""

LARGE_VOCABULARY = 4_000
"""Number of words above which the softmax is estimated during training, see
`charlm.training.loss.sampled_softmax_loss`. The softmax of fewer words takes little of the time."""

SOFTMAX_SHARE = 1 / 5
"""Share of the words in that estimate. Penn Treebank, 10,000 words, 1 x 192: the updates are 2.3 times as fast. After
600 of them, the loss of the network is 5.145 nats, and 5.162 with the whole softmax."""

MIN_SPEEDUP = 1.1
"""Factor by which bf16, or a smaller number of threads, must be faster to be chosen. Less is within the noise of
timings."""

MIN_BF16_UNITS = 256
"""Number of units from which bf16 is used if speed is not measured; smaller models are slower in it (measured from
1 x 8 to 1 x 512, with 16 x 64 and 4 x 16 tokens, on two cores)."""

UNITS_PER_THREAD = 64
"""Number of units per thread if speed is not measured; smaller models are slower with more threads (measured as for
`MIN_BF16_UNITS`)."""


@dataclass(frozen=True, kw_only=True)
class ScalingRule:
    """Dependence of the model's size and learning rate on the budget.

    Attributes:
        shapes: Candidate numbers of layers and units, in order of size.
        tokens_per_weight: D / P, the number of training tokens per weight at which one layer makes the best use of a
            budget. With fewer, the model is undertrained; with more, a larger model would be better. Repeated tokens
            count less, see `effective_tokens`.
        rate_times_units: Peak learning rate times the number of units: wider layers need smaller steps, as in
            arXiv 2203.03466.
        max_learning_rate: Maximum peak learning rate.
    """

    shapes: tuple[tuple[int, int], ...]
    tokens_per_weight: float
    rate_times_units: float
    max_learning_rate: float


CHARACTER_SCALING = ScalingRule(
    shapes=(
        *((1, hidden) for hidden in (64, 96, 128, 192, 256, 384, 512)),
        *((2, hidden) for hidden in (384, 512, 640, 768, 1024, 1280, 1536, 2048)),
    ),
    tokens_per_weight=2.5,
    rate_times_units=6,
    max_learning_rate=1.5e-2,
)
"""Characters. Size, beside n-grams, in the time of 5.5 million characters with 384 units: 384 units reach 1.377, 512
units 1.364; Python 0.910 and 0.900, Russian 1.260 and 1.256, Penn Treebank 0.985 and 0.989. Learning rate, 256 units,
Penn Treebank: 0.01, 0.015 and 0.02 reach 1.176, 1.169 and 1.174."""

WORD_SCALING = ScalingRule(
    shapes=((1, 192), (1, 256), (1, 384), (2, 400)),
    tokens_per_weight=0.3,
    rate_times_units=3,
    max_learning_rate=1e-2,
)
"""Words. Most weights of a word model are in its decoder, which has a row for each word. Fewer than 192 units save
hardly any time, because the softmax over all words takes as long: the plays, one minute, 1 x 64 reaches a perplexity of
105.9, 1 x 192 reaches 92.7. Size, Penn Treebank beside n-grams, in the time of 2 minutes: 192, 256 and 384 units reach
102.3, 99.8 and 98.3. Learning rate, 1 x 256, Penn Treebank, 2 minutes: 0.004, 0.008 and 0.012 reach 124.5, 114.3 and
114.8."""


@dataclass(frozen=True, kw_only=True)
class Dropouts:
    """Dropout of a model, by the field names of `ModelConfig`; shares from 0 to 1."""

    dropout: float = 0.0
    input_dropout: float = 0.0
    token_dropout: float = 0.0
    recurrent_dropout: float = 0.0


def dropouts(epochs: float, *, words: bool, size: float = math.inf) -> Dropouts:
    """Return the dropout for a training of some epochs: MAX_DROPOUT * (1 - 2 ** (-epochs / HALF_DROPOUT_EPOCHS)).

    It is reduced by the factor size / FULL_DROPOUT_SIZE if that is below 1. Words have constants of their own.

    Inputs are not dropped for characters, neither whole tokens nor components of the embeddings: a missing character
    cannot be guessed. Shares are rounded to two digits.

    Args:
        epochs: Number of passes over the text.
        words: Whether the tokens are words.
        size: P / N, number of weights per token of the text.

    Source:
        The proportions for words: AWD-LSTM, arXiv 1708.02182, which uses half of everything in hundreds of epochs.
    """
    half_epochs, full_size = HALF_DROPOUT_EPOCHS, FULL_DROPOUT_SIZE
    if words:
        half_epochs, full_size = HALF_DROPOUT_EPOCHS_WORDS, FULL_DROPOUT_SIZE_WORDS
    share = MAX_DROPOUT * (1 - 2 ** (-epochs / half_epochs)) if epochs >= MIN_DROPOUT_EPOCHS else 0.0
    share = round(share * min(1.0, size / full_size), 2)
    if not words:
        return Dropouts(dropout=share, recurrent_dropout=_character_dropconnect(share))
    return Dropouts(
        dropout=share,
        input_dropout=share,
        token_dropout=round(share * WORD_TOKEN_DROPOUT_SHARE, 2),
        recurrent_dropout=round(share * WORD_DROPCONNECT_SHARE, 2),
    )


def _character_dropconnect(dropout: float) -> float:
    if dropout < MIN_DROPOUT_FOR_DROPCONNECT:
        return 0.0
    return round(max(dropout * DROPCONNECT_SHARE, dropout - DROPCONNECT_DISTANCE), 2)


def peak_learning_rate(scaling: ScalingRule, num_layers: int, hidden_size: int) -> float:
    """Return the peak learning rate of a model with this number of layers and units."""
    rate = min(scaling.max_learning_rate, scaling.rate_times_units / hidden_size)
    return rate * LAYER_RATE_FACTOR ** (num_layers - 1)


def weight_decay(learning_rate: float, updates_per_epoch: float) -> float:
    """Return the weight decay, to two digits, at which weights forget an update in `DECAY_EPOCHS` epochs.

    With AdamW's decay, weights are an average over their last 1 / (learning rate * decay) updates. The length of that
    average in epochs should depend on neither the model nor the text.

    Source:
        Wang and Aitchison, arXiv 2405.13698.
    """
    return float(f"{min(MAX_WEIGHT_DECAY, 1 / (DECAY_EPOCHS * learning_rate * updates_per_epoch)):.2g}")


def tokens_needed(scaling: ScalingRule, num_layers: int, num_weights: int) -> float:
    """Return the number of training tokens that a model with this number of layers and weights needs."""
    return num_weights * scaling.tokens_per_weight * LAYER_TOKENS_FACTOR ** (num_layers - 1)


def effective_tokens(tokens: float, num_tokens: int) -> float:
    """Return the number of new tokens that would be worth as much as `tokens` read from a text of `num_tokens`.

    Repeated readings of a text are worth less and less, so that the result stays below 1 + `REPETITION_SCALE` times
    the text. It follows that a text supports a model of limited size, however often it is read.

    Source:
        Muennighoff et al., arXiv 2305.16264, equation 5.
    """
    repetitions = max(0.0, tokens / num_tokens - 1)
    return min(tokens, num_tokens) - num_tokens * REPETITION_SCALE * math.expm1(-repetitions / REPETITION_SCALE)


def default_softmax_samples(vocab_size: int, *, words: bool) -> int | None:
    """Return the number of words from which the softmax is estimated during training; None for the whole softmax."""
    return round(SOFTMAX_SHARE * vocab_size) if words and vocab_size > LARGE_VOCABULARY else None


def default_batch_size(tokens: float, seq_len: int, *, on_gpu: bool = False) -> int:
    """Return the largest number of streams that leaves `MIN_UPDATES` updates of `tokens` characters, or the smallest.

    Args:
        tokens: D, the number of tokens that the training will process.
        seq_len: Number of tokens per stream and update.
        on_gpu: Whether to choose from `GPU_BATCH_SIZES` instead of `BATCH_SIZES`.
    """
    sizes = GPU_BATCH_SIZES if on_gpu else BATCH_SIZES
    return max([size for size in sizes if tokens >= MIN_UPDATES * size * seq_len], default=sizes[0])


def with_default_min_count(num_chars: int, config: TokenizerConfig) -> TokenizerConfig:
    """Return the settings of a tokenizer, with `min_count` chosen for a text of `num_chars` if it has none.

    Tokenizers for characters have no `min_count`.
    """
    if config.tokenizer != "word" or config.min_count is not None:
        return config
    return replace(config, min_count=RARE_COUNT if config.split == "words" and num_chars >= SHORT_TEXT else 1)


def default_val_fraction(num_chars: int, given: float | None) -> float:
    """Return the share of a text of `num_chars` that is kept for validation: the given one, if any."""
    if given is not None:
        return given
    return TrainConfig.val_fraction if num_chars >= MIN_CHARS_TO_VALIDATE else 0.0


def _range_text(values: Iterable[int]) -> str:
    ordered = sorted(values)
    return f"{ordered[0]} to {ordered[-1]}"


def _rate_text(scaling: ScalingRule) -> str:
    return f"{scaling.rate_times_units:g} / number of units, at most {scaling.max_learning_rate:g}"


_SHORT_TEXTS = f"texts below {SHORT_TEXT:,} tokens"
_LONG_TEXTS = f"texts of {SHORT_TEXT:,} tokens or more"
_NO_LENGTH = "no limit; if no training length is given:"
_MORE_DROPOUT = "more with more epochs and larger models"
_MAX_DROPOUTS = dropouts(math.inf, words=False)
_MAX_WORD_DROPOUTS = dropouts(math.inf, words=True)

AUTOMATIC = {
    "max_vocab": "no limit",
    "min_count": f"{RARE_COUNT}; 1 for texts below {SHORT_TEXT:,} characters or split at whitespace",
    "minutes": f"{_NO_LENGTH} {DEFAULT_MAX_MINUTES:g} for {_LONG_TEXTS}",
    "epochs": f"{_NO_LENGTH} {DEFAULT_MAX_EPOCHS:g} for {_LONG_TEXTS}",
    "steps": f"{_NO_LENGTH} {DEFAULT_STEPS} for {_SHORT_TEXTS}",
    "patience": f"{_NO_LENGTH} {DEFAULT_PATIENCE} for {_LONG_TEXTS}",
    "val_fraction": f"{TrainConfig.val_fraction:g}; 0 for texts below {MIN_CHARS_TO_VALIDATE} characters",
    "num_layers": f"{_range_text(layers for layers, _ in CHARACTER_SCALING.shapes)}, more in longer trainings",
    "hidden_size": f"{_range_text(units for _, units in CHARACTER_SCALING.shapes)}, more in longer trainings; "
    f"{_range_text(units for _, units in WORD_SCALING.shapes)} for words; {SHORT_TEXT_SHAPE[1]} for {_SHORT_TEXTS}",
    "embedding_dim": f"{ModelConfig.embedding_dim}; the number of units if weights are tied",
    "skip_connections": "on for characters with several layers, else off",
    "tie_weights": "on for words, unless the embeddings are frozen or their size differs from the number of units; off "
    "for characters",
    "dropout": f"0 to {_MAX_DROPOUTS.dropout:g}, {_MORE_DROPOUT}; 0 for {_SHORT_TEXTS}",
    "input_dropout": f"0 to {_MAX_WORD_DROPOUTS.input_dropout:g} for words, {_MORE_DROPOUT}; 0 for characters",
    "token_dropout": f"0 to {_MAX_WORD_DROPOUTS.token_dropout:g} for words, {_MORE_DROPOUT}; 0 for characters",
    "recurrent_dropout": f"0 to {_MAX_DROPOUTS.recurrent_dropout:g}, {_MORE_DROPOUT}; "
    f"0 to {_MAX_WORD_DROPOUTS.recurrent_dropout:g} for words; 0 for {_SHORT_TEXTS}",
    "ngram": f"on for {_LONG_TEXTS} with a validation text",
    "ngram_order": "up to 10 characters or 5 words, as long as the validation loss of the n-grams falls",
    "ngram_size": f"{TrainConfig.ngram_size:g}; {SIZE_ALONE:g} without a network",
    "items": "line if the text looks like a list with one item per line, else none",
    "batch_size": f"{_range_text(BATCH_SIZES)}, or {_range_text(GPU_BATCH_SIZES)} on a GPU, more in longer trainings; "
    f"{WORD_BATCH_SIZE} for words; "
    f"{_range_text((MIN_ITEMS, MAX_ITEMS))} items of a list",
    "seq_len": f"{TrainConfig.seq_len}; {WORD_SEQ_LEN} for words; the longest item of a list, up to {MAX_ITEM_CHARS}, "
    f"or {MAX_ITEM_WORDS} words",
    "learning_rate": f"{_rate_text(CHARACTER_SCALING)}; {_rate_text(WORD_SCALING)} for words; times "
    f"{LAYER_RATE_FACTOR:g} for each layer above the first; {TrainConfig.learning_rate:g} for {_SHORT_TEXTS}",
    "weight_decay": f"up to {MAX_WEIGHT_DECAY:g}, more for shorter texts; {TrainConfig.weight_decay:g} for words and "
    f"for {_SHORT_TEXTS}",
    "softmax_samples": f"{SOFTMAX_SHARE:.0%} of the words if there are more than {LARGE_VOCABULARY:,}, else 0",
    "precision": f"auto: bf16 if it is at least {MIN_SPEEDUP:g} times as fast as fp32; if speed is not measured, from "
    f"{MIN_BF16_UNITS} units on",
}
"""Descriptions of the automatic choice of each setting, by field name; shown by `charlm train --help`."""
