"""A trained model at work, in NumPy alone: it starts in a fraction of a second, where importing PyTorch takes two.

Shapes: B batch, T time steps, V vocabulary, H hidden, L layers, G blocks of gates, I inputs of a layer.

What makes it fast: writing one stream costs as much as fetching the weights from memory, and all else is kept
small beside that. The first layer's input product is folded into a table of V rows, so that a token is a look-up.
In the layers above, input and state lie next to each other, so that one product with one matrix serves both. The
gates with a sigmoid have their weights halved at loading, since sigmoid(x) = tanh(x / 2) / 2 + 1/2, so that one
tanh serves all gates. Sequences are columns: each gate is then one block of memory, and the matrices stay as
PyTorch has them, which is the faster way round for many sequences and hardly the slower for one.
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.config import CELLS, ModelConfig
from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.text.tokenizer import Ids, Tokenizer

Array = npt.NDArray[np.float32]
State = tuple[Array, ...]
"""(h, c) of an lstm, (h,) of a gru or rnn, each (L, B, H), float32."""

START = "\n"
"""A text begins where a line begins: its model has read one newline from the zero state."""

HALF = np.float32(0.5)
HALF_UP = np.nextafter(HALF, np.float32(1))
"""Added in place of 1/2, so that no gate ever closes wholly: it stays 6e-8 open, one rounding error.

A closed input gate would let the memory of an lstm halve itself down to denormal numbers, with which a product takes
up to 34 times as long, and whose flushing NumPy cannot ask for. So the memory stays far above them, at no cost.
"""

APART = 16
"""Unused numbers behind each row of the first layer's table. Rows whose distance is a multiple of 2048 bytes share few
places in the cache, and it took three to seven times as long to read 128 or 64 of them as columns (measured)."""


class RecurrentNetwork:
    """A language model that reads tokens and says what may come next.

    Args:
        checkpoint: The trained model.

    Attributes:
        config: Its shape.
        tokenizer: Its vocabulary.
        layers: Its recurrent layers.
        table: What each token puts into the gates of the first layer, (V, G * H + APART).
        decoder: Matrix of the decoder, (V, H).
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.config
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        weights = {name: np.asarray(array, dtype=np.float32) for name, array in checkpoint.tensors.items()}
        self.layers = [
            Layer(self.config, *(weights[f"core.layers.{layer}.{part}_l0"] for part in Layer.parts))
            for layer in range(self.config.num_layers)
        ]
        embedding = weights["embedding.weight"]
        self.table: Array = np.pad(self.layers[0].project(embedding), ((0, 0), (0, APART)))
        self.decoder: Array = weights.get("decoder.weight", embedding)
        self._decoder_bias: Array = weights["decoder.bias"]

    @classmethod
    def load(cls, path: Path) -> "RecurrentNetwork":
        """Open a model file.

        Raises:
            CheckpointError: If it is no sound model file.
        """
        return cls(load_checkpoint(path))

    def zero_state(self, batch_size: int = 1) -> State:
        """The state before the first token."""
        shape = (self.config.num_layers, batch_size, self.config.hidden_size)
        return tuple(np.zeros(shape, dtype=np.float32) for _ in CELLS[self.config.cell].state)

    def read(self, ids: npt.ArrayLike, state: State) -> Array:
        """Read tokens, and advance the state over them in place.

        Args:
            ids: Token ids, (B, T).
            state: The state before them; afterwards, the state behind them.

        Returns:
            What the decoder is given, (B, T, H): the last layer's outputs, or those of all layers added up.
        """
        steps = np.asarray(ids, dtype=np.intp).T
        if steps.shape[1] == 1:
            return self._read_one(steps[:, 0], state)[None]
        stepper = Stepper(self, state)
        outputs: Array = np.empty((len(steps), steps.shape[1], self.config.hidden_size), dtype=np.float32)
        for step, output in zip(steps, outputs, strict=True):
            output[...] = stepper.step(step)
        for part, now in zip(state, stepper.state(), strict=True):
            part[...] = now
        return outputs.swapaxes(0, 1)

    def _read_one(self, ids: npt.NDArray[np.intp], state: State) -> Array:
        """Read one sequence, (T,), layer by layer: the products with all inputs of a layer are one."""
        outputs: Array = np.empty((0,), dtype=np.float32)
        answers: list[Array] = []
        for index, layer in enumerate(self.layers):
            projected = layer.project(outputs) if index else self.table[ids, :-APART]
            outputs = np.empty((len(ids), self.config.hidden_size), dtype=np.float32)
            cell = layer.cell(1)
            hidden, *memory = (part[index].T for part in state)
            for addend, output in zip(projected, outputs, strict=True):
                cell.recur(hidden, addend[:, None], output[:, None], *memory)
                hidden = output[:, None]
            state[0][index] = hidden.T
            answers.append(outputs)
        return functools.reduce(np.add, answers) if self.config.skip_connections else outputs

    def logits(self, outputs: Array) -> Array:
        """The unnormalised log-probabilities of the next token, (..., V), for outputs of `read`, (..., H)."""
        logits: Array = outputs @ self.decoder.T
        logits += self._decoder_bias
        return logits

    def step_ragged(self, sequences: Sequence[Ids]) -> Iterator[tuple["Stepper", Array]]:
        """Read sequences of different lengths side by side, from the zero state.

        Args:
            sequences: Token ids, the longest first.

        Yields:
            For each time step the stepper, for its state, and the outputs of the sequences that have a token there,
            (B, H): the first B of all.
        """
        lengths = np.array([len(ids) for ids in sequences])
        padded = np.zeros((int(lengths.max(initial=0)), len(sequences)), dtype=np.intp)
        for column, ids in enumerate(sequences):
            padded[: len(ids), column] = ids
        stepper = Stepper(self, self.zero_state(len(sequences)))
        for time, step in enumerate(padded):
            reading = int(np.count_nonzero(lengths > time))
            if reading <= stepper.rows * 7 // 8:  # not each time: letting go of a sequence costs a copy of the state
                stepper.select(np.arange(reading))
            yield stepper, stepper.step(step[: stepper.rows])[:reading]


