"""Model files with a network and an n-gram model: what is kept, and what is refused."""

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from charlm.engine.checkpoint import Checkpoint, NGramPart, load_checkpoint, num_parameters, save_checkpoint
from charlm.engine.mixture import open_predictor
from charlm.engine.tensorfile import TensorFile
from charlm.errors import CheckpointError
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import GATE, make_checkpoint, make_counts, make_mixture, make_ngram_model

MIXTURE = make_mixture(num_layers=2)
GATED = replace(MIXTURE, counts=make_counts(MIXTURE.tokenizer, gate=GATE))
ENCODED = [MIXTURE.tokenizer.encode(text) for text in ("\nTo be, or not to be", "\n", "\nqzx % To")]


@pytest.mark.parametrize("checkpoint", [MIXTURE, GATED, make_ngram_model()], ids=["mixture", "gated", "ngram"])
def test_a_file_keeps_the_counts(checkpoint: Checkpoint) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, checkpoint)
    loaded = load_checkpoint(path)
    assert loaded.counts is not None
    assert checkpoint.counts is not None
    assert loaded.counts.weight == checkpoint.counts.weight
    gates = [part.gate and part.gate.coefficients.tolist() for part in (loaded.counts, checkpoint.counts)]
    assert gates[0] == gates[1]
    assert loaded.tensors.keys() == checkpoint.tensors.keys()
    before, after = open_predictor(checkpoint), open_predictor(loaded)
    np.testing.assert_array_equal(before.score(ENCODED[:1]).nats, after.score(ENCODED[:1]).nats)
    np.testing.assert_array_equal(before.read(ENCODED).logits(), after.read(ENCODED).logits())


def test_a_file_without_counts_says_nothing_of_them() -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, replace(MIXTURE, counts=None))
    assert b"ngram" not in path.read_bytes()


def test_a_model_without_a_network_has_no_weights() -> None:
    checkpoint = make_ngram_model()
    assert num_parameters(checkpoint.config) == 0
    assert num_parameters(MIXTURE.config) > 0


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan, math.inf])
def test_a_weight_out_of_range_is_an_error(weight: float) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, make_mixture(weight=weight))
    with pytest.raises(CheckpointError, match=r"the weight of the n-gram model is .*, not from 0 to 1"):
        load_checkpoint(path)


def test_files_whose_parts_do_not_fit_are_errors() -> None:
    path = Path("model.safetensors")
    counts = make_counts(CharTokenizer.from_text("abc"), "abcabc")
    save_checkpoint(path, replace(MIXTURE, counts=counts))
    with pytest.raises(CheckpointError, match=r"damaged n-gram model .4 tokens for a vocabulary of"):
        load_checkpoint(path)
    ngram_only = make_ngram_model()
    save_checkpoint(path, replace(ngram_only, counts=None))
    with pytest.raises(CheckpointError, match="neither a network nor an n-gram model"):
        load_checkpoint(path)
    save_checkpoint(path, replace(ngram_only, counts=make_counts(ngram_only.tokenizer, weight=0.5)))
    with pytest.raises(CheckpointError, match=r"is 0\.5, not 1 without a network"):
        load_checkpoint(path)
    save_checkpoint(path, replace(ngram_only, tensors=make_checkpoint()[1].tensors))
    with pytest.raises(CheckpointError, match="unknown tensor"):
        load_checkpoint(path)


def damaged(name: str, index: int, value: float) -> Checkpoint:
    """A mixture with one number of its n-gram model changed, as no text gives it."""
    counts = make_mixture().counts
    assert counts is not None
    tensors = {key: array.copy() for key, array in counts.ngram.to_tensors().items()}
    tensors[name] = tensors[name].astype(np.int32 if tensors[name].dtype.kind == "u" else tensors[name].dtype)
    tensors[name][index] = value
    ngrams = SimpleNamespace(to_tensors=lambda: tensors)
    return replace(MIXTURE, counts=NGramPart(ngram=ngrams, weight=counts.weight))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [
        ("tokens.2", 2, 0),
        ("tokens.3", 0, 99),
        ("counts.2", 1, 40),
        ("counts.4", 0, -1),
        ("counts.3", 0, 2**31 - 1),
        ("weights.1", 3, math.nan),
        ("weights.2", 0, 1.0),
        ("weights.4", 0, -0.5),
        ("weights.4", 0, math.inf),
    ],
)
def test_files_with_damaged_counts_are_errors(name: str, index: int, value: float) -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, damaged(name, index, value))
    with pytest.raises(CheckpointError, match=rf"^model\.safetensors: damaged n-gram model \({name}: "):
        load_checkpoint(path)


def load_with_entry(checkpoint: Checkpoint, entry: str) -> Checkpoint:
    """Load a model file whose header has another entry for the n-gram model."""
    path = Path("model.safetensors")
    save_checkpoint(path, checkpoint)
    with path.open("rb") as stream:
        file = TensorFile(stream, path)
        tensors = {name: file.read(name) for name in file.names}
    path.write_bytes(save(tensors, {**file.metadata, "ngram": entry}))
    return load_checkpoint(path)


