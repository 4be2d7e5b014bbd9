"""Export of a network as an ONNX graph, which other runtimes and languages can use.

The graph has standard operators only. It reads tokens of several texts, and gives the log-probabilities of the next
tokens and the new state, so that a text can be read in parts.

Shapes: B batch, T time steps, V vocabulary, H hidden, L layers, G number of gates, I inputs of a layer.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from charlm._version import __version__
from charlm.config import CELLS
from charlm.engine.checkpoint import Checkpoint
from charlm.engine.item_sampler import separator_of_model
from charlm.errors import CharlmError

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

OPSET = 17
"""Version of the operators. It is the oldest one that has all of them in their present form."""

IR_VERSION = 8
"""Version of the file format, which belongs to the version of the operators."""

GATE_ORDERS = {"lstm": ("input", "output", "forget", "candidate"), "gru": ("update", "reset", "candidate")}
"""Order of the gates in ONNX's operators. A cell that is missing here has one gate."""

SCORING_RULE = (
    "Every text starts from the zero state after the token of one newline. Each following token costs its negative "
    "log-probability, the newline at the end of a line too. Token 0 is the unknown token."
)
"""Rule by which charlm scores texts, as the metadata of the file states it."""

Array = npt.NDArray[np.float32]


def onnx_bytes(checkpoint: Checkpoint, name: str) -> bytes:
    """Return a network as an ONNX file.

    Inputs: `ids`, (B, T), int64, and for each part of the state `h`, `c`, (L, B, H), float32, zeros at the beginning.
    Outputs: `log_probs`, (B, T, V), float32, in nats, of the token after each one; and `h_next`, `c_next`, the state
    after the last token. A GRU and an RNN have no `c`.

    Args:
        checkpoint: The model. Its n-gram part, if it has one, is not part of the file.
        name: Name of the model.

    Raises:
        CharlmError: If there is no network, or the package onnx is not installed.
    """
    if checkpoint.config.cell not in CELLS:
        raise CharlmError(
            "a model of n-grams alone has no network, which an ONNX file needs; export a web page instead"
        )
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise CharlmError("ONNX files need the package onnx: pip install onnx") from None
    graph = _Graph(checkpoint)
    vocab, layers, size = checkpoint.config.vocab_size, checkpoint.config.num_layers, checkpoint.config.hidden_size
    parts = CELLS[checkpoint.config.cell].state

    def values(suffix: str) -> list[Any]:
        shape: list[str | int | None] = [layers, "batch", size]
        return [helper.make_tensor_value_info(part + suffix, TensorProto.FLOAT, shape) for part in parts]

    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "time"])
    log_probs = helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["batch", "time", vocab])
    made = helper.make_graph(
        graph.nodes, name, [ids, *values("")], [log_probs, *values("_next")], initializer=graph.weights
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name, model.producer_version = "charlm", __version__
    model.doc_string = SCORING_RULE
    helper.set_model_props(model, _metadata(checkpoint))
    checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata of the file: JSON texts and the scoring rule by name."""
    return {
        "scoring_rule": SCORING_RULE,
        "tokenizer": json.dumps(checkpoint.tokenizer.to_dict()),
        "separator": json.dumps(separator_of_model(checkpoint.metadata)),
    }


class _Graph:
    """Nodes and weights of the graph of a network.

    Args:
        checkpoint: The model.

    Attributes:
        nodes: Nodes in the order of computation.
        weights: Constants.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._config = checkpoint.config
        self._tensors = {name: np.asarray(array, dtype=np.float32) for name, array in checkpoint.tensors.items()}
        embedding = self._constant("embedding", self._tensors["embedding.weight"])
        looked_up = self._add("Gather", [embedding, "ids"])
        outputs = self._layers(self._add("Transpose", [looked_up], perm=[1, 0, 2]))  # (T, B, E)
        decoder = self._tensors.get("decoder.weight", self._tensors["embedding.weight"])
        product = self._add("MatMul", [outputs, self._constant("decoder", np.ascontiguousarray(decoder.T))])
        logits = self._add("Add", [product, self._constant("decoder_bias", self._tensors["decoder.bias"])])
        by_text = self._add("Transpose", [logits], perm=[1, 0, 2])
        self._add("LogSoftmax", [by_text], ["log_probs"], axis=-1)

    def _layers(self, inputs: str) -> str:
        """Add the recurrent layers; return the input of the decoder, (T, B, H)."""
        cell, num_layers = self._config.cell, self._config.num_layers
        parts = CELLS[cell].state
        one_each = self._constant("one_each", np.ones(num_layers, dtype=np.int64))
        axis = self._constant("axis", np.array([1], dtype=np.int64))
        options = {"hidden_size": self._config.hidden_size}
        options |= {"linear_before_reset": 1} if CELLS[cell].reset_inside else {}
        for part in parts:
            self._add("Split", [part, one_each], [f"{part}_{layer}" for layer in range(num_layers)])
        outputs = []
        for layer in range(num_layers):
            before = [f"{part}_{layer}" for part in parts]
            after = [f"{part}_next_{layer}" for part in parts]
            taken = [inputs, *self._layer_weights(layer), "", *before]  # the empty name stands for the lengths
            sequence = self._add(cell.upper(), taken, [f"sequence_{layer}", *after], **options)
            inputs = self._add("Squeeze", [sequence, axis])  # (T, B, H), without the axis of directions
            outputs.append(inputs)
        for part in parts:
            self._add("Concat", [f"{part}_next_{layer}" for layer in range(num_layers)], [f"{part}_next"], axis=0)
        return self._add("Sum", outputs) if self._config.skip_connections else inputs

    def _layer_weights(self, layer: int) -> Iterator[str]:
        """Yield the names of the input weights, the recurrent weights and the bias of a layer."""
        parts = {
            part: self._in_order(self._tensors[f"core.layers.{layer}.{part}_l0"])
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        yield self._constant(f"input_weights_{layer}", parts["weight_ih"][None])
        yield self._constant(f"recurrent_weights_{layer}", parts["weight_hh"][None])
        yield self._constant(f"bias_{layer}", np.concatenate([parts["bias_ih"], parts["bias_hh"]])[None])

    def _in_order(self, weights: Array) -> Array:
        """Return weights, (G * H, ...), with the gates in ONNX's order."""
        gates = CELLS[self._config.cell].gates
        blocks = dict(zip(gates, np.split(weights, len(gates)), strict=True))
        return np.concatenate([blocks[gate] for gate in GATE_ORDERS.get(self._config.cell, gates)])

    def _constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, operator: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        """Add a node; return the name of its first output."""
        from onnx import helper

        names = outputs or [f"{operator.lower()}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names[0]
