"""Exported ONNX files, run by onnxruntime, compared with the engine."""

import json
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from charlm.config import CELLS
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.decoding import log_softmax
from charlm.engine.onnx_export import OPSET, SCORING_RULE, onnx_bytes
from charlm.engine.rnn import RecurrentNetwork
from charlm.errors import CharlmError
from charlm.text.tokenizer import tokenizer_from_dict
from tests.conftest import VERSE, make_checkpoint


def expected_log_probs(checkpoint: Checkpoint, ids: np.ndarray) -> np.ndarray:
    """The engine's log-probabilities of the tokens after each one, (B, T, V)."""
    reader = RecurrentNetwork(checkpoint).read(list(ids[:, :1]))
    found = [log_softmax(reader.logits())]
    for step in ids.T[1:]:
        reader.advance(step)
        found.append(log_softmax(reader.logits()))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("shape", [{}, {"tie_weights": True}, {"skip_connections": True}])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_a_text_read_in_parts_has_the_log_probabilities_of_the_engine(
    cell: str, num_layers: int, shape: dict[str, Any], rng: np.random.Generator
) -> None:
    _, checkpoint = make_checkpoint(cell=cell, num_layers=num_layers, **shape)
    session = onnxruntime.InferenceSession(onnx_bytes(checkpoint, "small"), providers=["CPUExecutionProvider"])
    parts = CELLS[cell].state
    assert [entry.name for entry in session.get_inputs()] == ["ids", *parts]
    assert [entry.name for entry in session.get_outputs()] == ["log_probs", *(f"{part}_next" for part in parts)]
    ids = rng.integers(0, checkpoint.config.vocab_size, (3, 20))
    state = {part: np.zeros((num_layers, 3, checkpoint.config.hidden_size), dtype=np.float32) for part in parts}
    found = []
    for piece in (ids[:, :9], ids[:, 9:10], ids[:, 10:]):
        log_probs, *after = session.run(None, {"ids": piece, **state})
        state = dict(zip(parts, after, strict=True))
        found.append(log_probs)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected_log_probs(checkpoint, ids), atol=1e-5)


def test_the_file_says_how_to_use_it() -> None:
    _, checkpoint = make_checkpoint()
    model = onnx.load_from_string(onnx_bytes(checkpoint, "small"))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert (model.producer_name, model.doc_string, model.graph.name) == ("charlm", SCORING_RULE, "small")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["scoring_rule"] == SCORING_RULE
    assert json.loads(metadata["separator"]) is None
    tokenizer = tokenizer_from_dict(json.loads(metadata["tokenizer"]))
    assert tokenizer.encode(VERSE).tolist() == checkpoint.tokenizer.encode(VERSE).tolist()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CharlmError, match="pip install onnx"):
        onnx_bytes(make_checkpoint()[1], "small")
