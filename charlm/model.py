"""The network: embedding, stacked recurrent cells, decoder.

Shapes: B batch, T time steps, E embedding, H hidden, L layers, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from charlm.checkpoint import Tensors
from charlm.config import Cell, ModelConfig

State = tuple[Tensor, ...]
"""(h, c) of an lstm, (h,) of a gru or rnn, each (L, B, H)."""

LAYERS: dict[Cell, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def reset_state(state: State, resets: npt.NDArray[np.bool_]) -> State:
    """Set the state of some sequences, (B,), to zero."""
    if not resets.any():
        return state
    keep = torch.from_numpy(~resets).to(state[0].device)[None, :, None]
    return tuple(part * keep for part in state)


class RecurrentCore(nn.Module):
    """Stacked recurrent layers with dropout between them and on the output.

    Args:
        cell: The kind of cell.
        input_size: Width of the inputs.
        hidden_size: Units in each layer.
        num_layers: Layers.
        dropout: Share of each layer's outputs dropped in training.
    """

    def __init__(
        self, cell: Cell, input_size: int, hidden_size: int, num_layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.cell = cell
        self.hidden_size = hidden_size
        self.layers = nn.ModuleList(
            LAYERS[cell](hidden_size if layer else input_size, hidden_size, batch_first=True)
            for layer in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw orthogonal recurrent weights, input weights at Glorot's scale, and a forget bias of 1 in all.

        Source:
            Forget bias: Gers et al. 2000, Jozefowicz et al. 2015; PyTorch adds two biases, so one of them has it.
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
                if self.cell == "lstm" and "bias_ih" in name:
                    weights.detach()[self.hidden_size : 2 * self.hidden_size] = 1.0

    def zero_state(self, batch_size: int) -> State:
        """The state before the first step."""
        like = next(self.parameters())
        shape = (len(self.layers), batch_size, self.hidden_size)
        return tuple(like.new_zeros(shape) for _ in range(2 if self.cell == "lstm" else 1))

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Go over sequences.

        Args:
            inputs: (B, T, inputs), float.
            state: The state to start from; zero if left out.
            lengths: The true length of each sequence, (B,), int64, at least 1; all T if left out.

        Returns:
            The last layer's outputs, (B, T, H), zero past a sequence's end, and the state at each sequence's last
            step, (L, B, H) each.
        """
        state = self.zero_state(len(inputs)) if state is None else state
        ends: list[State] = []
        outputs = inputs
        for index, layer in enumerate(self.layers):
            start = tuple(part[index : index + 1] for part in state)
            outputs, end = self._run_layer(layer, outputs, start, lengths)
            outputs = self.dropout(outputs)
            ends.append(end)
        return outputs, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def _run_layer(
        self, layer: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        packed: Any = inputs
        if lengths is not None:
            packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        # PyTorch's lstm takes and gives a pair, its gru and rnn a single tensor.
        outputs, end = layer(packed, state if self.cell == "lstm" else state[0])
        if lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
        return outputs, end if self.cell == "lstm" else (end,)


class LanguageModel(nn.Module):
    """Reads token ids and gives the logits of the token that follows each.

    Args:
        config: The shape.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.core = RecurrentCore(
            config.cell, config.embedding_dim, config.hidden_size, config.num_layers, config.dropout
        )
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        nn.init.normal_(self.embedding.weight, std=config.embedding_dim**-0.5)
        if config.tie_weights:
            self.decoder.weight = self.embedding.weight
        else:
            nn.init.xavier_uniform_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, ids: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read tokens.

        Args:
            ids: (B, T), int64.
            state: The state to start from; zero if left out.
            lengths: The true length of each sequence, (B,), int64; all T if left out.

        Returns:
            Logits, (B, T, V), and the state at the end, (L, B, H) each.
        """
        outputs, state = self.core(self.embedding(ids), state, lengths)
        return self.decoder(outputs), state

    def start_from_frequencies(self, counts: Tensor) -> None:
        """Set the decoder's bias to the log of the tokens' frequencies, (V,), so that learning starts past them.

        One is added to each count, so that an unseen token is improbable, not impossible.
        """
        smoothed = counts.to(self.decoder.bias) + 1
        self.decoder.bias.detach().copy_((smoothed / smoothed.sum()).log())

    def to_tensors(self) -> dict[str, Any]:
        """The weights by name, as NumPy arrays that share their memory; a tied decoder's matrix is left out."""
        tensors = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        if self.config.tie_weights:
            del tensors["decoder.weight"]
        return tensors

    def load_tensors(self, tensors: Tensors) -> None:
        """Take weights from `to_tensors`, or from a model file."""
        own = {name: torch.from_numpy(np.array(tensors[name], dtype=np.float32)) for name in self.to_tensors()}
        if self.config.tie_weights:
            own["decoder.weight"] = own["embedding.weight"]
        self.load_state_dict(own)
