import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from charlm.config import ModelConfig
from charlm.engine import checkpoint as checkpoint_module
from charlm.engine.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, tensor_shapes
from charlm.engine.rnn import RecurrentNetwork
from charlm.engine.scorer import score_text
from charlm.errors import CheckpointError
from charlm.text.tokenizer import CharTokenizer
from tests.conftest import make_checkpoint

DATA = Path(__file__).parents[1] / "data"

Header = dict[str, Any]


def rewritten(path: Path, change: Callable[[Header], object]) -> Path:
    """The file with its header changed; the tensors stay."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    new = json.dumps(change(header) or header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])
    return path


def with_part(name: str, **changes: object) -> Callable[[Header], None]:
    """Change one of the header's JSON texts."""

    def change(header: Header) -> None:
        part = json.loads(header["__metadata__"][name])
        header["__metadata__"][name] = json.dumps(part | changes)

    return change


def with_meta(**changes: str | int) -> Callable[[Header], None]:
    return lambda header: header["__metadata__"].update(changes)


def with_tensor(name: str, **changes: object) -> Callable[[Header], None]:
    return lambda header: header[name].update(changes)


@pytest.mark.parametrize("shape", [{}, {"cell": "gru", "num_layers": 2}, {"cell": "rnn", "tie_weights": True}])
def test_what_is_saved_is_loaded(shape: dict[str, Any], tmp_path: Path) -> None:
    _, saved = make_checkpoint(**shape)
    save_checkpoint(tmp_path / "new" / "model.safetensors", saved)
    loaded = load_checkpoint(tmp_path / "new" / "model.safetensors")
    assert loaded.config == saved.config
    assert loaded.tokenizer.tokens == saved.tokenizer.tokens
    assert loaded.tensors.keys() == saved.tensors.keys() == tensor_shapes(saved.config).keys()
    for name, tensor in saved.tensors.items():
        np.testing.assert_array_equal(loaded.tensors[name], tensor)


def test_our_reader_sees_what_the_formats_own_library_sees(model_file: Path) -> None:
    ours = load_checkpoint(model_file)
    with safe_open(model_file, framework="numpy") as theirs:
        assert set(theirs.keys()) == set(ours.tensors)
        assert theirs.metadata()["format"] == "charlm"
        for name, tensor in ours.tensors.items():
            np.testing.assert_array_equal(theirs.get_tensor(name), tensor)


def test_version_1_is_read_and_means_what_it_meant() -> None:
    expected = json.loads((DATA / "version-1.json").read_text(encoding="utf-8"))
    model = load_checkpoint(DATA / "version-1.safetensors")
    assert model.config == ModelConfig(**expected["config"])
    assert list(model.tokenizer.tokens) == expected["tokens"]
    assert model.metadata["corpus"]["name"] == "hello"
    score = score_text(RecurrentNetwork(model), expected["text"])
    assert score.nll_nats == pytest.approx(expected["nll_nats"], rel=1e-5)
    with_state = load_checkpoint(DATA / "version-1.safetensors", with_resume=True)
    assert sorted(name for name in with_state.tensors if name.startswith("resume/")) == expected["resume"]
    assert with_state.metadata["resume"]["step"] == expected["step"]


