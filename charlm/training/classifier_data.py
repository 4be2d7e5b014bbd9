"""Samples of a classifier: labelled texts with their token ids, and their division into training and validation."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from charlm.engine.text_classifier import encode_text
from charlm.errors import CorpusError
from charlm.text.ids import Ids
from charlm.text.labelled import Labelled, Sample, classes_text
from charlm.text.tokenizer import Tokenizer

BUCKET_BATCHES = 20
"""Number of batches whose texts are sorted by length together, so that a batch has little padding."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Samples for training and for validation.

    Attributes:
        labels: Names of the classes.
        train: Samples to learn from, in random order.
        validation: Samples for validation.
    """

    labels: tuple[str, ...]
    train: Sequence[Sample]
    validation: Sequence[Sample]

    def indices(self, samples: Sequence[Sample]) -> Labels:
        """Return the index of the class of each sample, (N,), int64."""
        places = {label: index for index, label in enumerate(self.labels)}
        return np.array([places[sample.label] for sample in samples], dtype=np.int64)


def split_samples(found: Labelled, validation: Labelled | None, val_fraction: float, seed: int) -> Split:
    """Divide samples into training and validation.

    Without separate samples for validation, a share of each class is taken: the split is stratified. A class with only
    one sample is used for training.

    Args:
        found: The samples.
        validation: Separate samples for validation; None to take a share of the others.
        val_fraction: That share.
        seed: Seed of the random choice.

    Raises:
        CorpusError: If there is only one class, no class has two samples, or validation has another class.
    """
    labels = tuple(found.counts)
    if len(labels) < 2:
        raise CorpusError(
            f"{found.samples[0].source}: all samples have the label {labels[0]!r}; a classifier needs two classes"
        )
    train = list(found.samples)
    random.Random(seed).shuffle(train)
    if validation is not None:
        check_labels(validation.samples, labels)
        return Split(labels=labels, train=train, validation=validation.samples)
    taken: dict[str, int] = {
        label: min(count - 1, max(1, round(val_fraction * count))) for label, count in found.counts.items()
    }
    held_out, rest = [], []
    for sample in train:
        if taken[sample.label]:
            taken[sample.label] -= 1
            held_out.append(sample)
        else:
            rest.append(sample)
    if not held_out:
        raise CorpusError(f"{found.samples[0].source}: each class has only one sample; give two or more of a class")
    return Split(labels=labels, train=rest, validation=held_out)


def check_labels(samples: Sequence[Sample], labels: Sequence[str]) -> None:
    """Check that a classifier knows the classes of samples.

    Raises:
        CorpusError: If it does not.
    """
    known = set(labels)
    for sample in samples:
        if sample.label not in known:
            raise CorpusError(
                f"{sample.source}: line {sample.number:,}: the class {sample.label[:80]!r} is unknown to the "
                f"classifier, which has {classes_text(labels)}"
            )


def samples_hash(samples: Sequence[Sample]) -> str:
    """Return a hash of the labels and texts of samples, to recognise them when a training is resumed."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.label}\0{sample.text}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class EncodedSamples:
    """Samples as the network reads them.

    Attributes:
        ids: Token ids of each text, at least one each.
        labels: Index of the class of each text, (N,), int64.
    """

    ids: Sequence[Ids]
    labels: Labels

    @classmethod
    def encode(
        cls, samples: Sequence[Sample], labels: Labels, tokenizer: Tokenizer, max_tokens: int
    ) -> "EncodedSamples":
        """Return samples with the ids of the first `max_tokens` tokens of their texts."""
        return cls(ids=[encode_text(tokenizer, sample.text)[:max_tokens] for sample in samples], labels=labels)

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """Return the indices of the samples of each batch of an epoch, in an order that depends on seed and epoch."""
        rng = random.Random(f"{seed} {epoch}")
        order = list(range(len(self.ids)))
        rng.shuffle(order)
        batches: list[list[int]] = []
        for begin in range(0, len(order), BUCKET_BATCHES * batch_size):
            bucket = sorted(order[begin : begin + BUCKET_BATCHES * batch_size], key=lambda index: len(self.ids[index]))
            batches += [bucket[start : start + batch_size] for start in range(0, len(bucket), batch_size)]
        rng.shuffle(batches)
        return batches
