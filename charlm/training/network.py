"""Recurrent networks: one recurrent core, and the models built around it.

`LanguageModel` predicts the next token. `Forecaster` gives an output at every time step, `Classifier` one output per
sequence. All three have a `RecurrentCore`.

Shapes: B batch, T time steps, E embedding, H hidden, L layers, D directions (1 or 2), V vocabulary, I inputs.
"""

import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from charlm.config import CELLS, ModelConfig
from charlm.engine.checkpoint import Tensors
from charlm.errors import ConfigError
from charlm.training.dropout import LockedDropout, drop_recurrent_weights
from charlm.training.items import IGNORED
from charlm.training.loss import sampled_softmax_loss, sequence_loss

State = tuple[Tensor, ...]
"""Recurrent state: (h, c) of an LSTM, (h,) of a GRU or RNN; (L * D, B, H) each, the forward direction of a layer before
its backward direction."""

COPY_WARNING = "RNN module weights are not part of single contiguous chunk"
"""PyTorch's warning on a GPU if recurrent weights are dropped, because it has to copy the weights at every update."""


def reset_state(state: State, resets: npt.NDArray[np.bool_]) -> State:
    """Set the state of some sequences to zero.

    Args:
        state: The state of B sequences.
        resets: Whether to reset each sequence, (B,).
    """
    if not resets.any():
        return state
    keep = torch.from_numpy(~resets).to(state[0].device)[None, :, None]
    return tuple(part * keep for part in state)


