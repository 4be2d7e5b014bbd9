"""Network of a classifier in NumPy: embedding, recurrent layers in one or two directions, pooled states, logits.

Shapes: B batch, T time steps, V vocabulary, E embedding, H hidden, D directions, G number of gates, C classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from charlm.classifier_config import ClassifierConfig
from charlm.config import CELLS
from charlm.engine.cells import Layer
from charlm.engine.checkpoint import Tensors
from charlm.engine.predictor import Array
from charlm.text.tokenizer import Ids

MAX_BATCH_TOKENS = 4096
"""Maximum number of tokens of a batch, padding included, unless it has one text only."""

MAX_BATCH_TEXTS = 128
"""Maximum number of texts of a batch."""


class ClassifierNetwork:
    """Network that gives a logit per class for a text.

    The states after all tokens are pooled: the last one, their mean and their maximum are the inputs of a linear layer.
    The last state of the backward direction is the one at the first token.

    Args:
        config: Shape of the network.
        tensors: Weights by name.
    """

    def __init__(self, config: ClassifierConfig, tensors: Tensors) -> None:
        self.config = config
        weights = {name: np.asarray(tensors[name], dtype=np.float32) for name in tensors if "/" not in name}
        self._embedding: Array = weights["embedding.weight"]
        suffixes = ("_l0", "_l0_reverse")[: 2 if config.bidirectional else 1]
        self._layers = [
            [
                Layer(config.core, *(weights[f"core.layers.{layer}.{part}{suffix}"] for part in Layer.parts))
                for suffix in suffixes
            ]
            for layer in range(config.num_layers)
        ]
        self._head: Array = weights["head.weight"]
        self._head_bias: Array = weights["head.bias"]

    def batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the indices of texts in batches of similar length, the longest first.

        Args:
            lengths: Number of tokens of each text.
        """
        longest_first = sorted(range(len(lengths)), key=lambda index: -lengths[index])
        batches: list[list[int]] = []
        while longest_first:
            size = max(1, min(MAX_BATCH_TEXTS, MAX_BATCH_TOKENS // max(1, lengths[longest_first[0]])))
            batches.append(longest_first[:size])
            longest_first = longest_first[size:]
        return batches

    def logits(self, sequences: Sequence[Ids]) -> Array:
        """Return the logits of texts, (B, C), float32.

        Args:
            sequences: Token ids of each text, at least one each. Only the first `max_tokens` are read.
        """
        logits: Array = self.pooled(sequences) @ self._head.T
        logits += self._head_bias
        return logits

    def pooled(self, sequences: Sequence[Ids]) -> Array:
        """Return the pooled states of texts, (B, 3 * D * H), float32; see `logits`."""
        lengths = np.array([min(len(ids), self.config.max_tokens) for ids in sequences])
        padded = np.zeros((int(lengths.max()), len(sequences)), dtype=np.intp)
        for column, (ids, length) in enumerate(zip(sequences, lengths.tolist(), strict=True)):
            padded[:length, column] = ids[:length]
        outputs, total = self._embedding[padded], None
        for directions in self._layers:
            outputs = np.concatenate(
                [
                    _run(layer, outputs, lengths, self.config.cell, backward=bool(direction))
                    for direction, layer in enumerate(directions)
                ],
                axis=2,
            )
            total = outputs if total is None or not self.config.skip_connections else total + outputs
        assert total is not None, "there is a layer"
        return self._pool(total, lengths)

    def _pool(self, outputs: Array, lengths: npt.NDArray[np.intp]) -> Array:
        """Return the pooled states, (B, 3 * D * H), for the states, (T, B, D * H)."""
        size = self.config.hidden_size
        last = outputs[lengths - 1, np.arange(len(lengths))]
        if self.config.bidirectional:
            last[:, size:] = outputs[0, :, size:]
        is_padding = (np.arange(len(outputs))[:, None] >= lengths)[:, :, None]
        mean = np.where(is_padding, np.float32(0), outputs).sum(axis=0) / lengths[:, None].astype(np.float32)
        maximum = np.where(is_padding, np.float32(-np.inf), outputs).max(axis=0)
        return np.concatenate([last, mean, maximum], axis=1)


def _run(layer: Layer, inputs: Array, lengths: npt.NDArray[np.intp], cell: str, *, backward: bool) -> Array:
    """Read sequences with one layer in one direction.

    Args:
        layer: The layer.
        inputs: Inputs, (T, B, I).
        lengths: Lengths of the sequences, (B,).
        cell: Kind of cell.
        backward: Whether to read every sequence from its end.

    Returns:
        The outputs at the positions of the inputs, (T, B, H). After the end of a sequence, they have no meaning.
    """
    steps, rows = inputs.shape[:2]
    places = None
    if backward:  # reversed within each sequence, so that all sequences begin at the first time step
        reverse = lengths - 1 - np.arange(steps)[:, None]
        places = np.where(reverse >= 0, reverse, np.arange(steps)[:, None]), np.arange(rows)
        inputs = inputs[places]
    projected = layer.project(inputs)
    hidden: Array = np.zeros((layer.hidden_size, rows), dtype=np.float32)
    memory = [np.zeros_like(hidden) for _ in CELLS[cell].state[1:]]
    outputs: Array = np.empty((steps, rows, layer.hidden_size), dtype=np.float32)
    compute = layer.cell(rows)
    for step in range(steps):
        compute.recur(hidden, projected[step].T, hidden, *memory)
        outputs[step] = hidden.T
    return outputs if places is None else outputs[places]
