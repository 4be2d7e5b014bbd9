"""Planner, which chooses the settings of a training that are not given, for its text, its length and the machine.

Three numbers decide:

    N   number of tokens of the training text
    D   number of tokens that the training can process, including repeated readings; if time limits the training, it
        follows from a few timed updates
    P   number of weights of the layers and of the decoder

A token costs about 6 P operations, so that the same time buys either more weights or more tokens. The formulas and
constants are in `charlm.training.recipe`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from charlm.config import ModelConfig, TrainConfig
from charlm.engine.checkpoint import tensor_shapes
from charlm.errors import ConfigError, Note
from charlm.training.recipe import (
    CHARACTER_SCALING,
    DEFAULT_MAX_EPOCHS,
    DEFAULT_MAX_MINUTES,
    DEFAULT_PATIENCE,
    DEFAULT_STEPS,
    MAX_ITEM_CHARS,
    MAX_ITEM_WORDS,
    MAX_ITEMS,
    MIN_ITEMS,
    SHORT_TEXT,
    SHORT_TEXT_SHAPE,
    UPDATE_TIME_SHARE,
    WORD_BATCH_SIZE,
    WORD_SCALING,
    WORD_SEQ_LEN,
    Dropouts,
    ScalingRule,
    default_batch_size,
    default_softmax_samples,
    dropouts,
    effective_tokens,
    peak_learning_rate,
    tokens_needed,
    weight_decay,
)
from charlm.training.schedule import MIN_UPDATES

if TYPE_CHECKING:
    from charlm.training.throughput import Machine, Throughput

LENGTH_SETTINGS = ("minutes", "epochs", "steps")
"""Settings, one of which ends the training."""

FIRST_SHAPE = (1, 384)
"""Number of layers and units that are timed first, if they are among the candidates."""

MAX_TIMINGS = 3
"""Maximum number of models that are timed to find the one that fits."""

TIME_MARGIN = 2
"""Factor between the time that is certainly too short for a training and the time that an error proposes."""


@dataclass(frozen=True, kw_only=True)
class ItemLengths:
    """Lengths of the items of a list.

    Attributes:
        count: Number of items.
        longest: Number of tokens of the longest item.
    """

    count: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All settings of a training, with its expected speed and number of epochs.

    Attributes:
        model: Shape of the model.
        train: Settings of the training.
        given: Field names of the settings that were given; all others were chosen.
        throughput: Measured speed on this machine.
        epochs: Expected number of passes over the training text.
        notes: Messages for the user about unexpected choices.
    """

    model: ModelConfig
    train: TrainConfig
    given: frozenset[str]
    throughput: "Throughput"
    epochs: float
    notes: tuple[str, ...]


def plan(
    num_tokens: int,
    vocab_size: int,
    given: Mapping[str, Any],
    machine: "Machine",
    *,
    words: bool = False,
    items: ItemLengths | None = None,
) -> Plan:
    """Choose the settings of a training that are not given.

    Args:
        num_tokens: N, number of tokens of the training text.
        vocab_size: V, number of tokens in the vocabulary.
        given: Settings by field name; None stands for a setting that is not given.
        machine: The machine that will train.
        words: Whether the tokens are words.
        items: Lengths of the items, if the text is a list.

    Raises:
        ConfigError: If a setting is out of its range.
    """
    known = {name: value for name, value in given.items() if value is not None}
    has_length = any(name in known for name in LENGTH_SETTINGS)

    # 1. Set a length if none is given.
    task = _Task(num_tokens, vocab_size, words, known, items, on_gpu=machine.device.type != "cpu")
    if not has_length:
        task = task.with_default_length()

    # 2. Find the largest model that can be trained well in that length.
    fit = _fit(task, machine)

    # 3. Limit the number of epochs of a training without a given length.
    if not has_length and not task.is_short and fit.tokens > DEFAULT_MAX_EPOCHS * num_tokens:
        fit = _fit(task.with_max_epochs(), machine)

    train, throughput = fit.proposal.train, fit.throughput
    return Plan(
        model=fit.proposal.model,
        train=replace(train, precision=throughput.precision, threads=throughput.threads),
        given=frozenset(known),
        throughput=throughput,
        epochs=fit.tokens / num_tokens,
        notes=tuple(_notes(task, train, has_length=has_length)),
    )


