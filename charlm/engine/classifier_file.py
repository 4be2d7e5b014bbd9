"""Reader and writer of the files of classifiers.

A classifier is one safetensors file, as a language model is, with another mark in its header. The header also has the
labels, and the weights with which the network and the counts are combined. docs/checkpoint-format.md specifies it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from charlm.classifier_config import ClassifierConfig
from charlm.engine.checkpoint import (
    CLASSIFIER_FORMAT,
    FORMAT,
    MAX_WEIGHT,
    METADATA_KEY,
    RESUME_PREFIX,
    Tensors,
    check_shapes,
    check_weights,
    core_shapes,
    open_model_file,
    parse_model,
    parse_parts,
    write_model_file,
)
from charlm.engine.combination import MAX_WEIGHT as MAX_PART_WEIGHT
from charlm.engine.naive_bayes import ClassWeights, NaiveBayes
from charlm.engine.tensorfile import TensorFile, parse_json
from charlm.errors import CheckpointError
from charlm.text.labelled import MAX_LABEL_CHARS
from charlm.text.tokenizer import Tokenizer, tokenizer_from_dict

CLASSIFIER_VERSION = 1

COUNTS_KEY, COUNTS_PREFIX = "counts", "counts/"
"""Header key of the tokenizer of the counts, and prefix of the names of their tensors."""

PARTS = ("network", "words", "spelling", "prior")
"""Parts of a classifier whose logits are added with weights."""


@dataclass(frozen=True, kw_only=True)
class ClassifierCheckpoint:
    """Content of the file of a classifier.

    Attributes:
        config: Shape of the network.
        labels: Names of the classes.
        tokenizer: Tokenizer of the network.
        tensors: Weights of the network by name. The trainer's state, if it was read, has names that start with
            `RESUME_PREFIX`.
        prior: Logarithm of the share of each class among the samples.
        counts: The count part; None if there is none.
        weights: Weights with which the logits of the parts are added, by the names in `PARTS`.
        metadata: Origin of the model: samples, command, versions, training settings, metrics.
    """

    config: ClassifierConfig
    labels: tuple[str, ...]
    tokenizer: Tokenizer
    tensors: Tensors
    prior: tuple[float, ...]
    counts: NaiveBayes | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: {**dict.fromkeys(PARTS, 0.0), "network": 1.0})
    metadata: dict[str, Any] = field(default_factory=dict)


def classifier_shapes(config: ClassifierConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every weight of the network."""
    return {
        "embedding.weight": (config.vocab_size, config.embedding_dim),
        **core_shapes(config.core, directions=2 if config.bidirectional else 1),
        "head.weight": (config.num_classes, config.pooled_size),
        "head.bias": (config.num_classes,),
    }


def _kinds(counts: NaiveBayes) -> dict[str, ClassWeights]:
    """Return the weights of a count part by the names of their kinds."""
    return {"words": counts.words, "spelling": counts.spelling}


def num_classifier_parameters(checkpoint: ClassifierCheckpoint) -> int:
    """Return the number of weights of a classifier."""
    network = sum(math.prod(shape) for shape in classifier_shapes(checkpoint.config).values())
    return network + (
        0 if checkpoint.counts is None else sum(part.weights.size for part in _kinds(checkpoint.counts).values())
    )


