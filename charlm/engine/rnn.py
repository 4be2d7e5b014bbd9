"""Recurrent language model in NumPy.

It starts in a fraction of a second. Importing PyTorch takes two seconds.

Shapes: B batch, T time steps, V vocabulary, H hidden, L layers, G number of gates, I inputs of a layer.

Fetching the weights from memory limits the time per token of one stream. Everything else is kept small in comparison:

- The input product of the first layer is computed once for every token and stored as a table of V rows. At run time it
  is a look-up.
- In the layers above, the input and the state of a layer are adjacent in memory, so that one product with one matrix
  serves both.
- sigmoid(x) = tanh(x / 2) / 2 + 1/2. The weights of sigmoid gates are halved when the model is loaded, so that one tanh
  serves all gates.
- Sequences are columns, so that each gate is one contiguous block of memory and the matrices keep PyTorch's layout.
  This is the faster layout for many sequences, and hardly slower for one.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.config import CELLS, ModelConfig
from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.engine.unknown import UnknownTokens
from charlm.text.tokenizer import Ids, Tokenizer

Array = npt.NDArray[np.float32]
State = tuple[Array, ...]
"""Recurrent state: (h, c) of an LSTM, (h,) of a GRU or RNN; each part (L, B, H), float32."""

START = "\n"
"""Text that a model reads first, from the zero state. Therefore, every text begins at the start of a line."""

HALF = np.float32(0.5)
HALF_ROUNDED_UP = np.nextafter(HALF, np.float32(1))
"""Summand that replaces 1/2 in the sigmoid, so that a gate is never below 6e-8, which is one rounding error.

If an input gate were 0, the memory of an LSTM could halve at every step until its numbers are denormal. Products with
denormal numbers take up to 34 times as long, and NumPy has no setting to flush them to zero. An input gate above 0
keeps the memory far above denormal numbers, at no cost.
"""

TABLE_PADDING = 16
"""Number of unused columns of the first layer's table. Rows whose addresses differ by a multiple of 2048 bytes compete
for the same cache sets. Without padding, reading 64 or 128 rows as columns took three to seven times as long
(measured)."""


class RecurrentNetwork:
    """Recurrent language model, which reads token ids and returns the logits of the next token.

    Args:
        checkpoint: The trained model.

    Attributes:
        config: Shape of the model.
        tokenizer: Tokenizer with the vocabulary.
        unknown_tokens: Costs of the unknown tokens of a text.
        layers: Recurrent layers.
        table: Input product and bias of the first layer for each token, (V, G * H + TABLE_PADDING), float32.
        decoder: Matrix of the decoder, (V, H), float32.

    Example:
        >>> network = RecurrentNetwork.load(Path("checkpoints/shakespeare/model.safetensors"))
        >>> ids = network.tokenizer.encode(START + "To be")[None]
        >>> network.logits(network.read(ids, network.zero_state())).shape == (1, 6, network.config.vocab_size)
        True
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.config
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        self.unknown_tokens = UnknownTokens(checkpoint.tokenizer, checkpoint.spelling)
        weights = {name: np.asarray(array, dtype=np.float32) for name, array in checkpoint.tensors.items()}
        self.layers = [
            Layer(self.config, *(weights[f"core.layers.{layer}.{part}_l0"] for part in Layer.parts))
            for layer in range(self.config.num_layers)
        ]
        embedding = weights["embedding.weight"]
        self.table: Array = np.pad(self.layers[0].project(embedding), ((0, 0), (0, TABLE_PADDING)))
        self.decoder: Array = weights.get("decoder.weight", embedding)
        self._decoder_bias: Array = weights["decoder.bias"]

    @classmethod
    def load(cls, path: Path) -> "RecurrentNetwork":
        """Return the model of a file.

        Raises:
            CheckpointError: If the file is missing, damaged or not a model file.
        """
        return cls(load_checkpoint(path))

    def zero_state(self, batch_size: int = 1) -> State:
        """Return the zero state of B = `batch_size` sequences: parts of shape (L, B, H), float32."""
        shape = (self.config.num_layers, batch_size, self.config.hidden_size)
        return tuple(np.zeros(shape, dtype=np.float32) for _ in CELLS[self.config.cell].state)

    def read(self, ids: npt.ArrayLike, state: State) -> Array:
        """Read tokens and update the state in place.

        Args:
            ids: Token ids, (B, T), integers.
            state: State before the tokens, parts of shape (L, B, H), float32. It becomes the state after them.

        Returns:
            Inputs of the decoder, (B, T, H), float32: the outputs of the last layer, or with skip connections the sum
            of the outputs of all layers.
        """
        steps = np.asarray(ids, dtype=np.intp).T
        if steps.shape[1] == 1:
            return self._read_one(steps[:, 0], state)[None]
        stepper = Stepper(self, state)
        outputs: Array = np.empty((len(steps), steps.shape[1], self.config.hidden_size), dtype=np.float32)
        for step, output in zip(steps, outputs, strict=True):
            output[...] = stepper.step(step)
        for part, new_part in zip(state, stepper.state(), strict=True):
            part[...] = new_part
        return outputs.swapaxes(0, 1)

    def _read_one(self, ids: npt.NDArray[np.intp], state: State) -> Array:
        """Read one sequence, (T,), layer by layer, so that one product serves all inputs of a layer.

        Returns:
            Inputs of the decoder, (T, H).
        """
        outputs: Array = np.empty((0,), dtype=np.float32)
        outputs_by_layer: list[Array] = []
        for index, layer in enumerate(self.layers):
            projected = layer.project(outputs) if index else self.table[ids, :-TABLE_PADDING]
            outputs = np.empty((len(ids), self.config.hidden_size), dtype=np.float32)
            cell = layer.cell(1)
            hidden, *memory = (part[index].T for part in state)
            for addend, output in zip(projected, outputs, strict=True):
                cell.recur(hidden, addend[:, None], output[:, None], *memory)
                hidden = output[:, None]
            state[0][index] = hidden.T
            outputs_by_layer.append(outputs)
        return functools.reduce(np.add, outputs_by_layer) if self.config.skip_connections else outputs

    def logits(self, outputs: Array) -> Array:
        """Return the logits of the next token, (..., V), float32, for outputs of `read`, (..., H)."""
        logits: Array = outputs @ self.decoder.T
        logits += self._decoder_bias
        return logits

    def step_ragged(self, sequences: Sequence[Ids]) -> Iterator[tuple["Stepper", Array]]:
        """Read sequences of different lengths in parallel, from the zero state.

        Args:
            sequences: Token ids, each (length,), in descending order of length.

        Yields:
            For each time step: the stepper, which has the state, and the inputs of the decoder for the B sequences that
            have a token at this step, (B, H), float32. They are the first B sequences. The array is valid until the
            next step.
        """
        lengths = np.array([len(ids) for ids in sequences])
        padded = np.zeros((int(lengths.max(initial=0)), len(sequences)), dtype=np.intp)
        for column, ids in enumerate(sequences):
            padded[: len(ids), column] = ids
        stepper = Stepper(self, self.zero_state(len(sequences)))
        for time, step in enumerate(padded):
            num_active = int(np.count_nonzero(lengths > time))
            if num_active <= stepper.rows * 7 // 8:  # not whenever a sequence ends, because `select` copies the state
                stepper.select(np.arange(num_active))
            yield stepper, stepper.step(step[: stepper.rows])[:num_active]