def test_a_setting_that_an_older_version_did_not_write_has_its_default(model_file: Path) -> None:
    def forget(header: Header) -> None:
        config = json.loads(header["__metadata__"]["config"])
        del config["dropout"]
        header["__metadata__"] |= {"config": json.dumps(config), "comment": "nobody knows this key"}

    assert load_checkpoint(rewritten(model_file, forget)).config.dropout == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: [1], "its header is no JSON object"),
        (lambda header: header.pop("__metadata__") and None, "not charlm's"),
        (with_meta(format="other"), "not charlm's"),
        (with_meta(format=7), "metadata are no texts"),
        (with_meta(format_version="2"), r"from a newer charlm \(format 2\); upgrade"),
        (with_meta(format_version="9" * 5000), "no format version"),
        (with_meta(format_version="-1"), "no format version"),
        (with_meta(config="{"), "damaged header"),
        (with_meta(config="[]"), "no config"),
        (with_meta(story="null"), "no story"),
        (with_meta(story="[" * 10**5 + "]" * 10**5), "nested too deep"),
        (with_meta(story='{"a":' * 20 + "1" + "}" * 20), "nested too deep"),
        (with_meta(story='{"a": ' + "1" * 5000 + "}"), "damaged header"),
        (with_meta(tokenizer="{}"), "invalid tokenizer"),
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
        (with_part("tokenizer", chars="abc"), "4 tokens for"),
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
        (with_tensor("core.layers.0.weight_ih_l0", shape=[12, 48]), "not floats of"),
        (lambda header: header.update(extra=header.pop("decoder.bias")), "no tensor decoder.bias"),
        (lambda header: header.update({"a\x1b[2J": {}}), "entry of tensor"),
    ],
)
def test_a_header_that_lies_is_refused(change: Callable[[Header], object], message: str, model_file: Path) -> None:
    rewritten(model_file, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(model_file)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a model file"),
        (b"\x01", "not a model file"),
        (b"PK\x03\x04 a pickle in a zip", "not a model file"),
        (struct.pack("<Q", 2**63) + b"{}", "cut short"),
        (struct.pack("<Q", 40 * 2**20) + b"{" + b" " * 40 * 2**20, "a header of 41,943,040 bytes"),
        (struct.pack("<Q", 10) + b"\xff" * 10, "damaged header"),
        (struct.pack("<Q", 10**6) + b"[" * 10**6, "damaged header"),
        (struct.pack("<Q", 16) + b'{"a": 1, "a": 2}', "a name comes twice"),
    ],
    ids=["empty", "a byte", "zip", "endless", "huge header", "no utf-8", "deep", "twice"],
)
def test_a_file_that_is_none_of_ours_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_gaps_overlaps_and_more_bytes_than_the_header_says_are_refused(model_file: Path) -> None:
    whole = model_file.read_bytes()
    for data in (whole + b"\0", whole[:-1], whole[:-4000]):
        model_file.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            load_checkpoint(model_file)
    model_file.write_bytes(whole)

    def overlap(header: Header) -> None:
        first, second = (header[f"core.layers.0.bias_{part}_l0"] for part in ("ih", "hh"))
        second["data_offsets"] = first["data_offsets"]

    with pytest.raises(CheckpointError, match="overlap or leave gaps"):
        load_checkpoint(rewritten(model_file, overlap))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_weights_that_end_in_infinities_are_refused(value: float, tmp_path: Path) -> None:
    _, good = make_checkpoint()
    tensors = {name: np.array(tensor) for name, tensor in good.tensors.items()}
    tensors["decoder.weight"][3, 3] = value
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, Checkpoint(config=good.config, tokenizer=good.tokenizer, tensors=tensors))
    with pytest.raises(CheckpointError, match=r"decoder\.weight has weights that are no numbers"):
        load_checkpoint(path)


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = make_checkpoint()
    path = tmp_path / "run" / "model.safetensors"
    save_checkpoint(path, model)
    before = path.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(28, os.strerror(28))

    for function in ("fsync", "chmod", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(checkpoint_module.os, function, full)
            with pytest.raises(CheckpointError, match="No space left on device"):
                save_checkpoint(path, model)
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_what_was_there_is_kept_under_the_other_name(tmp_path: Path) -> None:
    path, old = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"
    for step in range(3):
        _, model = make_checkpoint()
        save_checkpoint(path, Checkpoint(**(vars(model) | {"metadata": {"step": step}})), keep=old)
    assert [load_checkpoint(file).metadata["step"] for file in (path, old)] == [2, 1]


def test_a_file_has_the_same_bytes_whoever_saves_it(tmp_path: Path) -> None:
    """0-d tensors stay 0-d, Fortran order becomes C order."""
    tokenizer = CharTokenizer("ab")
    config = ModelConfig(vocab_size=3, hidden_size=2, embedding_dim=2)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in tensor_shapes(config).items()}
    tensors["embedding.weight"] = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    tensors["resume/step"] = np.array(7.0, dtype=np.float32)
    save_checkpoint(tmp_path / "a", Checkpoint(config=config, tokenizer=tokenizer, tensors=tensors))
    loaded = load_checkpoint(tmp_path / "a", with_resume=True).tensors
    assert loaded["resume/step"].shape == ()
    np.testing.assert_array_equal(loaded["embedding.weight"], tensors["embedding.weight"])