def save_classifier(path: Path, checkpoint: ClassifierCheckpoint, *, keep: Path | None = None) -> None:
    """Write the file of a classifier. If writing fails, the file that was there before stays as it was.

    Args:
        path: The file to write.
        checkpoint: The content.
        keep: New name for the file that was at `path` before; None to replace that file.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    header = {
        "format": CLASSIFIER_FORMAT,
        "format_version": str(CLASSIFIER_VERSION),
        "config": json.dumps(asdict(checkpoint.config)),
        "tokenizer": json.dumps(checkpoint.tokenizer.to_dict()),
        "classes": json.dumps({"labels": checkpoint.labels, "prior": checkpoint.prior, "weights": checkpoint.weights}),
        METADATA_KEY: json.dumps(checkpoint.metadata),
    }
    tensors = dict(checkpoint.tensors)
    if checkpoint.counts is not None:
        header[COUNTS_KEY] = json.dumps(checkpoint.counts.tokenizer.to_dict())
        for kind, part in _kinds(checkpoint.counts).items():
            tensors[f"{COUNTS_PREFIX}{kind}.keys"] = part.keys
            tensors[f"{COUNTS_PREFIX}{kind}.weights"] = part.weights
    write_model_file(path, header, tensors, keep=keep)


def load_classifier(path: Path, *, with_resume: bool = False) -> ClassifierCheckpoint:
    """Read and check the file of a classifier.

    Args:
        path: The file.
        with_resume: Whether to read the trainer's state too.

    Raises:
        CheckpointError: If the file is missing, damaged, no classifier, or written by a newer version of the format.
    """
    with open_model_file(path) as file:
        if file.metadata.get("format") == FORMAT:
            raise CheckpointError(
                f"{path}: a language model, not a classifier; train a classifier with charlm classify train, for "
                "instance --from this model"
            )
        parts = parse_parts(
            file.metadata,
            path,
            ("config", "tokenizer", "classes", METADATA_KEY),
            file_format=CLASSIFIER_FORMAT,
            newest=CLASSIFIER_VERSION,
        )
        checkpoint = _parse_header(parts, path)
        shapes = classifier_shapes(checkpoint.config)
        others = (RESUME_PREFIX, COUNTS_PREFIX) if COUNTS_KEY in file.metadata else (RESUME_PREFIX,)
        check_shapes(path, shapes, file, others)
        names = [name for name in file.names if with_resume or not name.startswith(RESUME_PREFIX)]
        tensors = {name: file.read(name) for name in names if not name.startswith(COUNTS_PREFIX)}
        counts = _read_counts(path, checkpoint, file)
    check_weights(path, tensors, shapes)
    return ClassifierCheckpoint(**{**vars(checkpoint), "tensors": tensors, "counts": counts})


def is_classifier(path: Path) -> bool:
    """Return whether a file is marked as a classifier. It may still be damaged.

    Raises:
        CheckpointError: If the file cannot be read, or is no safetensors file.
    """
    with open_model_file(path) as file:
        return file.metadata.get("format") == CLASSIFIER_FORMAT


def _parse_header(parts: Mapping[str, dict[str, Any]], path: Path) -> ClassifierCheckpoint:
    """Return a checkpoint without tensors from the parsed entries of a header."""
    config, tokenizer = parse_model(parts, path, ClassifierConfig)
    try:
        labels, prior, weights = _parse_classes(parts["classes"], config.num_classes)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged header ({str(error)[:200]})") from None
    return ClassifierCheckpoint(
        config=config,
        labels=labels,
        tokenizer=tokenizer,
        tensors={},
        prior=prior,
        weights=weights,
        metadata=parts[METADATA_KEY],
    )


def _parse_classes(
    classes: Mapping[str, Any], num_classes: int
) -> tuple[tuple[str, ...], tuple[float, ...], dict[str, float]]:
    """Return labels, prior and weights from the entry `classes` of a header.

    Raises:
        ValueError: If one of them is invalid.
    """
    labels, prior, weights = classes.get("labels"), classes.get("prior"), classes.get("weights")
    if not isinstance(labels, list) or not isinstance(prior, list) or not isinstance(weights, dict):
        raise ValueError("no labels, prior or weights")
    if not all(isinstance(label, str) and 0 < len(label) <= MAX_LABEL_CHARS for label in labels):
        raise ValueError("a label is not a text")
    "".join(labels).encode("utf-8", "surrogateescape")
    if len(labels) != num_classes or len(set(labels)) != num_classes or len(prior) != num_classes:
        raise ValueError("the labels do not fit the number of classes")
    if not all(isinstance(value, int | float) and -1e4 <= value <= 0 for value in prior):
        raise ValueError("a prior is out of range")
    if weights.keys() != set(PARTS):
        raise ValueError("the weights do not fit the parts")
    if not all(isinstance(weight, int | float) and 0 <= weight <= MAX_PART_WEIGHT for weight in weights.values()):
        raise ValueError("a weight is out of range")
    return tuple(labels), tuple(map(float, prior)), {name: float(weight) for name, weight in weights.items()}


def _read_counts(path: Path, checkpoint: ClassifierCheckpoint, file: TensorFile) -> NaiveBayes | None:
    """Return the count part of a file, or None if it has none."""
    if COUNTS_KEY not in file.metadata:
        return None
    kinds = {f"{COUNTS_PREFIX}{name}.{part}": kind for name in ("words", "spelling") for part, kind in _NUMBERS.items()}
    if {name for name in file.names if name.startswith(COUNTS_PREFIX)} != kinds.keys():
        raise CheckpointError(f"{path}: damaged (tensors of the counts are missing or unknown)")
    for name, kind in kinds.items():
        if file.dtype(name).kind != kind:
            raise CheckpointError(f"{path}: damaged ({name} has the number format {file.dtype(name)})")
    try:
        header = parse_json(file.metadata[COUNTS_KEY], path)
        tokenizer = tokenizer_from_dict(header if isinstance(header, dict) else {})
        words, spelling = (
            ClassWeights(*(file.read(f"{COUNTS_PREFIX}{name}.{part}") for part in _NUMBERS))
            for name in ("words", "spelling")
        )
        counts = NaiveBayes(tokenizer, words, spelling)
        if counts.num_classes != checkpoint.config.num_classes:
            raise ValueError("the counts have another number of classes")
        if not all(np.abs(part.weights).max(initial=0) <= MAX_WEIGHT for part in (words, spelling)):
            raise ValueError("a weight of the counts is not finite")
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged counts ({str(error)[:200]})") from None
    return counts


_NUMBERS = {"keys": "i", "weights": "f"}
"""Tensors of each kind of counts, with the kind of their numbers."""
