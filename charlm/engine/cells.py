"""Recurrent layers in NumPy: their weights, and the equations of each cell.

sigmoid(x) = tanh(x / 2) / 2 + 1/2. The weights of sigmoid gates are halved when the model is loaded, so that one tanh
serves all gates. Sequences are columns, so that each gate is one contiguous block of memory and the matrices keep
PyTorch's layout. This is the faster layout for many sequences, and hardly slower for one.

Shapes: B batch, H hidden, G number of gates, I inputs of a layer.
"""

import functools

import numpy as np

from charlm.config import CELLS, ModelConfig
from charlm.engine.predictor import Array

HALF = np.float32(0.5)
HALF_ROUNDED_UP = np.nextafter(HALF, np.float32(1))
"""Summand that replaces 1/2 in the sigmoid, so that a gate is never below 6e-8, which is one rounding error.

If an input gate were 0, the memory of an LSTM could halve at every step until its numbers are denormal. Products with
denormal numbers take up to 34 times as long, and NumPy has no setting to flush them to zero. An input gate above 0
keeps the memory far above denormal numbers, at no cost.
"""


class Layer:
    """Weights of one recurrent layer, with the sigmoid gates first and the candidate last.

    The equations are those of PyTorch's LSTM, GRU and RNN. The weights of sigmoid gates are halved.

    Args:
        config: Shape of the model.
        w_ih: Input weights in PyTorch's layout, (G * H, I), float32.
        w_hh: Recurrent weights in PyTorch's layout, (G * H, H), float32.
        b_ih: Bias of the inputs, (G * H,), float32.
        b_hh: Bias of the recurrent product, (G * H,), float32.

    Attributes:
        hidden_size: H.
        sigmoids: Number of rows of the sigmoid gates.
        inputs: Input weights, (G * H, I), float32.
        recurrent: Recurrent weights, (G * H, H), float32.
        bias: Bias, (G * H, 1), float32.
        inner_bias: Recurrent bias of the candidate of a GRU, (H, 1), float32, which its reset gate multiplies too.
    """

    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def __init__(self, config: ModelConfig, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array) -> None:
        self.hidden_size = config.hidden_size
        self._cell = CELL_TYPES[config.cell]
        size, spec = config.hidden_size, CELLS[config.cell]
        self.sigmoids = (len(spec.gates) - 1) * size
        halves = np.ones((len(spec.gates) * size, 1), dtype=np.float32)
        halves[: self.sigmoids] = HALF

        def arranged(weights: Array) -> Array:
            return np.concatenate([weights[block * size : (block + 1) * size] for block in spec.sigmoid_first]) * halves

        self.inputs: Array = arranged(w_ih)
        self.recurrent: Array = arranged(w_hh)
        recurrent_bias = arranged(b_hh[:, None])
        self.inner_bias: Array = recurrent_bias[self.sigmoids :].copy()
        if spec.reset_inside:
            recurrent_bias[self.sigmoids :] = 0
        self.bias: Array = arranged(b_ih[:, None]) + recurrent_bias

    @functools.cached_property
    def joined(self) -> Array:
        """Input weights and recurrent weights side by side, (G * H, I + H), float32."""
        return np.concatenate([self.inputs, self.recurrent], axis=1)

    def project(self, inputs: Array) -> Array:
        """Return the part of the gates that does not depend on the state, (..., G * H), for inputs, (..., I)."""
        projected: Array = inputs @ self.inputs.T
        projected += self.bias[:, 0]
        return projected

    def cell(self, rows: int) -> "Cell":
        """Return a cell that computes this layer for `rows` sequences."""
        return self._cell(self, rows)


