"""Fits a training to its text, its budget and the machine: chooses what was left open.

The rules were fitted to measurements, see docs/recipe.md. Three numbers decide: N, the tokens of the
text; D, those that the budget pays for, which a few timed updates tell; and P, the weights that each of them goes
through. A token costs 6 P operations, so that a budget buys either more weights or more tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from charlm.config import ModelConfig, TokenizerConfig, TrainConfig
from charlm.engine.checkpoint import tensor_shapes

if TYPE_CHECKING:
    from charlm.training.throughput import Machine, Throughput

BUDGETS = {"minutes", "epochs", "steps"}

LONGEST_MINUTES, MOST_EPOCHS = 60.0, 100.0
"""Bounds of a training that is given none: it ends when its validation loss has stopped falling."""

PATIENCE = 6
"""Validations in a row without a better loss after which such a training ends."""

DEFAULT_STEPS = 500
"""For a text so short that minutes would be thousands of epochs."""

SHORT_TEXT = 10_000
"""Tokens below which a text is short: it is there to be learnt by heart."""

TOO_SHORT_TO_SPLIT = 200
"""Characters below which nothing is kept for validation, unless it is asked for."""

SHORT_SHAPE = (1, 128)
"""Of a model that learns a short text by heart."""

FIRST_TIMED = (1, 384)
"""The shape with which the search begins."""

PART_LEARNING = 0.95
"""Of the minutes left, what updates take; validation and saving take the rest."""

MOST_DROPPED = 0.5
"""The dropout that many epochs come close to."""

HALFWAY_EPOCHS, WORDS_HALFWAY_EPOCHS = 12, 6
"""The epochs that bear half of it, of characters and of words."""

REREADING = 15.4
"""Readings after the first that are worth something, all in all: what a text says again teaches ever less, as
1 - exp(-readings / 15.4) of so many new texts; arXiv 2305.16264, R*."""

DEEPER_TOKENS = 1.5
"""What each layer above the first multiplies the tokens by that a weight asks for: depth pays later than width."""

DEEPER_RATE = 0.75
"""What each layer above the first takes of the learning rate."""

DECAY_EPOCHS, MOST_DECAY = 2, 0.1
"""The epochs after which weight decay has the weights forget an update, at the peak of the learning rate; and the bound
of that decay, for texts of few updates."""

STREAMS = (16, 32, 64)
"""Streams to choose from: many go faster, but make fewer updates of the same tokens."""

MANY_UPDATES = 8_000
"""Updates from which more streams are better than more updates."""

MEASUREMENTS = 3
"""Shapes that are timed at most in search of the one that fits."""

LARGE_VOCABULARY = 30_000
"""Words from which the softmax is estimated in training: see `charlm.training.loss.sampled_softmax_loss`."""

SOFTMAX_SAMPLES = 8192
"""Words drawn for that."""

WORD_SETTINGS = {"batch_size": 20, "seq_len": 35}
"""How words are learnt."""

RARE = 2
"""In a text that is not short, a word that comes less often is left unknown, so that the unknown one is learnt too."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a model its budget and its text ask for.

    Attributes:
        shapes: Layers and units that are chosen from, by growing size.
        tokens_per_weight: The tokens to learn for each weight, D / P, at which a budget is spent best on one layer:
            with fewer a model stays raw, with more a larger one would have come further. Read again, tokens count for
            less, see `tokens_worth`.
        rate_times_units: Peak learning rate times units: the wider the layers, the smaller the steps, as in
            arXiv 2203.03466.
        highest_rate: The bound of that rate.
    """

    shapes: tuple[tuple[int, int], ...]
    tokens_per_weight: float
    rate_times_units: float
    highest_rate: float


CHARACTER_SIZES = Sizes(
    shapes=(
        *((1, hidden) for hidden in (64, 96, 128, 192, 256, 384, 512)),
        *((2, hidden) for hidden in (384, 512, 640, 768, 1024, 1280, 1536, 2048)),
    ),
    tokens_per_weight=3,
    rate_times_units=6,
    highest_rate=1.5e-2,
)

WORD_SIZES = Sizes(
    shapes=((1, 192), (1, 256), (1, 384), (2, 400)),
    tokens_per_weight=0.4,
    rate_times_units=3,
    highest_rate=1e-2,
)
"""Most weights of a model of words are its decoder's, a row for each word; fewer units than these save hardly any time,
since the softmax over all words takes the same."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that fits.

    Attributes:
        model: The model's shape.
        train: How to learn.
        given: The settings that were asked for, by field name; all others were chosen.
        throughput: How fast that goes here.
        epochs: The passes over the text to expect.
        notes: What was fitted to the text.
    """

    model: ModelConfig
    train: TrainConfig
    given: frozenset[str]
    throughput: "Throughput"
    epochs: float
    notes: tuple[str, ...]


def words_to_know(num_chars: int, config: TokenizerConfig) -> TokenizerConfig:
    """Choose how rare a word may be, if that was left open."""
    rare = RARE if config.split == "words" and num_chars >= SHORT_TEXT else 1
    return replace(config, min_count=rare) if config.tokenizer == "word" and config.min_count is None else config


def share_to_validate(num_chars: int, given: float | None) -> float:
    """The share of a text to keep for validation: as asked for, else the default, but none of a very short text."""
    if given is not None:
        return given
    return TrainConfig.val_fraction if num_chars >= TOO_SHORT_TO_SPLIT else 0.0


@dataclass(frozen=True)
class _Text:
    """What a plan has to know of the text to learn."""

    num_tokens: int
    vocab_size: int
    words: bool

    @property
    def short(self) -> bool:
        return self.num_tokens < SHORT_TEXT

    @property
    def sizes(self) -> Sizes:
        return WORD_SIZES if self.words else CHARACTER_SIZES


def plan(
    num_tokens: int, vocab_size: int, given: Mapping[str, Any], machine: "Machine", *, words: bool = False
) -> Plan:
    """Choose the settings of a training.

    Args:
        num_tokens: N, the length of the text to learn.
        vocab_size: Number of token types.
        given: The settings asked for, by field name; None for what is left open.
        machine: Where it is to be trained.
        words: Whether the tokens are words.

    Raises:
        ConfigError: If a setting is out of its range.
    """
    text = _Text(num_tokens, vocab_size, words)
    given = {name: value for name, value in given.items() if value is not None}
    asked = given | {"vocab_size": vocab_size}
    notes = []
    if not BUDGETS & given.keys():
        asked |= {"steps": DEFAULT_STEPS} if text.short else {"minutes": LONGEST_MINUTES, "patience": PATIENCE} | asked
    settings, throughput, tokens = _fit(asked, text, machine)
    if not BUDGETS & given.keys() and tokens > MOST_EPOCHS * num_tokens and not text.short:
        del asked["minutes"]
        settings, throughput, tokens = _fit(asked | {"epochs": MOST_EPOCHS}, text, machine)
    train = TrainConfig.pick(settings)
    if not BUDGETS & given.keys():
        notes.append(f"no --minutes, --epochs or --steps given: training {_end(train)}")
    streams, length = train.batch_size, train.seq_len
    if length == num_tokens or streams == num_tokens // length:
        notes.append(f"fitted to {num_tokens:,} tokens: {streams} parallel stream(s), {length} tokens an update")
    return Plan(
        model=ModelConfig.pick(settings),
        train=replace(train, precision=throughput.precision, threads=throughput.threads),
        given=frozenset(given),
        throughput=throughput,
        epochs=tokens / num_tokens,
        notes=tuple(notes),
    )


def _end(train: TrainConfig) -> str:
    """When a training without a given end will end, in words."""
    if train.steps is not None:
        return f"for {train.steps} steps"
    most = f"{train.epochs:g} epochs" if train.epochs is not None else f"{train.minutes:g} minutes"
    return f"until the validation loss stops falling, {most} at most"


def _fit(asked: Mapping[str, Any], text: _Text, machine: "Machine") -> tuple[dict[str, Any], "Throughput", float]:
    """Find the largest shape that the budget pays for: settings, how fast that goes, and the tokens to be learnt."""
    shapes = _shapes(asked, text)
    shape = FIRST_TIMED if FIRST_TIMED in shapes else shapes[0]
    settings = _filled(asked, text, shape, tokens=0.0)
    for _ in range(MEASUREMENTS):
        before = settings
        throughput = machine.measure_throughput(ModelConfig.pick(settings), TrainConfig.pick(settings))
        tokens = _tokens(settings, text, throughput, machine)
        timed = _weights(settings) if "minutes" in settings else None
        shape = _largest_that_fits(shapes, asked, text, tokens, timed)
        settings = _filled(asked, text, shape, tokens)
        if all(settings[name] == before[name] for name in ("num_layers", "hidden_size", "batch_size", "seq_len")):
            break
    return settings, throughput, tokens


def _shapes(asked: Mapping[str, Any], text: _Text) -> list[tuple[int, int]]:
    """The shapes to choose from, layers and units, by growing size."""
    layers, hidden = asked.get("num_layers"), asked.get("hidden_size")
    if text.short or hidden is not None:
        return [(layers or SHORT_SHAPE[0], hidden or SHORT_SHAPE[1])]
    if layers is not None:
        return [(layers, hidden) for hidden in sorted({hidden for _, hidden in text.sizes.shapes})]
    return list(text.sizes.shapes)


def _filled(asked: Mapping[str, Any], text: _Text, shape: tuple[int, int], tokens: float) -> dict[str, Any]:
    """All settings for a model of some shape that is to learn so many tokens: what was asked for, and what suits it."""
    layers, hidden = shape
    chosen: dict[str, Any] = {"num_layers": layers, "hidden_size": hidden}
    chosen |= {"batch_size": TrainConfig.batch_size, "seq_len": TrainConfig.seq_len}
    if text.words:
        chosen |= WORD_SETTINGS
        may_tie = not asked.get("freeze_embeddings") and asked.get("embedding_dim") in (None, hidden)
        chosen["tie_weights"] = may_tie
        if text.vocab_size > LARGE_VOCABULARY:
            chosen["softmax_samples"] = SOFTMAX_SAMPLES
    elif not text.short:
        length = asked.get("seq_len", TrainConfig.seq_len)
        chosen["batch_size"] = max([s for s in STREAMS if tokens >= MANY_UPDATES * s * length], default=STREAMS[0])
    if not text.short:
        rate = min(text.sizes.highest_rate, text.sizes.rate_times_units / hidden)
        chosen["learning_rate"] = rate * DEEPER_RATE ** (layers - 1)
        chosen |= dropouts(tokens / text.num_tokens, words=text.words)
    chosen["skip_connections"] = layers > 1 and not text.words
    chosen |= asked
    if chosen.get("tie_weights") and "embedding_dim" not in asked:
        chosen["embedding_dim"] = hidden
    chosen["seq_len"] = max(1, min(chosen["seq_len"], text.num_tokens))
    chosen["batch_size"] = max(1, min(chosen["batch_size"], text.num_tokens // chosen["seq_len"]))
    if not text.short and not text.words and "weight_decay" not in asked:
        updates = text.num_tokens / (chosen["batch_size"] * chosen["seq_len"])
        chosen["weight_decay"] = weight_decay(chosen["learning_rate"], updates)
    return chosen


def _tokens(settings: Mapping[str, Any], text: _Text, throughput: "Throughput", machine: "Machine") -> float:
    """D, the tokens that will be learnt."""
    config = TrainConfig.pick(settings)
    if config.epochs is not None:
        return config.epochs * text.num_tokens
    if config.steps is not None:
        return float(config.steps * config.batch_size * config.seq_len)
    assert config.minutes is not None, "there is a budget"
    seconds = config.minutes * 60 - machine.seconds_used()
    return max(0.0, PART_LEARNING * seconds * throughput.tokens_per_second)


def _largest_that_fits(
    shapes: Sequence[tuple[int, int]], asked: Mapping[str, Any], text: _Text, tokens: float, timed: int | None
) -> tuple[int, int]:
    """The largest shape that its tokens and the text suffice for; the smallest, if there is none.

    Where time decides, `tokens` are what a model of `timed` weights would learn.
    """
    found, sizes = shapes[0], text.sizes
    for layers, hidden in shapes:
        weights = _weights(_filled(asked, text, (layers, hidden), tokens))
        learnt = tokens * timed / weights if timed else tokens
        needed = weights * sizes.tokens_per_weight * DEEPER_TOKENS ** (layers - 1)
        if tokens_worth(learnt, text.num_tokens) >= needed:
            found = layers, hidden
    return found


def tokens_worth(tokens: float, num_tokens: int) -> float:
    """The new tokens that would teach as much as `tokens` of a text of `num_tokens`: never 17 times the text.

    So a text bears only so large a model, however long it is read.

    Source:
        Muennighoff et al., arXiv 2305.16264, equation 5.
    """
    readings = max(0.0, tokens / num_tokens - 1)
    return min(tokens, num_tokens) - num_tokens * REREADING * math.expm1(-readings / REREADING)


def weights_per_token(config: ModelConfig, samples: int = 0) -> int:
    """P, the weights that each token is multiplied with: those of the layers and of the decoder.

    Args:
        config: The model's shape.
        samples: Rows of the decoder that are drawn for an update; 0 if all take part.
    """
    layers = sum(math.prod(shape) for name, shape in tensor_shapes(config).items() if "weight_" in name)
    return layers + min(config.vocab_size, samples or config.vocab_size) * config.hidden_size


def _weights(settings: Mapping[str, Any]) -> int:
    return weights_per_token(ModelConfig.pick(settings), settings.get("softmax_samples") or 0)


def weight_decay(learning_rate: float, updates_per_epoch: float) -> float:
    """The decay, to two digits, at which weights forget in `DECAY_EPOCHS` passes over the text.

    Weights under AdamW's decay are a mean of their last 1 / (rate decay) updates, whose span in epochs should not
    depend on the model or the text.

    Source:
        Wang and Aitchison, arXiv 2405.13698.
    """
    return float(f"{min(MOST_DECAY, 1 / (DECAY_EPOCHS * learning_rate * updates_per_epoch)):.2g}")


def dropouts(epochs: float, *, words: bool) -> dict[str, float]:
    """What to drop from a model that sees its text so many times: nothing before it could learn it by heart.

    The proportions for words are AWD-LSTM's, arXiv 1708.02182, where hundreds of epochs bear half of everything.
    Characters are dropped neither whole nor in parts: there is no guessing what a letter was. Their recurrent weights
    are when there is enough to be dropped at all: it slows an update by a tenth.
    """
    halfway = WORDS_HALFWAY_EPOCHS if words else HALFWAY_EPOCHS
    share = round(MOST_DROPPED * (1 - 2 ** (-epochs / halfway)), 2) if epochs >= 2 else 0.0
    if not words:
        connections = max(share / 3, share - 0.2) if share >= 0.1 else 0.0
        return {"dropout": share, "recurrent_dropout": round(connections, 2)}
    return {
        "dropout": share,
        "input_dropout": share,
        "token_dropout": round(share / 5, 2),
        "recurrent_dropout": round(share / 2, 2),
    }