HUGE = "1" + "0" * 400
ROW = "[1, 2, 3, 4]"


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "null",
        "[]",
        "{}",
        "{",
        '{"weight": true}',
        '{"weight": "0.5"}',
        '{"weight": null}',
        '{"weight": 0.5, "more": 1}',
        '{"weight": 0.5, "weight": 0.5}',
        f'{{"gate": [{ROW}, {ROW}]}}',
        f'{{"weight": 0.5, "gate": [{ROW}, {ROW}], "more": 1}}',
        f'{{"weight": 0.5, "Gate": [{ROW}, {ROW}]}}',
        f'{{"weight": 0.5, "gate": [{ROW}, {ROW}], "gate": [{ROW}, {ROW}]}}',
        f'{{"weight": true, "gate": [{ROW}, {ROW}]}}',
        f'{{"weight": 2, "gate": [{ROW}, {ROW}]}}',
        f'{{"weight": NaN, "gate": [{ROW}, {ROW}]}}',
        f'{{"weight": 1e400, "gate": [{ROW}, {ROW}]}}',
        f'{{"weight": {HUGE}}}',
        f'{{"weight": -{HUGE}, "gate": [{ROW}, {ROW}]}}',
        f'{{"weight": {"9" * 9000}}}',
        f'{{"weight": 0.5, "gate": {"[" * 30}1{"]" * 30}}}',
        f'{{"weight": 0.5, "gate": {"[" * 99999}',
        f'{{"weight": 0.5, "gate": [{ROW}, [1, 2, 3, {"9" * 9000}]]}}',
    ],
    ids=lambda entry: entry[:40],
)
def test_headers_without_a_weight_are_errors(entry: str) -> None:
    with pytest.raises(
        CheckpointError, match=r"^model\.safetensors: (damaged|not a model file, or a damaged) header"
    ) as e:
        load_with_entry(MIXTURE, entry)
    assert len(str(e.value)) < 300


@pytest.mark.parametrize(
    "gate",
    [
        "null",
        "true",
        "0.5",
        '"gate"',
        "{}",
        "[]",
        ROW,
        f"[{ROW}]",
        f"[{ROW}, {ROW}, {ROW}]",
        f"[[{ROW}, {ROW}]]",
        f'{{"0": {ROW}, "1": {ROW}}}',
        "[[], []]",
        "[[1, 2, 3], [1, 2, 3]]",
        "[[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]",
        f"[{ROW}, [1, 2, 3]]",
        f"[{ROW}, [1, 2, 3, [4]]]",
        f"[[[1], [2], [3], [4]], {ROW}]",
        f'[{ROW}, "1234"]',
        f"[{ROW}, null]",
        *(
            f"[{ROW}, [1, {number}, 3, 4]]"
            for number in (
                '"2"',
                "true",
                "false",
                "null",
                "{}",
                "NaN",
                "Infinity",
                "-Infinity",
                "1e400",
                "-1e400",
                HUGE,
                f"-{HUGE}",
                "1e300",
                "1000.0001",
                "-1001",
                f"{2**64}",
            )
        ),
    ],
    ids=lambda gate: gate[:40],
)
def test_damaged_gates_are_errors(gate: str) -> None:
    message = r"^model\.safetensors: damaged n-gram model \(a gate that is not two lists of 4 numbers up to 1000\)$"
    with pytest.raises(CheckpointError, match=message):
        load_with_entry(MIXTURE, f'{{"weight": 0.5, "gate": {gate}}}')


@pytest.mark.parametrize("number", ["0", "-0.0", "1000", "-1000.0", "1e-400", "5e-324", "12.5"])
def test_a_gate_of_any_allowed_numbers_is_read(number: str) -> None:
    counts = load_with_entry(MIXTURE, f'{{"gate": [[0, {number}, 3, 4.5], {ROW}], "weight": 0}}').counts
    assert counts is not None
    assert counts.gate is not None
    assert counts.gate.coefficients.tolist() == [[0, float(number), 3, 4.5], [1, 2, 3, 4]]


@pytest.mark.parametrize("gate", [f"[{ROW}, {ROW}]", "null", "[[NaN]]"])
def test_a_gate_without_a_network_is_an_error(gate: str) -> None:
    with pytest.raises(CheckpointError, match=r"^model\.safetensors: damaged header \(a gate without a network\)$"):
        load_with_entry(make_ngram_model(), f'{{"weight": 1.0, "gate": {gate}}}')


NUMBERS = st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=2)
GATES = st.lists(st.lists(NUMBERS, min_size=3, max_size=5), max_size=3) | st.lists(
    st.lists(st.floats(-1001, 1001) | st.integers(-1001, 1001), min_size=4, max_size=4), min_size=2, max_size=2
)


@given(GATES)
def test_random_gates_are_errors_or_interpolate(rows: list[list[object]]) -> None:
    is_valid = [len(row) for row in rows] == [4, 4] and all(map(is_coefficient, itertools.chain(*rows)))
    try:
        loaded = load_with_entry(MIXTURE, json.dumps({"weight": 0.5, "gate": rows}))
    except CheckpointError as error:
        assert re.fullmatch(r"model\.safetensors: damaged n-gram model \(a gate that is .*\)", str(error))  # noqa: PT017
        assert not is_valid
        return
    assert is_valid
    for num_sequences in (1, 12):
        probs = open_predictor(loaded).read([ENCODED[0]] * num_sequences).probs()
        np.testing.assert_allclose(probs.sum(axis=-1, dtype=float), 1, atol=1e-5)


def is_coefficient(number: object) -> bool:
    return type(number) in (int, float) and -1000 <= number <= 1000  # type: ignore[operator]


def test_an_absent_array_of_the_counts_is_an_error() -> None:
    path = Path("model.safetensors")
    save_checkpoint(path, MIXTURE)
    with path.open("rb") as stream:
        file = TensorFile(stream, path)
        tensors = {name: file.read(name) for name in file.names}
    for name in list(tensors):
        if name.startswith("ngram/"):
            path.write_bytes(save({key: array for key, array in tensors.items() if key != name}, file.metadata))
            with pytest.raises(CheckpointError, match="damaged n-gram model"):
                load_checkpoint(path)
    without_key = {key: text for key, text in file.metadata.items() if key != "ngram"}
    path.write_bytes(save(tensors, without_key))
    with pytest.raises(CheckpointError, match="unknown tensor 'ngram/"):
        load_checkpoint(path)