def check_time(planned: Plan, machine: "Machine") -> tuple[str, ...]:
    """Return a note if the start-up has left less time than `MIN_UPDATES` updates need.

    The training makes these updates all the same, and exceeds its limit.

    Raises:
        ConfigError: If the whole time limit would be too short for these updates.
    """
    config = planned.train
    if config.minutes is None:
        return ()
    used = machine.seconds_used()
    tokens = MIN_UPDATES * config.batch_size * config.seq_len * machine.workers.count
    needed = tokens / planned.throughput.tokens_per_second
    if 60 * config.minutes < needed:
        raise too_short(config.minutes, f" for {MIN_UPDATES} updates", used + needed)
    if 60 * config.minutes >= used + needed:
        return ()
    message = (
        f"`minutes` {config.minutes:g}: the start-up took {used:.1f} seconds, so that the network is trained for only "
        f"{MIN_UPDATES} updates; for more, set it to at least {_enough(used + needed)}"
    )
    return (Note(message, fields=["minutes"]),)


def too_short(minutes: float, reason: str, needed: float) -> ConfigError:
    """Return the error of a time limit that is too short.

    Args:
        minutes: The time limit.
        reason: End of the sentence "too short".
        needed: Seconds that are certainly needed.
    """
    message = f"`minutes` {minutes:g}: too short{reason}; set it to at least {_enough(needed)}"
    return ConfigError(message, fields=["minutes"])


def _enough(needed: float) -> str:
    """Return a time limit that is surely long enough, with one decimal digit, from the seconds that are needed."""
    minutes = math.ceil(10 * TIME_MARGIN * needed / 60) / 10
    return f"{minutes:g} minutes ({60 * minutes:g} seconds)"


@dataclass(frozen=True)
class _Task:
    """The text to train on and the settings that are given.

    Attributes:
        num_tokens: N, number of tokens of the training text.
        vocab_size: V, number of tokens in the vocabulary.
        words: Whether the tokens are words.
        given: The settings by field name; none is None.
        items: Lengths of the items, if the text is a list.
        on_gpu: Whether a GPU will train.
    """

    num_tokens: int
    vocab_size: int
    words: bool
    given: Mapping[str, Any]
    items: ItemLengths | None = None
    on_gpu: bool = False

    def mean_tokens(self, seq_len: int) -> int:
        """Return the mean number of tokens per row of an update, rounded up: `seq_len` unless items are shorter."""
        if self.items is None:
            return seq_len
        return min(seq_len, math.ceil(self.num_tokens / self.items.count))

    @property
    def is_short(self) -> bool:
        """True if a model is meant to memorise the text."""
        return self.num_tokens < SHORT_TEXT

    @property
    def scaling(self) -> ScalingRule:
        """The rule for the size of the model."""
        return WORD_SCALING if self.words else CHARACTER_SCALING

    def with_default_length(self) -> "_Task":
        """Return the task with a limit of updates for a short text, and with a limit of minutes for any other."""
        length: dict[str, Any] = {"minutes": DEFAULT_MAX_MINUTES, "patience": DEFAULT_PATIENCE}
        return replace(self, given={**({"steps": DEFAULT_STEPS} if self.is_short else length), **self.given})

    def with_max_epochs(self) -> "_Task":
        """Return the task with a limit of epochs instead of minutes."""
        others = {name: value for name, value in self.given.items() if name != "minutes"}
        return replace(self, given={**others, "epochs": DEFAULT_MAX_EPOCHS})


