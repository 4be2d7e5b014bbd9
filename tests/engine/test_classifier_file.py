import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from charlm.classifier_config import ClassifierConfig
from charlm.engine.classifier_file import (
    ClassifierCheckpoint,
    classifier_shapes,
    load_classifier,
    num_classifier_parameters,
    save_classifier,
)
from charlm.engine.naive_bayes import NaiveBayes
from charlm.engine.tensorfile import TensorFile
from charlm.errors import CheckpointError
from charlm.text.tokenizer import CharTokenizer

FILE = Path("c.safetensors")


@pytest.fixture
def checkpoint(rng: np.random.Generator) -> ClassifierCheckpoint:
    tokenizer = CharTokenizer.from_text("a good film, bad\n")
    config = ClassifierConfig(vocab_size=tokenizer.vocab_size, hidden_size=3, embedding_dim=2)
    shapes = classifier_shapes(config)
    return ClassifierCheckpoint(
        config=config,
        labels=("bad", "good"),
        tokenizer=tokenizer,
        tensors={name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
        prior=(-0.5, -1.0),
        counts=NaiveBayes.fit(["good film", "bad film"], np.array([1, 0]), 2),
        weights={"network": 0.5, "words": 0.25, "spelling": 0.125, "prior": 1.0},
        metadata={"command": "test"},
    )


def test_a_file_is_read_as_it_was_written(checkpoint: ClassifierCheckpoint) -> None:
    save_classifier(FILE, checkpoint)
    found = load_classifier(FILE)
    for name in ("config", "labels", "prior", "weights", "metadata"):
        assert getattr(found, name) == getattr(checkpoint, name)
    assert found.counts is not None
    assert checkpoint.counts is not None
    np.testing.assert_array_equal(found.counts.words.weights, checkpoint.counts.words.weights)
    np.testing.assert_array_equal(found.counts.spelling.keys, checkpoint.counts.spelling.keys)
    assert {name: array.shape for name, array in found.tensors.items()} == classifier_shapes(found.config)
    assert num_classifier_parameters(found) == sum(
        array.size for array in [*found.tensors.values(), found.counts.words.weights, found.counts.spelling.weights]
    )


def header_of(path: Path) -> dict[str, str]:
    with path.open("rb") as stream:
        return TensorFile(stream, path).metadata


CLASSES = {
    "labels": ["a", "b"],
    "prior": [-1, -1],
    "weights": dict.fromkeys(("network", "words", "spelling", "prior"), 1),
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a charlm model"),
        ({"format_version": "99"}, "newer charlm"),
        ({"config": "[]"}, "no config"),
        ({"config": '{"num_classes": 1}'}, "damaged header"),
        ({"classes": "{}"}, "no labels"),
        ({"classes": json.dumps(CLASSES | {"labels": ["a"]})}, "do not fit"),
        ({"classes": json.dumps(CLASSES | {"labels": ["a", "a"]})}, "do not fit"),
        ({"classes": json.dumps(CLASSES | {"labels": ["a", 1]})}, "not a text"),
        ({"classes": json.dumps(CLASSES | {"prior": [0.5, -1]})}, "prior"),
        ({"classes": json.dumps(CLASSES | {"prior": [float("nan"), -1]})}, "prior"),
        ({"classes": json.dumps(CLASSES | {"weights": {}})}, "do not fit the parts"),
        ({"classes": json.dumps(CLASSES | {"weights": CLASSES["weights"] | {"words": -1}})}, "weight is out of range"),
        ({"counts": "{}"}, "damaged counts"),
    ],
)
def test_a_damaged_header_is_an_error(checkpoint: ClassifierCheckpoint, change: dict[str, str], message: str) -> None:
    save_classifier(FILE, checkpoint)
    header = header_of(FILE)
    save_file(load_file(FILE), FILE, header | change)
    with pytest.raises(CheckpointError, match=message):
        load_classifier(FILE)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("head.bias", np.array([np.nan, 0], dtype=np.float32)),
        ("head.bias", np.zeros(3, dtype=np.float32)),
        ("unknown", np.zeros(3, dtype=np.float32)),
        ("counts/words.keys", np.array([2, 1])),
        ("counts/words.keys", np.array([0.5])),
        ("counts/words.weights", np.zeros((1, 2), dtype=np.float32)),
        ("counts/other.weights", np.zeros((1, 2), dtype=np.float32)),
    ],
)
def test_damaged_tensors_are_errors(checkpoint: ClassifierCheckpoint, name: str, array: np.ndarray) -> None:
    save_classifier(FILE, checkpoint)
    save_file(load_file(FILE) | {name: array}, FILE, header_of(FILE))
    with pytest.raises(CheckpointError, match="damaged"):
        load_classifier(FILE)


def test_a_missing_tensor_is_an_error(checkpoint: ClassifierCheckpoint) -> None:
    save_classifier(FILE, checkpoint)
    header, tensors = header_of(FILE), load_file(FILE)
    for name in tensors:
        save_file({other: array for other, array in tensors.items() if other != name}, FILE, header)
        with pytest.raises(CheckpointError, match="damaged"):
            load_classifier(FILE)
