"""A trained model at work, in NumPy alone: it starts in a fraction of a second, where importing PyTorch takes two.

Shapes: B batch, T time steps, V vocabulary, H hidden, L layers, G blocks of gates.

What makes it fast: the first layer's input product is folded into a table of V rows, so that a token is a
look-up; the gates with a sigmoid have their weights halved at loading, since sigmoid(x) = tanh(x / 2) / 2 + 1/2,
so that one tanh serves all gates; results go into arrays that exist already.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.checkpoint import GATES, Checkpoint, load_checkpoint
from charlm.config import Cell, ModelConfig
from charlm.tokenizer import Tokenizer

Array = npt.NDArray[np.float32]
State = tuple[Array, ...]
"""(h, c) of an lstm, (h,) of a gru or rnn, each (L, B, H), float32."""

START = "\n"
"""A text begins where a line begins: its model has read one newline from the zero state."""


class Engine:
    """A language model that reads tokens and says what may come next.

    Args:
        checkpoint: The trained model.

    Attributes:
        config: Its shape.
        tokenizer: Its vocabulary.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.config
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        weights = {name: array.astype(np.float32) for name, array in checkpoint.tensors.items()}
        self._layers = [
            _Layer(self.config, *(weights[f"core.layers.{layer}.{part}_l0"] for part in _Layer.parts))
            for layer in range(self.config.num_layers)
        ]
        embedding = weights["embedding.weight"]
        self._table: Array = self._layers[0].project(embedding)
        self._decoder: Array = np.ascontiguousarray(weights.get("decoder.weight", embedding).T)
        self._decoder_bias: Array = weights["decoder.bias"]

    @classmethod
    def load(cls, path: Path) -> "Engine":
        """Open a model file.

        Raises:
            CheckpointError: If it is no sound model file.
        """
        return cls(load_checkpoint(path))

    def zero_state(self, batch_size: int = 1) -> State:
        """The state before the first token."""
        shape = (self.config.num_layers, batch_size, self.config.hidden_size)
        return tuple(np.zeros(shape, dtype=np.float32) for _ in range(2 if self.config.cell == "lstm" else 1))

    def read(self, ids: npt.ArrayLike, state: State) -> Array:
        """Read tokens, and advance the state over them in place.

        Args:
            ids: Token ids, (B, T).
            state: The state before them; afterwards, the state behind them.

        Returns:
            The last layer's outputs, (B, T, H).
        """
        steps = np.asarray(ids, dtype=np.intp).T
        outputs = self._layers[0].run(self._table[steps], tuple(part[0] for part in state))
        for index, layer in enumerate(self._layers[1:], start=1):
            outputs = layer.run(layer.project(outputs), tuple(part[index] for part in state))
        return outputs.swapaxes(0, 1)

    def logits(self, outputs: Array) -> Array:
        """The unnormalised log-probabilities of the next token, (..., V), for outputs of `read`, (..., H)."""
        logits: Array = outputs @ self._decoder
        logits += self._decoder_bias
        return logits


class _Layer:
    """One recurrent layer; its gates in the order sigmoid gates, then the tanh one.

    The equations are those of PyTorch's LSTM, GRU and RNN.
    """

    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def __init__(self, config: ModelConfig, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        self._cell = config.cell
        self._hidden = config.hidden_size
        # PyTorch's lstm has i f g o: g, the one with a tanh, goes last. gru's r z n and rnn's h are so already.
        blocks = (0, 1, 3, 2) if config.cell == "lstm" else range(GATES[config.cell])
        order = np.concatenate([np.arange(k * self._hidden, (k + 1) * self._hidden) for k in blocks])
        self._sigmoids = (GATES[config.cell] - 1) * self._hidden
        halves = np.ones(len(order), dtype=np.float32)
        halves[: self._sigmoids] = 0.5
        # The reset gate of a gru comes between its candidate's recurrent bias and the rest: that bias stays here.
        self._recurrent_bias: Array = (b_hh[order] * halves)[self._sigmoids :] if config.cell == "gru" else b_hh[:0]
        recurrent = b_hh.copy()
        if config.cell == "gru":
            recurrent[self._sigmoids :] = 0
        self._bias: Array = (b_ih + recurrent)[order] * halves
        self._inputs: Array = np.ascontiguousarray((w_ih[order] * halves[:, None]).T)
        self._recurrent: Array = np.ascontiguousarray((w_hh[order] * halves[:, None]).T)

    def project(self, inputs: Array) -> Array:
        """The part of the gates that does not depend on the state, (..., inputs) to (..., G * H)."""
        projected: Array = inputs @ self._inputs
        projected += self._bias
        return projected

    def run(self, projected: Array, state: State) -> Array:
        """Go over time, from projected inputs (T, B, G * H) to outputs (T, B, H); the state is moved on in place.

        The projected inputs are overwritten.
        """
        outputs: Array = np.empty((*projected.shape[:2], self._hidden), dtype=np.float32)
        cells: dict[Cell, Callable[..., None]] = {"lstm": self._lstm, "gru": self._gru, "rnn": self._rnn}
        advance = cells[self._cell]
        product: Array = np.empty(projected.shape[1:], dtype=np.float32)
        hidden = state[0]
        for gates, output in zip(projected, outputs, strict=True):
            np.dot(hidden, self._recurrent, out=product)
            advance(gates, product, hidden, output, *state[1:])
            hidden = output
        state[0][...] = hidden
        return outputs

    def _lstm(self, gates: Array, product: Array, hidden: Array, output: Array, memory: Array) -> None:
        size = self._hidden
        gates += product
        np.tanh(gates, out=gates)
        self._to_sigmoid(gates)
        memory *= gates[:, size : 2 * size]  # f
        gates[:, :size] *= gates[:, 3 * size :]  # i * g
        memory += gates[:, :size]
        np.tanh(memory, out=output)
        output *= gates[:, 2 * size : 3 * size]  # o

    def _gru(self, gates: Array, product: Array, hidden: Array, output: Array) -> None:
        size = self._hidden
        sigmoids, candidate = gates[:, : 2 * size], gates[:, 2 * size :]
        sigmoids += product[:, : 2 * size]
        np.tanh(sigmoids, out=sigmoids)
        self._to_sigmoid(gates)
        inner = product[:, 2 * size :]
        inner += self._recurrent_bias
        inner *= gates[:, :size]  # r
        candidate += inner
        np.tanh(candidate, out=candidate)
        np.subtract(hidden, candidate, out=output)  # (1 - z) * n + z * h = z * (h - n) + n
        output *= gates[:, size : 2 * size]  # z
        output += candidate

    def _rnn(self, gates: Array, product: Array, hidden: Array, output: Array) -> None:
        gates += product
        np.tanh(gates, out=output)

    def _to_sigmoid(self, gates: Array) -> None:
        sigmoids = gates[:, : self._sigmoids]
        sigmoids *= 0.5
        sigmoids += 0.5