def recurrent_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which recurrent layers run: autocast's number format on a CPU, float32 on a GPU.

    Autocast gives cuDNN's recurrent layers float16, even if bfloat16 was requested. If the loss is a mean over 16 x 64
    tokens, half of the gradients that reach the layers are then below the smallest normal number; 85 % for 64 x 64
    tokens (measured). On a GPU that has TF32, matrix products in float32 use it anyway.
    """
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "mps") else nullcontext()


@dataclass(frozen=True, kw_only=True)
class CoreOptions:
    """Options of a recurrent core.

    Attributes:
        dropout: Share of each layer's outputs that is dropped during training, with the same mask at all time steps.
        recurrent_dropout: Share of the recurrent weights that is dropped during training.
        nonlinearity: Activation of an RNN cell instead of its usual one. LSTM and GRU always use tanh.
        bidirectional: Whether each layer also reads every sequence backward from its end. This is not for language
            models, because they would read the tokens that they have to predict.
        skip_connections: Whether the output is the sum of all layers' outputs, so that lower layers also learn
            directly. Source: Graves, arXiv 1308.0850.
    """

    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    nonlinearity: Literal["tanh", "relu"] | None = None
    bidirectional: bool = False
    skip_connections: bool = False


class RecurrentCore(nn.Module):
    """Stacked recurrent layers.

    Args:
        cell: Kind of cell, a key of `charlm.config.CELLS`.
        input_size: I, size of the inputs.
        hidden_size: H, number of units in each layer.
        num_layers: L, number of layers.
        options: Dropout, directions and connections.

    Attributes:
        output_size: Size of the outputs, D * H.

    Raises:
        ConfigError: If the cell does not support the nonlinearity.

    Example:
        >>> core = RecurrentCore("lstm", 3, 5, num_layers=2)
        >>> outputs, (h, c) = core(torch.zeros(4, 7, 3))
        >>> outputs.shape, h.shape
        (torch.Size([4, 7, 5]), torch.Size([2, 4, 5]))
    """

    def __init__(
        self, cell: str, input_size: int, hidden_size: int, num_layers: int = 1, *, options: CoreOptions | None = None
    ) -> None:
        super().__init__()
        options = options or CoreOptions()
        self.spec = CELLS[cell]
        self.hidden_size = hidden_size
        self.directions = 2 if options.bidirectional else 1
        self.output_size = self.directions * hidden_size
        self.layers = nn.ModuleList(
            self._new_layer(cell, self.output_size if index else input_size, options) for index in range(num_layers)
        )
        self.dropout = LockedDropout(options.dropout)
        self.recurrent_dropout = options.recurrent_dropout
        self.skip_connections = options.skip_connections
        if self.recurrent_dropout:
            warnings.filterwarnings("ignore", message=COPY_WARNING)
        self.reset_parameters()

    def _new_layer(self, cell: str, input_size: int, options: CoreOptions) -> nn.RNNBase:
        layer_class: Callable[..., nn.RNNBase] = getattr(nn, self.spec.torch_class)
        extra: dict[str, Any] = {}
        if len(self.spec.gates) == 1:  # the cells with gates have fixed activations
            extra["nonlinearity"] = options.nonlinearity or self.spec.activation
        elif options.nonlinearity not in (None, self.spec.activation):
            raise ConfigError(f"nonlinearity {options.nonlinearity}: cell {cell} always uses {self.spec.activation}")
        return layer_class(input_size, self.hidden_size, batch_first=True, bidirectional=options.bidirectional, **extra)

    def reset_parameters(self) -> None:
        """Initialise recurrent weights as orthogonal, input weights by Glorot's rule, and biases with 0.

        The forget bias is 1 in total; PyTorch adds two biases, so that one of them is 1.

        Source:
            Forget bias: Gers et al. 2000, Jozefowicz et al. 2015.
        """
        for name, weights in self.named_parameters():
            if "weight_hh" in name:
                for block in torch.split(weights.detach(), self.hidden_size):
                    nn.init.orthogonal_(block)
            elif "weight_ih" in name:
                for block in torch.split(weights.detach(), self.hidden_size):
                    nn.init.xavier_uniform_(block)
            else:
                nn.init.zeros_(weights)
                if "forget" in self.spec.gates and "bias_ih" in name:
                    torch.split(weights.detach(), self.hidden_size)[self.spec.gates.index("forget")].fill_(1.0)

    def zero_state(self, batch_size: int) -> State:
        """Return the zero state of B = `batch_size` sequences, (L * D, B, H) each."""
        any_weight = next(self.parameters())
        shape = (len(self.layers) * self.directions, batch_size, self.hidden_size)
        return tuple(any_weight.new_zeros(shape) for _ in self.spec.state)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Process sequences.

        Args:
            inputs: (B, T, I), float.
            state: State before the first time step; the zero state by default.
            lengths: Length of each sequence, (B,), int64, at least 1; T by default.

        Returns:
            The outputs, (B, T, D * H), and the state after the last time step of each sequence, (L * D, B, H) each. The
            outputs are those of the last layer, or with skip connections the sum over all layers. They are zero after
            the end of a sequence. The last time step of a backward layer is the first one of the sequence.
        """
        state = self.zero_state(len(inputs)) if state is None else state
        ends: list[State] = []
        outputs, layer_outputs = inputs, []
        for index, layer in enumerate(self.layers):
            start = tuple(part[index * self.directions : (index + 1) * self.directions] for part in state)
            with recurrent_precision(inputs.device):
                outputs, end = self._run_layer(layer, outputs, start, lengths)
            outputs = self.dropout(outputs)
            layer_outputs.append(outputs)
            ends.append(end)
        if self.skip_connections:
            outputs = functools.reduce(torch.add, layer_outputs)
        return outputs, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def last_output(self, state: State) -> Tensor:
        """Return the last layer's output at the end of each sequence, its directions side by side, (B, D * H)."""
        return torch.cat(state[0][-self.directions :].unbind(), dim=-1)

    def _run_layer(
        self, layer: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        packed: Any = inputs
        if lengths is not None:
            packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        drops = self.training and self.recurrent_dropout > 0
        weights = drop_recurrent_weights(layer, self.recurrent_dropout) if drops else {}
        # The state of PyTorch's LSTM is a pair, that of its GRU and RNN a tensor.
        outputs, end = functional_call(layer, weights, (packed, state if len(state) > 1 else state[0]))
        if lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
        return outputs, end if len(state) > 1 else (end,)


class LanguageModel(nn.Module):
    """Network that predicts the next token after each token.

    Args:
        config: Shape of the model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_dim)
        options = CoreOptions(
            dropout=config.dropout,
            recurrent_dropout=config.recurrent_dropout,
            skip_connections=config.skip_connections,
        )
        self.core = RecurrentCore(
            config.cell, config.embedding_dim, config.hidden_size, config.num_layers, options=options
        )
        self.input_dropout = LockedDropout(config.input_dropout)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        nn.init.normal_(self.embedding.weight, std=config.embedding_dim**-0.5)
        if config.tie_weights:
            self.decoder.weight = self.embedding.weight
        else:
            nn.init.xavier_uniform_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, ids: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read tokens and return the logits of the next ones.

        Args:
            ids: (B, T), int64.
            state: State before the first token; the zero state by default.
            lengths: Length of each sequence, (B,), int64; T by default.

        Returns:
            Logits, (B, T, V), and the state at the end, (L, B, H) each.
        """
        outputs, state = self.read(ids, state, lengths)
        return self.decoder(outputs), state

    def read(self, ids: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read tokens as `forward` does, but return the inputs of the decoder, (B, T, H), instead of logits."""
        return self.core(self.input_dropout(self._embed(ids)), state, lengths)  # type: ignore[no-any-return]

    def loss(
        self, ids: Tensor, targets: Tensor, state: State, *, samples: int = 0, num_targets: float | None = None
    ) -> tuple[Tensor, State]:
        """Read tokens and return the loss of the next ones.

        Args:
            ids: (B, T), int64.
            targets: The token after each token, (B, T), int64; `IGNORED` for padding if `num_targets` is given.
            state: State before the first token.
            samples: Number of words sampled to estimate the softmax, see `sampled_softmax_loss`; 0 for the exact
                softmax.
            num_targets: Number by which the sum of the losses is divided; None for a mean over all targets.

        Returns:
            The mean loss in nats per token, a float32 scalar, and the state at the end.
        """
        outputs, state = self.read(ids, state)
        if num_targets is None:
            return self._mean_loss(outputs, targets, samples), state
        kept = targets != IGNORED
        share = int(kept.sum()) / num_targets
        if not share:  # all rows of this process are padding
            return 0.0 * self.decoder(outputs).sum(), state
        return share * self._mean_loss(outputs[kept], targets[kept], samples), state

    def _mean_loss(self, outputs: Tensor, targets: Tensor, samples: int) -> Tensor:
        """Return the mean loss of targets, (...), for inputs of the decoder, (..., H)."""
        if not samples:
            return sequence_loss(self.decoder(outputs).float(), targets)
        weight, bias = self.decoder.weight, self.decoder.bias
        return sampled_softmax_loss(outputs.flatten(0, -2), targets.flatten(), weight, bias, samples)

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(ids)
        share = self.config.token_dropout
        if not self.training or share == 0:
            return embedded
        kept = embedded.new_empty((self.config.vocab_size, 1)).bernoulli_(1 - share).div_(1 - share)
        return embedded * kept[ids]

    def start_from_frequencies(self, counts: Tensor) -> None:
        """Set the decoder's bias to the log frequencies of the tokens, so that training need not learn them.

        One is added to each count, so that no token has probability 0.

        Args:
            counts: Number of occurrences of each token, (V,).
        """
        smoothed = counts.to(self.decoder.bias) + 1
        self.decoder.bias.detach().copy_((smoothed / smoothed.sum()).log())

    def to_tensors(self) -> dict[str, Any]:
        """Return the weights by name, without the matrix of a tied decoder.

        If the model is on the CPU, the NumPy arrays share their memory with the weights.
        """
        tensors = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        if self.config.tie_weights:
            del tensors["decoder.weight"]
        return tensors

    def load_tensors(self, tensors: Tensors) -> None:
        """Load weights that come from `to_tensors` or from a model file."""
        own = {name: torch.from_numpy(np.array(tensors[name], dtype=np.float32)) for name in self.to_tensors()}
        if self.config.tie_weights:
            own["decoder.weight"] = own["embedding.weight"]
        self.load_state_dict(own)


class _CoreWithHead(nn.Module):
    """Recurrent core with an optional embedding before it and a linear layer after it.

    Args:
        core: The core. Its input size is that of the real-valued inputs and the embeddings together.
        num_outputs: Size of an output.
        embedding: Embedding of the token ids, if the inputs have any.
    """

    def __init__(self, core: RecurrentCore, num_outputs: int, embedding: nn.Embedding | None = None) -> None:
        super().__init__()
        self.embedding = embedding
        self.core = core
        self.head = nn.Linear(core.output_size, num_outputs)

    def read(
        self, values: Tensor | None, ids: Tensor | None, state: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Run the core on real-valued inputs, (B, T, inputs), on token ids, (B, T), or on both side by side."""
        parts = [] if values is None else [values]
        if ids is not None:
            assert self.embedding is not None, "token ids need an embedding"
            parts.append(self.embedding(ids))
        outputs, state = self.core(torch.cat(parts, dim=-1), state, lengths)
        return outputs, state


class Forecaster(_CoreWithHead):
    """Network with an output at every time step, for instance a forecast of the next value."""

    def forward(
        self,
        values: Tensor | None = None,
        ids: Tensor | None = None,
        state: State | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Process sequences.

        Args:
            values: Real-valued inputs, (B, T, inputs), float; or None.
            ids: Token ids, (B, T), int64; or None.
            state: State before the first time step; the zero state by default.
            lengths: Length of each sequence, (B,), int64; T by default.

        Returns:
            Outputs, (B, T, outputs), and the state at the end.
        """
        outputs, state = self.read(values, ids, state, lengths)
        return self.head(outputs), state


class Classifier(_CoreWithHead):
    """Network with one output per sequence, computed from the last state."""

    def forward(self, values: Tensor | None = None, ids: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Process sequences from the zero state and return logits, (B, outputs); arguments as for `Forecaster`."""
        _, state = self.read(values, ids, None, lengths)
        logits: Tensor = self.head(self.core.last_output(state))
        return logits