@dataclass(frozen=True, kw_only=True)
class _Proposal:
    """Settings that may become the plan.

    Attributes:
        model: Shape of the model.
        train: Settings of the training.
    """

    model: ModelConfig
    train: TrainConfig

    @property
    def num_weights(self) -> int:
        """P, the number of weights of the layers and of the decoder."""
        return weights_per_token(self.model)

    @property
    def num_multiplied(self) -> int:
        """Number of weights that each token is multiplied with during training, on which the time depends."""
        return weights_per_token(self.model, self.train.softmax_samples or 0)

    @property
    def timed_sizes(self) -> tuple[int, int, int, int]:
        """The sizes on which the duration of an update depends."""
        return self.model.num_layers, self.model.hidden_size, self.train.batch_size, self.train.seq_len


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Result of the search.

    Attributes:
        proposal: The settings.
        throughput: Measured speed of the model that was timed last.
        tokens: D, the number of tokens that will be processed.
    """

    proposal: _Proposal
    throughput: "Throughput"
    tokens: float


def _fit(task: _Task, machine: "Machine") -> _Fit:
    """Find the largest model that can be trained well, by timing a few models."""
    shapes = _candidate_shapes(task)
    proposal = _propose(task, FIRST_SHAPE if FIRST_SHAPE in shapes else shapes[0], tokens=0.0)
    for _ in range(MAX_TIMINGS):
        timed = proposal
        typical = replace(timed.train, seq_len=task.mean_tokens(timed.train.seq_len))
        throughput = machine.measure_throughput(timed.model, typical)
        tokens = _tokens_to_process(timed.train, task, throughput, machine)
        proposal = _largest_that_fits(shapes, task, tokens, timed)
        if proposal.timed_sizes == timed.timed_sizes:
            break
    return _Fit(proposal=proposal, throughput=throughput, tokens=tokens)


def _candidate_shapes(task: _Task) -> list[tuple[int, int]]:
    """Return the numbers of layers and units to choose from, in order of size."""
    layers, hidden = task.given.get("num_layers"), task.given.get("hidden_size")
    if task.is_short or hidden is not None:
        return [(layers or SHORT_TEXT_SHAPE[0], hidden or SHORT_TEXT_SHAPE[1])]
    if layers is not None:
        return [(layers, units) for units in sorted({units for _, units in task.scaling.shapes})]
    return list(task.scaling.shapes)


def _tokens_to_process(config: TrainConfig, task: _Task, throughput: "Throughput", machine: "Machine") -> float:
    """Return D, the number of tokens that the training will process."""
    if config.epochs is not None:
        return config.epochs * task.num_tokens
    if config.steps is not None:
        return float(config.steps * config.batch_size * task.mean_tokens(config.seq_len))
    assert config.minutes is not None, "a task has a length"
    seconds = config.minutes * 60 - machine.seconds_used()
    return max(0.0, UPDATE_TIME_SHARE * seconds * throughput.tokens_per_second)


def _largest_that_fits(shapes: Sequence[tuple[int, int]], task: _Task, tokens: float, timed: _Proposal) -> _Proposal:
    """Return the largest model for whose weights the tokens suffice; the smallest candidate if there is none.

    Args:
        shapes: The candidate numbers of layers and units, in order of size.
        task: The text and the given settings.
        tokens: D, the number of tokens that the timed model would process.
        timed: The model that was timed. If time limits the training, a model with twice as many weights is assumed to
            process half as many tokens.
    """
    proposals = [_propose(task, shape, tokens) for shape in shapes]
    found = proposals[0]
    for proposal in proposals:
        affordable = tokens if timed.train.minutes is None else tokens * timed.num_multiplied / proposal.num_multiplied
        needed = tokens_needed(task.scaling, proposal.model.num_layers, proposal.num_weights)
        if effective_tokens(affordable, task.num_tokens) >= needed:
            found = proposal
    return found


def _propose(task: _Task, shape: tuple[int, int], tokens: float) -> _Proposal:
    """Return all settings for a model with this number of layers and units that will process `tokens` tokens."""
    return _Proposal(model=_propose_model(task, shape, tokens), train=_propose_training(task, shape, tokens))


def _propose_model(task: _Task, shape: tuple[int, int], tokens: float) -> ModelConfig:
    given, (layers, hidden) = task.given, shape
    can_tie = not given.get("freeze_embeddings") and given.get("embedding_dim") in (None, hidden)
    tie = given.get("tie_weights", task.words and can_tie)
    settings: dict[str, Any] = {
        "num_layers": layers,
        "hidden_size": hidden,
        "embedding_dim": hidden if tie else ModelConfig.embedding_dim,
        "tie_weights": tie,
        "skip_connections": layers > 1 and not task.words,
        **given,
        "vocab_size": task.vocab_size,
    }
    chosen = Dropouts()
    if not task.is_short:
        size = weights_per_token(ModelConfig.pick(settings)) / task.num_tokens
        chosen = dropouts(tokens / task.num_tokens, words=task.words, size=size)
    return ModelConfig.pick({**asdict(chosen), **settings})


def _propose_training(task: _Task, shape: tuple[int, int], tokens: float) -> TrainConfig:
    given = task.given
    seq_len, batch_size = _propose_batch(task, tokens)
    rate: float = TrainConfig.learning_rate if task.is_short else peak_learning_rate(task.scaling, *shape)
    rate = given.get("learning_rate", rate)
    decay = TrainConfig.weight_decay
    if not task.is_short and not task.words and "weight_decay" not in given:
        decay = weight_decay(rate, task.num_tokens / (batch_size * task.mean_tokens(seq_len)))
    return TrainConfig.pick(
        {
            "softmax_samples": default_softmax_samples(task.vocab_size, words=task.words),
            "weight_decay": decay,
            **given,
            "learning_rate": rate,
            "seq_len": seq_len,
            "batch_size": batch_size,
        }
    )


def _propose_batch(task: _Task, tokens: float) -> tuple[int, int]:
    """Return the number of tokens per stream and the number of streams, reduced to fit the length of the text.

    For a list, return the maximum number of tokens per item and update, and the number of items. An update has about as
    many tokens as for a text.
    """
    seq_len: int = task.given.get("seq_len", WORD_SEQ_LEN if task.words else TrainConfig.seq_len)
    batch_size = TrainConfig.batch_size
    if task.words:
        batch_size = WORD_BATCH_SIZE
    elif not task.is_short:
        batch_size = default_batch_size(tokens, seq_len, on_gpu=task.on_gpu)
    if task.items is not None:
        update_tokens = batch_size * seq_len
        longest = task.items.longest
        seq_len = min(longest, task.given.get("seq_len", MAX_ITEM_WORDS if task.words else MAX_ITEM_CHARS))
        batch_size = max(MIN_ITEMS, min(MAX_ITEMS, round(update_tokens / task.mean_tokens(seq_len))))
        return seq_len, min(task.given.get("batch_size", batch_size), task.items.count)
    batch_size = task.given.get("batch_size", batch_size)
    seq_len = max(1, min(seq_len, task.num_tokens))
    return seq_len, max(1, min(batch_size, task.num_tokens // seq_len))


def weights_per_token(config: ModelConfig, samples: int = 0) -> int:
    """Return the number of weights of the layers and of the decoder that each token is multiplied with.

    Args:
        config: Shape of the model.
        samples: Number of decoder rows sampled per update; 0 for all.
    """
    layers = sum(math.prod(shape) for name, shape in tensor_shapes(config).items() if "weight_" in name)
    return layers + min(config.vocab_size, samples or config.vocab_size) * config.hidden_size


def _notes(task: _Task, train: TrainConfig, *, has_length: bool) -> list[str]:
    """Return messages about a length that was chosen, and about a batch that was reduced to fit the text."""
    notes = []
    if not has_length:
        notes.append(f"no training length given: training {_length_text(train)}")
    streams, length = train.batch_size, train.seq_len
    if task.items is not None:
        return notes
    if length == task.num_tokens or streams == task.num_tokens // length:
        notes.append(f"the text has only {task.num_tokens:,} tokens: {streams} stream(s) of {length} tokens per update")
    return notes


def _length_text(train: TrainConfig) -> str:
    if train.steps is not None:
        return f"for {train.steps} updates"
    limit = f"{train.epochs:g} epochs" if train.epochs is not None else f"{train.minutes:g} minutes"
    return f"until the validation loss stops falling, for at most {limit}"
