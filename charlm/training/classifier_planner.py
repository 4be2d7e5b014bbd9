"""Plan of the training of a classifier: the settings that are not given, from the samples and the time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from charlm.classifier_config import ClassifierConfig, ClassifierTrainConfig
from charlm.config import ModelConfig
from charlm.text.tokenizer import Tokenizer
from charlm.training.planner import too_short

if TYPE_CHECKING:
    from charlm.training.classifier_data import EncodedSamples, Split
    from charlm.training.throughput import Machine

MAX_WORD_CHARS = 15
"""Mean length of words, in characters, above which a text is read character by character, because its script does not
separate words by spaces."""

MIN_EPOCHS, MAX_EPOCHS = 4, 30
"""Limits of the number of passes over the samples."""

EPOCHS_FACTOR = 60
"""Number of epochs times the square root of the number of updates per epoch: 5 epochs of 9,600 samples, 25 of 200."""

MAX_CHAR_TOKENS = 1500
"""Number of characters of a text that a network of characters reads."""

FEW_SAMPLES, MANY_SAMPLES = 2000, 50_000
"""Numbers of samples up to which the network is smaller, or an encoder frozen, and from which it is larger."""

TIMED_UPDATES = 3
"""Number of updates that are timed."""

TIME_SHARE = 0.85
"""Share of the remaining time that is planned for updates. The rest is for validations, counts and saving."""

FINE_TUNING_RATE = 5e-3
"""Peak learning rate of the head if the encoder is pretrained; the rates of the other weights are lower."""


@dataclass(frozen=True, kw_only=True)
class ClassifierPlan:
    """All settings of a training.

    Attributes:
        model: Shape of the network.
        train: Settings of the training.
        steps: Number of updates; 0 if only the output layer is trained.
        epochs: Number of passes over the samples.
        given: Field names of the settings that were given; all others were chosen.
        notes: Messages for the user about the plan.
    """

    model: ClassifierConfig
    train: ClassifierTrainConfig
    steps: int
    epochs: float = 0.0
    given: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def choose_tokenizer(texts: Sequence[str]) -> str:
    """Return `word` if spaces separate the words of texts, else `char`."""
    num_chars = sum(map(len, texts))
    num_words = sum(len(text.split()) for text in texts)
    return "word" if num_chars <= MAX_WORD_CHARS * num_words else "char"


def plan_classifier(
    split: "Split",
    tokenizer: Tokenizer,
    given: Mapping[str, Any],
    machine: "Machine",
    *,
    encoder: ModelConfig | None = None,
) -> ClassifierPlan:
    """Choose the settings that are not given.

    Args:
        split: The samples.
        tokenizer: Tokenizer of the network.
        given: Settings by field name.
        machine: The machine that will train.
        encoder: Shape of the language model whose encoder is used, or None.

    Raises:
        ConfigError: If a setting is out of its range, or the time is too short.
    """
    # 1. Choose the network by the number of samples.
    num_samples = len(split.train)
    size = 64 if num_samples <= FEW_SAMPLES else 96 if num_samples < MANY_SAMPLES else 192
    chosen: dict[str, Any] = {
        "hidden_size": size,
        "max_tokens": ClassifierConfig.max_tokens if tokenizer.kind == "word" else MAX_CHAR_TOKENS,
        "learning_rate": FINE_TUNING_RATE if encoder else ClassifierTrainConfig.learning_rate,
        **given,
    }
    model = ClassifierConfig.pick({**chosen, "vocab_size": tokenizer.vocab_size, "num_classes": len(split.labels)})
    train = ClassifierTrainConfig.pick(chosen)
    if encoder is None or train.freeze_encoder is None:
        train = replace(train, freeze_encoder=encoder is not None and num_samples <= FEW_SAMPLES)

    # 2. Choose the number of updates, or as many as the time permits.
    per_epoch = math.ceil(num_samples / train.batch_size)
    epochs = train.epochs or max(MIN_EPOCHS, min(MAX_EPOCHS, round(EPOCHS_FACTOR / math.sqrt(per_epoch)) + 1))
    steps = epochs * per_epoch
    if train.freeze_encoder:
        steps, epochs = 0, 0
    elif train.minutes is not None:
        steps = min(steps, _affordable_steps(split, tokenizer, model, train, machine))
    train = replace(train, threads=_num_threads())
    notes: tuple[str, ...] = (f"no training length given: training for {epochs} epochs",)
    if train.freeze_encoder:
        notes = ("few samples: only the output layer is trained, and the encoder stays as it is",)
    elif train.epochs or train.minutes:
        notes = ()
    names = {spec.name for config in (model, train) for spec in fields(config)}
    return ClassifierPlan(
        model=model,
        train=train,
        steps=steps,
        epochs=steps / per_epoch,
        given=frozenset(names & given.keys()),
        notes=notes,
    )


def _num_threads() -> int:
    import torch

    return torch.get_num_threads()


def _affordable_steps(
    split: "Split", tokenizer: Tokenizer, model: ClassifierConfig, train: ClassifierTrainConfig, machine: "Machine"
) -> int:
    """Return the number of updates for which the time suffices.

    Raises:
        ConfigError: If it does not suffice for one.
    """
    from charlm.training.classifier_data import EncodedSamples

    assert train.minutes is not None, "there is a time limit"
    part = split.train[: TIMED_UPDATES * train.batch_size]
    samples = EncodedSamples.encode(part, split.indices(part), tokenizer, model.max_tokens)
    seconds = _time_update(samples, model, train, machine)
    left = TIME_SHARE * (60 * train.minutes - machine.seconds_used())
    steps = int(left / seconds)
    if steps < 1:
        raise too_short(train.minutes, " for one update", machine.seconds_used() + 5 * seconds)
    return steps


def _time_update(
    samples: "EncodedSamples", model: ClassifierConfig, train: ClassifierTrainConfig, machine: "Machine"
) -> float:
    """Return the duration of an update in seconds, measured with a network of random weights."""
    import torch

    from charlm.training.classifier_model import ClassifierModel
    from charlm.training.classifier_trainer import tensors_of

    network = ClassifierModel(model).to(machine.device)
    batches = samples.batches(train.batch_size, train.seed, 0)
    durations = []
    for batch in batches[:TIMED_UPDATES]:
        began = machine.clock()
        ids, lengths, labels = tensors_of(samples, batch, machine.device)
        loss = torch.nn.functional.cross_entropy(network(ids, lengths), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        durations.append(machine.clock() - began)
    return max(1e-4, sorted(durations)[len(durations) // 2])
