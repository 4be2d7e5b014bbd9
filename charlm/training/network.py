"""The networks: one recurrent core, and what is built around it.

`LanguageModel` gives the logits of the next token; `Forecaster` answers at every step, `Classifier` once, from the
last state. All three read through the same `RecurrentCore`.

Shapes: B batch, T time steps, E embedding, H hidden, L layers, D directions (1 or 2), V vocabulary.
"""

import functools
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from charlm.training.loss import sampled_softmax_loss, sequence_loss

warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
"""So PyTorch speaks of dropped connections on a GPU, where it copies the weights of every update into one chunk."""

State = tuple[Tensor, ...]
"""(h, c) of an lstm, (h,) of a gru or rnn, each (L * D, B, H): layer by layer, forward before backward."""


def reset_state(state: State, resets: npt.NDArray[np.bool_]) -> State:
    """Set the state of some sequences, (B,), to zero."""
    if not resets.any():
        return state
    keep = torch.from_numpy(~resets).to(state[0].device)[None, :, None]
    return tuple(part * keep for part in state)


class LockedDropout(nn.Module):
    """Dropout with one mask for all time steps of a sequence: what is dropped stays dropped.

    Args:
        share: The share dropped in training.

    Source:
        Gal and Ghahramani, arXiv 1512.05287; as in AWD-LSTM, arXiv 1708.02182.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, inputs: Tensor) -> Tensor:
        """Drop from (B, T, H)."""
        if not self.training or self.share == 0:
            return inputs
        mask = inputs.new_empty((len(inputs), 1, inputs.shape[-1])).bernoulli_(1 - self.share)
        return inputs * mask.div_(1 - self.share)


def without_some_connections(layer: nn.Module, share: float) -> dict[str, Tensor]:
    """The recurrent weights of a layer with a share of them dropped, by name: DropConnect.

    Called through `functional_call` the layer stays on PyTorch's fast path.

    Source:
        Wan et al. 2013, on recurrent weights as in AWD-LSTM, arXiv 1708.02182.
    """
    return {
        name: weight * quick_mask(weight, share) for name, weight in layer.named_parameters() if "weight_hh" in name
    }


def quick_mask(like: Tensor, share: float) -> Tensor:
    """A mask for inverted dropout of a large matrix: on a CPU, a random byte decides on each entry.

    To draw a float for each would take as long as half an update there.

    Args:
        like: A tensor of the shape, dtype and device wanted.
        share: The share of zeros; rounded to a 256th.
    """
    threshold = min(255, round(256 * share))
    kept_share = 1 - threshold / 256
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(kept_share).div_(kept_share)
    words = torch.empty(-(-like.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: like.numel()].view(like.shape) >= threshold
    return kept.to(like.dtype).div_(kept_share)


def recurrent_precision(device: torch.device) -> AbstractContextManager[object]:
    """The arithmetic of recurrent layers: on a CPU what autocast asks for, on a GPU float32.

    Autocast gives cuDNN's layers float16, whichever type it was asked for. There half of the gradients that reach them
    from a mean over 16 x 64 tokens, and 85 % of 64 x 64, are below the least normal number (measured). Their float32
    is TF32 in the products anyway, where a GPU has it.
    """
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "mps") else nullcontext()


class RecurrentCore(nn.Module):
    """Stacked recurrent layers with dropout between them and on the output.

    Args:
        cell: The kind of cell.
        input_size: Width of the inputs.
        hidden_size: Units in each layer.
        num_layers: Layers.
        dropout: Share of each layer's outputs dropped in training, the same at all time steps.
        recurrent_dropout: Share of the recurrent weights dropped in training.
        nonlinearity: What an rnn's units do with their sum; lstm and gru have their own.
        bidirectional: Read backward too, each sequence from its own end. Not for a model that writes: it would see
            what it is to say.
        skip_connections: Answer with the sum of all layers' outputs, so that the lower ones need not learn through
            the upper ones alone.

    Attributes:
        output_size: Width of the outputs, D * H.

    Source:
        Skip connections from all layers to the output: Graves, arXiv 1308.0850.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        *,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bidirectional: bool = False,
        skip_connections: bool = False,
    ) -> None:
        super().__init__()
        has_sigmoids = len(CELLS[cell].gates) > 1
        if nonlinearity != "tanh" and has_sigmoids:
            raise ConfigError(f"nonlinearity {nonlinearity}: the units of a cell of kind {cell} always use tanh")
        self.spec = CELLS[cell]
        layer_class: Callable[..., nn.RNNBase] = getattr(nn, self.spec.torch_class)
        self.hidden_size = hidden_size
        self.directions = 2 if bidirectional else 1
        self.output_size = self.directions * hidden_size
        kind: dict[str, Any] = {} if has_sigmoids else {"nonlinearity": nonlinearity}
        self.layers = nn.ModuleList(
            layer_class(
                self.output_size if layer else input_size,
                hidden_size,
                batch_first=True,
                bidirectional=bidirectional,
                **kind,
            )
            for layer in range(num_layers)
        )
        self.dropout = LockedDropout(dropout)
        self.recurrent_dropout = recurrent_dropout
        self.skip_connections = skip_connections
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
                if "forget" in self.spec.gates and "bias_ih" in name:
                    torch.split(weights.detach(), self.hidden_size)[self.spec.gates.index("forget")].fill_(1.0)

    def zero_state(self, batch_size: int) -> State:
        """The state before the first step."""
        like = next(self.parameters())
        shape = (len(self.layers) * self.directions, batch_size, self.hidden_size)
        return tuple(like.new_zeros(shape) for _ in self.spec.state)

    def forward(
        self, inputs: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Go over sequences.

        Args:
            inputs: (B, T, inputs), float.
            state: The state to start from; zero if left out.
            lengths: The true length of each sequence, (B,), int64, at least 1; all T if left out.

        Returns:
            The last layer's outputs, or those of all layers added up, (B, T, D * H), zero past a sequence's end, and
            the state at each sequence's last step, (L * D, B, H) each; a backward layer's last step is the sequence's
            first.
        """
        state = self.zero_state(len(inputs)) if state is None else state
        ends: list[State] = []
        outputs, answers = inputs, []
        for index, layer in enumerate(self.layers):
            start = tuple(part[index * self.directions : (index + 1) * self.directions] for part in state)
            with recurrent_precision(inputs.device):
                outputs, end = self._run_layer(layer, outputs, start, lengths)
            outputs = self.dropout(outputs)
            answers.append(outputs)
            ends.append(end)
        if self.skip_connections:
            outputs = functools.reduce(torch.add, answers)
        return outputs, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def last_output(self, state: State) -> Tensor:
        """What the last layer held at the end of each sequence, all directions side by side, (B, D * H)."""
        return torch.cat(state[0][-self.directions :].unbind(), dim=-1)

    def _run_layer(
        self, layer: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        packed: Any = inputs
        if lengths is not None:
            packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        weights = without_some_connections(layer, self.recurrent_dropout) if self._drops_connections() else {}
        # PyTorch's lstm takes and gives a pair, its gru and rnn a single tensor.
        outputs, end = functional_call(layer, weights, (packed, state if len(state) > 1 else state[0]))
        if lengths is not None:
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs.shape[1])
        return outputs, end if len(state) > 1 else (end,)

    def _drops_connections(self) -> bool:
        return self.training and self.recurrent_dropout > 0


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
            config.cell,
            config.embedding_dim,
            config.hidden_size,
            config.num_layers,
            config.dropout,
            config.recurrent_dropout,
            skip_connections=config.skip_connections,
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
        """Read tokens.

        Args:
            ids: (B, T), int64.
            state: The state to start from; zero if left out.
            lengths: The true length of each sequence, (B,), int64; all T if left out.

        Returns:
            Logits, (B, T, V), and the state at the end, (L, B, H) each.
        """
        outputs, state = self.read(ids, state, lengths)
        return self.decoder(outputs), state

    def read(self, ids: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Read tokens as `forward` does, but give what the decoder is about to be given, (B, T, H)."""
        return self.core(self.input_dropout(self._embed(ids)), state, lengths)  # type: ignore[no-any-return]

    def loss(self, ids: Tensor, targets: Tensor, state: State, *, samples: int = 0) -> tuple[Tensor, State]:
        """Read tokens, and compare what the model says of the next with what it is.

        Args:
            ids: (B, T), int64.
            targets: The tokens that follow, (B, T), int64.
            state: The state to start from.
            samples: Estimate the softmax with so many words, see `sampled_softmax_loss`; 0 computes it with all.

        Returns:
            The mean loss in nats a token, float32, and the state at the end.
        """
        outputs, state = self.read(ids, state)
        if not samples:
            return sequence_loss(self.decoder(outputs).float(), targets), state
        weight, bias = self.decoder.weight, self.decoder.bias
        return sampled_softmax_loss(outputs.flatten(0, 1), targets.flatten(), weight, bias, samples), state

    def _embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.embedding(ids)
        share = self.config.token_dropout
        if not self.training or share == 0:
            return embedded
        kept = embedded.new_empty((self.config.vocab_size, 1)).bernoulli_(1 - share).div_(1 - share)
        return embedded * kept[ids]

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


class _Reader(nn.Module):
    """A core with what comes in before it and a linear head behind it.

    Args:
        core: The core, as wide as the real-valued inputs and the embedding together.
        num_outputs: Width of an answer.
        embedding: Makes numbers of token ids, if there are some to read.
    """

    def __init__(self, core: RecurrentCore, num_outputs: int, embedding: nn.Embedding | None = None) -> None:
        super().__init__()
        self.embedding = embedding
        self.core = core
        self.head = nn.Linear(core.output_size, num_outputs)

    def read(
        self, values: Tensor | None, ids: Tensor | None, state: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Read real numbers, (B, T, inputs), token ids, (B, T), or both side by side: the core's answer."""
        parts = [] if values is None else [values]
        if ids is not None:
            assert self.embedding is not None, "token ids need an embedding"
            parts.append(self.embedding(ids))
        outputs, state = self.core(torch.cat(parts, dim=-1), state, lengths)
        return outputs, state


class Forecaster(_Reader):
    """Answers at every step: what comes next, say."""

    def forward(
        self,
        values: Tensor | None = None,
        ids: Tensor | None = None,
        state: State | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Read sequences.

        Args:
            values: Real-valued inputs, (B, T, inputs), float; or None.
            ids: Token ids, (B, T), int64; or None.
            state: The state to start from; zero if left out.
            lengths: The true length of each sequence, (B,), int64; all T if left out.

        Returns:
            Answers, (B, T, outputs), and the state at the end.
        """
        outputs, state = self.read(values, ids, state, lengths)
        return self.head(outputs), state


class Classifier(_Reader):
    """Answers once, from the last state: what the whole sequence is."""

    def forward(self, values: Tensor | None = None, ids: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Read sequences from the zero state; arguments as `Forecaster` has them. Returns logits, (B, outputs)."""
        _, state = self.read(values, ids, None, lengths)
        answers: Tensor = self.head(self.core.last_output(state))
        return answers
