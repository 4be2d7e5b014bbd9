import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from charlm.config import ModelConfig
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, tensor_shapes
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import score_text
from charlm.errors import CheckpointError
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import make_checkpoint

DATA = Path(__file__).parents[1] / "data"

Header = dict[str, Any]


def change_header(path: Path, change: Callable[[Header], object]) -> Path:
    """Change the header of a file and keep its tensors. `change` edits the header or returns a new one."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    new = json.dumps(change(header) or header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])
    return path


def with_part(name: str, **changes: object) -> Callable[[Header], None]:
    """Return a function that changes values in one of the JSON strings of the header."""

    def change(header: Header) -> None:
        part = json.loads(header["__metadata__"][name])
        header["__metadata__"][name] = json.dumps(part | changes)

    return change


def with_metadata(**changes: str | int) -> Callable[[Header], None]:
    """Return a function that changes strings of the header."""
    return lambda header: header["__metadata__"].update(changes)


def with_tensor(name: str, **changes: object) -> Callable[[Header], None]:
    """Return a function that changes the header entry of a tensor."""
    return lambda header: header[name].update(changes)


@pytest.mark.parametrize("shape", [{}, {"cell": "gru", "num_layers": 2}, {"cell": "rnn", "tie_weights": True}])
def test_loaded_checkpoint_equals_the_saved_one(shape: dict[str, Any], tmp_path: Path) -> None:
    _, saved = make_checkpoint(**shape)
    save_checkpoint(tmp_path / "new" / "model.safetensors", saved)
    loaded = load_checkpoint(tmp_path / "new" / "model.safetensors")
    assert loaded.config == saved.config
    assert loaded.tokenizer.tokens == saved.tokenizer.tokens
    assert loaded.tensors.keys() == saved.tensors.keys() == tensor_shapes(saved.config).keys()
    for name, tensor in saved.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor)


def test_reader_agrees_with_the_safetensors_library(model_file: Path) -> None:
    ours = load_checkpoint(model_file)
    with safe_open(model_file, framework="numpy") as theirs:
        assert set(theirs.keys()) == set(ours.tensors)
        assert theirs.metadata()["format"] == "charlm"
        for name, tensor in ours.tensors.items():
            np.testing.assert_array_equal(theirs.get_tensor(name), tensor)


def test_version_1_file_is_read_and_gives_the_same_score() -> None:
    expected = json.loads((DATA / "version-1.json").read_text(encoding="utf-8"))
    model = load_checkpoint(DATA / "version-1.safetensors")
    assert model.config == ModelConfig(**expected["config"])
    assert list(model.tokenizer.tokens) == expected["tokens"]
    assert model.metadata["corpus"]["name"] == "hello"
    score = score_text(RecurrentNetwork(model), expected["text"])
    assert score.token_nats == pytest.approx(expected["nll_nats"], rel=1e-5)
    others = 0x110000 - (model.config.vocab_size - 1)
    assert score.spelling_nats == pytest.approx(score.num_unknown * math.log(others))
    with_state = load_checkpoint(DATA / "version-1.safetensors", with_resume=True)
    assert sorted(name for name in with_state.tensors if name.startswith("resume/")) == expected["resume"]
    assert with_state.metadata["resume"]["step"] == expected["step"]


def test_missing_setting_has_its_default_and_unknown_keys_are_ignored(model_file: Path) -> None:
    def delete_dropout(header: Header) -> None:
        config = json.loads(header["__metadata__"]["config"])
        del config["dropout"]
        header["__metadata__"] |= {"config": json.dumps(config), "comment": "not a key of the format"}

    assert load_checkpoint(change_header(model_file, delete_dropout)).config.dropout == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: [1], "the header is not a JSON object"),
        (lambda header: header.pop("__metadata__") and None, "not a charlm model"),
        (with_metadata(format="other"), "not a charlm model"),
        (with_metadata(format=7), "a metadata value is not a string"),
        (with_metadata(format_version="3"), r"written by a newer charlm \(format 3\); upgrade charlm"),
        (with_metadata(format_version="9" * 5000), "no format version"),
        (with_metadata(format_version="-1"), "no format version"),
        (with_metadata(config="{"), "damaged header"),
        (with_metadata(config="[]"), "no config"),
        (with_metadata(story="null"), "no story"),
        (with_metadata(story="[" * 10**5 + "]" * 10**5), "nested too deep"),
        (with_metadata(story='{"a":' * 20 + "1" + "}" * 20), "nested too deep"),
        (with_metadata(story='{"a": ' + "1" * 5000 + "}"), "damaged header"),
        (with_metadata(tokenizer="{}"), "invalid tokenizer"),
        (with_part("config", hidden_size=10**9), "hidden_size 1000000000: must be at most 65536"),
        (with_part("config", hidden_size=65536), "damaged"),
        (with_part("config", num_layers=64), "no tensor core.layers.1"),
        (with_part("config", hidden_size=12.0), "wrong type"),
        (with_part("config", hidden_size="12"), "wrong type"),
        (with_part("config", hidden_size=True), "wrong type"),
        (with_part("config", hidden_size=None), "wrong type"),
        (with_part("config", cell=["lstm"]), "wrong type"),
        (with_part("config", cell="gpt"), "cell gpt: must be one of"),
        (with_part("config", dropout=float("nan")), "must be a number"),
        (with_part("config", mixture=3), "unknown setting 'mixture'"),
        (with_part("tokenizer", chars="abc"), "a vocabulary of 4 tokens for"),
        (with_part("tokenizer", chars="aabc"), "tokenizer"),
        (with_part("tokenizer", chars=["a"]), "tokenizer"),
        (with_part("tokenizer", chars="\ud800" + "".join(map(chr, range(300, 330)))), "damaged"),
        (with_tensor("decoder.bias", dtype="I64"), "entry of tensor 'decoder.bias'"),
        (with_tensor("decoder.bias", dtype="F8"), "entry of tensor"),
        (with_tensor("decoder.bias", shape=[-1]), "entry of tensor"),
        (with_tensor("decoder.bias", shape=[2**62, 2**62]), "entry of tensor"),
        (with_tensor("decoder.bias", shape=[1.0]), "entry of tensor"),
        (with_tensor("decoder.bias", shape=[True]), "entry of tensor"),
        (with_tensor("decoder.bias", shape=[1] * 100), "entry of tensor"),
        (with_tensor("decoder.bias", data_offsets=[0, 2**63]), "entry of tensor"),
        (with_tensor("decoder.bias", data_offsets=[5]), "entry of tensor"),
        (with_tensor("core.layers.0.weight_ih_l0", shape=[12, 48]), "instead of floats of shape"),
        (lambda header: header.update(extra=header.pop("decoder.bias")), "no tensor decoder.bias"),
        (lambda header: header.update({"a\x1b[2J": {}}), "entry of tensor"),
    ],
)
def test_invalid_header_is_an_error(change: Callable[[Header], object], message: str, model_file: Path) -> None:
    change_header(model_file, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(model_file)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a model file"),
        (b"\x01", "not a model file"),
        (b"PK\x03\x04 a pickle in a zip", "not a model file"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated"),
        (struct.pack("<Q", 40 * 2**20) + b"{" + b" " * 40 * 2**20, "a header of 41,943,040 bytes"),
        (struct.pack("<Q", 10) + b"\xff" * 10, "damaged header"),
        (struct.pack("<Q", 10**6) + b"[" * 10**6, "damaged header"),
        (struct.pack("<Q", 16) + b'{"a": 1, "a": 2}', "duplicate name"),
    ],
    ids=["empty", "one byte", "zip", "endless header", "huge header", "not UTF-8", "deep", "duplicate name"],
)
def test_file_that_is_not_a_model_file_is_an_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_gaps_overlaps_and_a_wrong_file_size_are_errors(model_file: Path) -> None:
    whole = model_file.read_bytes()
    for data in (whole + b"\0", whole[:-1], whole[:-4000]):
        model_file.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            load_checkpoint(model_file)
    model_file.write_bytes(whole)

    def overlap(header: Header) -> None:
        first, second = (header[f"core.layers.0.bias_{part}_l0"] for part in ("ih", "hh"))
        second["data_offsets"] = first["data_offsets"]

    with pytest.raises(CheckpointError, match="overlap or leave gaps"):
        load_checkpoint(change_header(model_file, overlap))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_weights_that_are_not_finite_or_too_large_are_errors(value: float, tmp_path: Path) -> None:
    _, good = make_checkpoint()
    tensors = {name: np.array(tensor) for name, tensor in good.tensors.items()}
    tensors["decoder.weight"][3, 3] = value
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(config=good.config, tokenizer=good.tokenizer, tensors=tensors))
    with pytest.raises(CheckpointError, match=r"decoder\.weight has a weight that is not finite or above 1e\+09"):
        load_checkpoint(path)


def test_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = make_checkpoint()
    path = tmp_path / "run" / "model.safetensors"
    save_checkpoint(path, model)
    before = path.read_bytes()

    def raise_disk_full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, function, raise_disk_full)
            with pytest.raises(CheckpointError, match="No space left on device"):
                save_checkpoint(path, model)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_replaced_file_is_kept_under_another_name(tmp_path: Path) -> None:
    path, old = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    for step in range(3):
        _, model = make_checkpoint()
        save_checkpoint(path, Checkpoint(**(vars(model) | {"metadata": {"step": step}})), keep=old)
    assert [load_checkpoint(file).metadata["step"] for file in (path, old)] == [2, 1]


def test_tensors_without_dimensions_and_in_fortran_order_are_saved(tmp_path: Path) -> None:
    tokenizer = CharTokenizer("ab")
    config = ModelConfig(vocab_size=3, hidden_size=2, embedding_dim=2)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    tensors["embedding.weight"] = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    tensors["resume/step"] = np.array(7.0, dtype=np.float32)
    save_checkpoint(tmp_path / "a", Checkpoint(config=config, tokenizer=tokenizer, tensors=tensors))
    loaded = load_checkpoint(tmp_path / "a", with_resume=True).tensors
    assert loaded["resume/step"].shape == ()
    np.testing.assert_array_equal(loaded["embedding.weight"], tensors["embedding.weight"])