class Stepper:
    """Reader of parallel sequences, one token of each per step. A step allocates no arrays.

    Args:
        network: The model.
        state: Initial state, parts of shape (L, B, H), float32; it is copied.

    Attributes:
        rows: Number of sequences, B.
    """

    def __init__(self, network: RecurrentNetwork, state: State) -> None:
        self._network = network
        self._size = network.config.hidden_size
        self._arrange([np.concatenate(part, axis=1).T for part in state])

    def _arrange(self, parts: Sequence[Array]) -> None:
        """Allocate the arrays of a step. Each part of the state has its layers stacked, (L * H, B)."""
        self.rows = parts[0].shape[1]
        self._hidden, *rest = (np.ascontiguousarray(part) for part in parts)
        layers = [slice(start, start + self._size) for start in range(0, len(self._hidden), self._size)]
        self._outputs = [self._hidden[layer] for layer in layers]
        self._memories = [[part[layer] for part in rest] for layer in layers]
        # The input of a layer is the output of the layer below, which is adjacent to the state of the layer itself.
        self._joined = [self._hidden[layer.start - self._size : layer.stop] for layer in layers[1:]]
        self._cells = [layer.cell(self.rows) for layer in self._network.layers]
        self._by_layer = self._hidden.reshape(len(layers), self._size, self.rows)
        self._sum: Array = np.empty_like(self._by_layer[0])
        self._looked_up: Array = np.empty((self.rows, self._network.table.shape[1]), dtype=np.float32)
        self._addends = self._looked_up[:, :-TABLE_PADDING].T

    def step(self, ids: npt.NDArray[np.integer]) -> Array:
        """Read one token of each sequence.

        Args:
            ids: Token ids, (B,), integers.

        Returns:
            Inputs of the decoder, (B, H), float32. The array is valid until the next step.
        """
        outputs = self._outputs
        self._network.table.take(ids, axis=0, out=self._looked_up, mode="clip")  # other modes make a copy
        self._cells[0].recur(outputs[0], self._addends, outputs[0], *self._memories[0])
        for index, joined in enumerate(self._joined, start=1):
            self._cells[index].step(joined, outputs[index], *self._memories[index])
        if not self._network.config.skip_connections:
            return outputs[-1].T
        return np.add.reduce(self._by_layer, out=self._sum).T

    def select(self, rows: npt.NDArray[np.integer]) -> None:
        """Continue with a selection of the sequences. A sequence can be selected several times.

        Args:
            rows: Indices of the sequences to continue with, integers.
        """
        memories = [np.concatenate(parts) for parts in zip(*self._memories, strict=True)]
        self._arrange([part[:, rows] for part in (self._hidden, *memories)])

    def state(self) -> State:
        """Return a copy of the state, parts of shape (L, B, H), float32."""
        memories = [np.stack(parts) for parts in zip(*self._memories, strict=True)]
        return tuple(np.ascontiguousarray(part.swapaxes(1, 2)) for part in (np.stack(self._outputs), *memories))


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