class Stepper:
    """Sequences read side by side, a token of each at a time, without allocating anything on the way.

    Args:
        network: The model.
        state: The state to start from; it is copied.

    Attributes:
        rows: The number of sequences.
    """

    def __init__(self, network: RecurrentNetwork, state: State) -> None:
        self._network = network
        self._size = network.config.hidden_size
        self._arrange([np.concatenate(part, axis=1).T for part in state])

    def _arrange(self, parts: Sequence[Array]) -> None:
        """Lay out the state: the layers of each part one below the other, (L * H, B)."""
        self.rows = parts[0].shape[1]
        self._hidden, *rest = (np.ascontiguousarray(part) for part in parts)
        places = [slice(place, place + self._size) for place in range(0, len(self._hidden), self._size)]
        self._outputs = [self._hidden[place] for place in places]
        self._memories = [[part[place] for part in rest] for place in places]
        # A layer's input is the output of the layer below, which lies right above its own state.
        self._joined = [self._hidden[place.start - self._size : place.stop] for place in places[1:]]
        self._cells = [layer.cell(self.rows) for layer in self._network.layers]
        self._by_layer = self._hidden.reshape(len(places), self._size, self.rows)
        self._sum: Array = np.empty_like(self._by_layer[0])
        self._fetched: Array = np.empty((self.rows, self._network.table.shape[1]), dtype=np.float32)
        self._addends = self._fetched[:, :-APART].T

    def step(self, ids: npt.NDArray[np.integer]) -> Array:
        """Read a token of each sequence.

        Args:
            ids: (B,).

        Returns:
            What the decoder is given, (B, H), valid until the next step.
        """
        outputs = self._outputs
        self._network.table.take(ids, axis=0, out=self._fetched, mode="clip")  # any other mode would copy
        self._cells[0].recur(outputs[0], self._addends, outputs[0], *self._memories[0])
        for index, joined in enumerate(self._joined, start=1):
            self._cells[index].step(joined, outputs[index], *self._memories[index])
        if not self._network.config.skip_connections:
            return outputs[-1].T
        return np.add.reduce(self._by_layer, out=self._sum).T

    def select(self, rows: npt.NDArray[np.integer]) -> None:
        """Go on with some of the sequences only, or with several copies of one."""
        memories = [np.concatenate(parts) for parts in zip(*self._memories, strict=True)]
        self._arrange([part[:, rows] for part in (self._hidden, *memories)])

    def state(self) -> State:
        """A copy of the state, (L, B, H) each."""
        memories = [np.stack(parts) for parts in zip(*self._memories, strict=True)]
        return tuple(np.ascontiguousarray(part.swapaxes(1, 2)) for part in (np.stack(self._outputs), *memories))


