"""Recurrent language model in NumPy.

It starts in a fraction of a second. Importing PyTorch takes two seconds.

Shapes: B batch, T time steps, V vocabulary, H hidden, L layers, G number of gates, I inputs of a layer.

Fetching the weights from memory limits the time per token of one stream. Everything else is kept small in comparison:

- The input product of the first layer is computed once for every token and stored as a table of V rows. At run time it
  is a look-up.
- In the layers above, the input and the state of a layer are adjacent in memory, so that one product with one matrix
  serves both.
- One tanh serves all gates; see `charlm.engine.cells`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from charlm.config import CELLS, ModelConfig
from charlm.engine.cells import Layer
from charlm.engine.checkpoint import Checkpoint, load_checkpoint
from charlm.engine.predictor import (
    MAX_BLOCK_NUMBERS,
    START,
    Array,
    Predictor,
    Reader,
    TokenCosts,
    TokenStream,
    softmax,
    stack_targets,
    token_nats,
)
from charlm.engine.unknown import UnknownTokens
from charlm.text.tokenizer import Ids

State = tuple[Array, ...]
"""Recurrent state: (h, c) of an LSTM, (h,) of a GRU or RNN; each part (L, B, H), float32."""

TABLE_PADDING = 16
"""Number of unused columns of the first layer's table. Rows whose addresses differ by a multiple of 2048 bytes compete
for the same cache sets. Without padding, reading 64 or 128 rows as columns took three to seven times as long
(measured)."""


class RecurrentNetwork(Predictor):
    """Recurrent language model, which reads token ids and returns the logits of the next token.

    `outputs`, `logits` and `step_ragged` are its operations; the other methods are those of every predictor. The parts
    of a model file other than the network are not used: `charlm.engine.mixture.open_predictor` returns the whole model.

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
        >>> network.logits(network.outputs(ids, network.zero_state())).shape == (1, 6, network.config.vocab_size)
        True
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.config
        self.tokenizer = checkpoint.tokenizer
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

    def outputs(self, ids: npt.ArrayLike, state: State) -> Array:
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
            return self._outputs_of_one(steps[:, 0], state)[None]
        stepper = Stepper(self, state)
        outputs: Array = np.empty((len(steps), steps.shape[1], self.config.hidden_size), dtype=np.float32)
        for step, output in zip(steps, outputs, strict=True):
            output[...] = stepper.step(step)
        for part, new_part in zip(state, stepper.state(), strict=True):
            part[...] = new_part
        return outputs.swapaxes(0, 1)

    def _outputs_of_one(self, ids: npt.NDArray[np.intp], state: State) -> Array:
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
        """Return the logits of the next token, (..., V), float32, for outputs of `outputs`, (..., H)."""
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

    def read(self, sequences: Sequence[Ids]) -> "NetworkReader":
        """Read sequences from the zero state; see `Predictor.read`."""
        if len(sequences) > 1:
            return self._read_in_parallel(sequences)
        state = self.zero_state(1)
        outputs = self.outputs(sequences[0][None], state)[:, -1]
        return NetworkReader(self, Stepper(self, state), outputs)

    def _read_in_parallel(self, sequences: Sequence[Ids]) -> "NetworkReader":
        """Read B sequences of any lengths."""
        lengths = np.array([len(ids) for ids in sequences])
        longest_first = np.argsort(-lengths, kind="stable")
        state = self.zero_state(len(sequences))
        outputs: Array = np.empty((len(sequences), self.config.hidden_size), dtype=np.float32)
        steps = self.step_ragged([sequences[index] for index in longest_first])
        for time, (stepper, step_outputs) in enumerate(steps):
            rows = np.flatnonzero(lengths[longest_first[: len(step_outputs)]] == time + 1)
            if len(rows):
                ended = longest_first[rows]
                outputs[ended] = step_outputs[rows]
                for part, step_part in zip(state, stepper.state(), strict=True):
                    part[:, ended] = step_part[:, rows]
        return NetworkReader(self, Stepper(self, state), outputs)

    def score(
        self, sequences: Sequence[Ids], *, with_entropy: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> TokenCosts:
        """Score a batch of sequences; see `Predictor.score`."""
        targets, _ = stack_targets(sequences)
        nats: Array = np.zeros(targets.shape, dtype=np.float32)
        entropy = np.zeros_like(nats) if with_entropy else None
        for time, (_, outputs) in enumerate(self.step_ragged([ids[:-1] for ids in sequences])):
            if stop():
                break
            num_reading = len(outputs)
            nats[time, :num_reading] = token_nats(
                self.logits(outputs),
                targets[time, :num_reading],
                entropy_out=None if entropy is None else entropy[time, :num_reading],
            )
        return TokenCosts(nats.T, None if entropy is None else entropy.T)

    def step_probs(self, sequences: Sequence[Ids]) -> Iterator[Array]:
        """Yield distributions step by step; see `Predictor.step_probs`."""
        for _, outputs in self.step_ragged([ids[:-1] for ids in sequences]):
            yield softmax(self.logits(outputs))[0]

    def start_stream(self, *, with_entropy: bool = False) -> "NetworkStream":
        """Start a text that is scored in parts; see `Predictor.start_stream`."""
        return NetworkStream(self, with_entropy=with_entropy)


class NetworkReader(Reader):
    """Sequences that a network reads in parallel.

    Args:
        network: The network.
        stepper: Stepper in the states after the tokens read so far.
        outputs: Inputs of the decoder after the last token of each sequence, (B, H), float32.
    """

    def __init__(self, network: RecurrentNetwork, stepper: "Stepper", outputs: Array) -> None:
        self._network = network
        self._stepper = stepper
        self._outputs = outputs

    @property
    def rows(self) -> int:
        """Number of sequences, B."""
        return self._stepper.rows

    def logits(self) -> Array:
        """Return the logits of the next token, (B, V), float32."""
        return self._network.logits(self._outputs)

    def advance(self, ids: npt.NDArray[np.integer]) -> None:
        """Read one token of each sequence; see `Reader.advance`."""
        self._outputs = self._stepper.step(ids)

    def select(self, rows: npt.NDArray[np.integer]) -> None:
        """Continue with a selection of the sequences; see `Reader.select`."""
        self._outputs = self._outputs[rows]
        self._stepper.select(rows)

    def restart(self, rows: Sequence[int]) -> None:
        """Let some sequences start anew; see `Reader.restart`."""
        first = self._network.read([self._network.tokenizer.encode(START)])
        state = self.state()
        for part, first_part in zip(state, first.state(), strict=True):
            part[:, rows] = first_part
        self._outputs = self._outputs.copy()
        self._outputs[rows] = first._outputs
        self._stepper = Stepper(self._network, state)

    def state(self) -> State:
        """Return a copy of the state, parts of shape (L, B, H), float32."""
        return self._stepper.state()


class NetworkStream(TokenStream):
    """Text that a network scores in parts. The state is carried from part to part.

    Args:
        network: The network.
        with_entropy: Whether to compute entropies.

    Attributes:
        block_tokens: Maximum number of tokens whose gates and logits are in memory at a time.
    """

    def __init__(self, network: RecurrentNetwork, *, with_entropy: bool = False) -> None:
        self._network = network
        self._with_entropy = with_entropy
        self._state = network.zero_state(1)
        self._last = network.tokenizer.encode(START)
        self.block_tokens = max(1, MAX_BLOCK_NUMBERS // max(network.config.vocab_size, 4 * network.config.hidden_size))

    def score(self, ids: Ids) -> TokenCosts:
        """Return the costs of the next tokens, (T,), and read them."""
        nats: Array = np.empty(len(ids), dtype=np.float32)
        entropy = np.empty_like(nats) if self._with_entropy else None
        for begin in range(0, len(ids), self.block_tokens):
            block = slice(begin, begin + self.block_tokens)
            entropy_out = None if entropy is None else entropy[block]
            nats[block] = token_nats(self.logits(ids[block]), ids[block], entropy_out=entropy_out)
        return TokenCosts(nats, entropy)

    def logits(self, ids: Ids) -> Array:
        """Return the logits that predict the next tokens, (T, V), float32, and read these, (T,), at least one."""
        outputs = self._network.outputs(np.concatenate([self._last, ids[:-1]])[None], self._state)[0]
        self._last = ids[-1:]
        return self._network.logits(outputs)


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
        self.rows: int = parts[0].shape[1]
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