class Cell:
    """Computation of one layer for B sequences, with its preallocated arrays.

    Args:
        layer: Weights of the layer.
        rows: Number of sequences, B.
    """

    def __init__(self, layer: Layer, rows: int) -> None:
        self._layer = layer
        size = layer.hidden_size
        self._gates: Array = np.empty((len(layer.bias), rows), dtype=np.float32)
        self._sigmoids = self._gates[: layer.sigmoids]
        self._blocks = [self._gates[start : start + size] for start in range(0, len(self._gates), size)]

    def recur(self, hidden: Array, addend: Array, output: Array, *memory: Array) -> None:
        """Compute one time step from inputs that are already projected.

        Args:
            hidden: Previous h, (H, B), float32.
            addend: Projected inputs, (G * H, B), float32.
            output: Array for the new h, (H, B), float32; may be `hidden`.
            memory: c of an LSTM, (H, B), float32, updated in place.
        """
        np.dot(self._layer.recurrent, hidden, out=self._gates)
        self._gates += addend
        self._activate(output, *memory)

    def step(self, joined: Array, output: Array, *memory: Array) -> None:
        """Compute one time step.

        Args:
            joined: Inputs and, below them, the previous h, (I + H, B), float32.
            output: Array for the new h, (H, B), float32; may be the h in `joined`.
            memory: c of an LSTM, (H, B), float32, updated in place.
        """
        np.dot(self._layer.joined, joined, out=self._gates)
        self._gates += self._layer.bias
        self._activate(output, *memory)

    def _activate(self, output: Array, *memory: Array) -> None:
        """Apply the activations of the gates, and compute the new state."""
        raise NotImplementedError

    def _to_sigmoid(self) -> None:
        """Turn tanh(x / 2) into sigmoid(x), in place."""
        self._sigmoids *= HALF
        self._sigmoids += HALF_ROUNDED_UP


class LstmCell(Cell):
    """LSTM. Its gates are input, forget, output and candidate."""

    def _activate(self, output: Array, *memory: Array) -> None:
        (cell_state,) = memory
        input_gate, forget_gate, output_gate, candidate = self._blocks
        np.tanh(self._gates, out=self._gates)
        self._to_sigmoid()
        cell_state *= forget_gate
        candidate *= input_gate
        cell_state += candidate
        np.tanh(cell_state, out=output)
        output *= output_gate


class GruCell(Cell):
    """GRU. Its gates are reset, update and candidate.

    The reset gate multiplies the recurrent product of the candidate, but not its input product. Therefore, the two
    products cannot be computed as one.
    """

    def __init__(self, layer: Layer, rows: int) -> None:
        super().__init__(layer, rows)
        self._product: Array = np.empty_like(self._gates)

    def step(self, joined: Array, output: Array, *memory: Array) -> None:
        """Compute one time step; see `Cell.step`."""
        inputs, hidden = joined[: -len(output)], joined[-len(output) :]
        np.dot(self._layer.inputs, inputs, out=self._gates)
        self._gates += self._layer.bias
        self._combine(hidden, output)

    def recur(self, hidden: Array, addend: Array, output: Array, *memory: Array) -> None:
        """Compute one time step from inputs that are already projected; see `Cell.recur`."""
        self._gates[...] = addend
        self._combine(hidden, output)

    def _combine(self, hidden: Array, output: Array) -> None:
        """Add the recurrent product to the gates and compute the new h."""
        product, sigmoids = self._product, self._sigmoids
        reset, update, candidate = self._blocks
        np.dot(self._layer.recurrent, hidden, out=product)
        inner = product[len(sigmoids) :]
        sigmoids += product[: len(sigmoids)]
        np.tanh(sigmoids, out=sigmoids)
        self._to_sigmoid()
        inner += self._layer.inner_bias
        inner *= reset
        candidate += inner
        np.tanh(candidate, out=candidate)
        np.subtract(hidden, candidate, out=output)  # (1 - z) * n + z * h = z * (h - n) + n
        output *= update
        output += candidate


class RnnCell(Cell):
    """Elman RNN. Its only gate is the candidate."""

    def _activate(self, output: Array, *memory: Array) -> None:
        np.tanh(self._gates, out=output)


CELL_TYPES: dict[str, type[Cell]] = {"lstm": LstmCell, "gru": GruCell, "rnn": RnnCell}