class Layer:
    """The weights of one recurrent layer; its gates in the order sigmoid gates, then the tanh one.

    The equations are those of PyTorch's LSTM, GRU and RNN.

    Attributes:
        inputs: What the inputs put into the gates, (G * H, I).
        recurrent: What the state before puts into them, (G * H, H).
        bias: (G * H, 1).
        inner_bias: The recurrent bias of a gru's candidate, (H, 1), which its reset gate weighs too.
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
        """Both matrices side by side, (G * H, I + H)."""
        return np.concatenate([self.inputs, self.recurrent], axis=1)

    def project(self, inputs: Array) -> Array:
        """The part of the gates that does not depend on the state, (..., I) to (..., G * H)."""
        projected: Array = inputs @ self.inputs.T
        projected += self.bias[:, 0]
        return projected

    def cell(self, rows: int) -> "Cell":
        """Room to compute the layer for so many sequences."""
        return self._cell(self, rows)


class Cell:
    """A layer's arithmetic for B sequences, with all the room it needs.

    Args:
        layer: The weights.
        rows: B.
    """

    def __init__(self, layer: Layer, rows: int) -> None:
        self._layer = layer
        size = layer.hidden_size
        self._gates: Array = np.empty((len(layer.bias), rows), dtype=np.float32)
        self._sigmoids = self._gates[: layer.sigmoids]
        self._blocks = [self._gates[place : place + size] for place in range(0, len(self._gates), size)]

    def recur(self, hidden: Array, addend: Array, output: Array, *memory: Array) -> None:
        """Advance by one step whose inputs are projected already.

        Args:
            hidden: The state before, (H, B).
            addend: The projected inputs, (G * H, B).
            output: Where the state after it goes, (H, B); may be `hidden`.
            memory: An lstm's c, (H, B), moved on in place.
        """
        np.dot(self._layer.recurrent, hidden, out=self._gates)
        self._gates += addend
        self._activate(output, *memory)

    def step(self, joined: Array, output: Array, *memory: Array) -> None:
        """Advance by one step.

        Args:
            joined: The inputs, and below them the state before, (I + H, B).
            output: Where the state after it goes, (H, B); may be that part of `joined`.
            memory: An lstm's c, (H, B), moved on in place.
        """
        np.dot(self._layer.joined, joined, out=self._gates)
        self._gates += self._layer.bias
        self._activate(output, *memory)

    def _activate(self, output: Array, *memory: Array) -> None:
        raise NotImplementedError

    def _to_sigmoid(self) -> None:
        self._sigmoids *= HALF
        self._sigmoids += HALF_UP


class LstmCell(Cell):
    """i, f, o, g."""

    def _activate(self, output: Array, *memory: Array) -> None:
        (kept,) = memory
        take, keep, show, candidate = self._blocks
        np.tanh(self._gates, out=self._gates)
        self._to_sigmoid()
        kept *= keep
        candidate *= take
        kept += candidate
        np.tanh(kept, out=output)
        output *= show


class GruCell(Cell):
    """r, z, n. Its reset gate comes between the candidate's two products: they cannot be one."""

    def __init__(self, layer: Layer, rows: int) -> None:
        super().__init__(layer, rows)
        self._product: Array = np.empty_like(self._gates)

    def step(self, joined: Array, output: Array, *memory: Array) -> None:
        """Advance by one step: as `Cell.step`."""
        inputs, hidden = joined[: -len(output)], joined[-len(output) :]
        np.dot(self._layer.inputs, inputs, out=self._gates)
        self._gates += self._layer.bias
        self._mix(hidden, output)

    def recur(self, hidden: Array, addend: Array, output: Array, *memory: Array) -> None:
        """Advance by one step whose inputs are projected already: as `Cell.recur`."""
        self._gates[...] = addend
        self._mix(hidden, output)

    def _mix(self, hidden: Array, output: Array) -> None:
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
    """One block, with a tanh."""

    def _activate(self, output: Array, *memory: Array) -> None:
        np.tanh(self._gates, out=output)


CELL_TYPES: dict[str, type[Cell]] = {"lstm": LstmCell, "gru": GruCell, "rnn": RnnCell}
