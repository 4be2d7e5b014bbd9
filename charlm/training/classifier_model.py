"""Network of a classifier in PyTorch; `charlm.engine.classifier_network` computes the same in NumPy.

Shapes: B batch, T time steps, H hidden, D directions, C classes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from charlm.classifier_config import ClassifierConfig
from charlm.engine.checkpoint import Tensors
from charlm.training.dropout import LockedDropout
from charlm.training.network import CoreOptions, RecurrentCore

EMBEDDING_STD = 0.1
"""Standard deviation of new embeddings."""


class ClassifierModel(nn.Module):
    """Network that gives a logit per class for a text: embedding, recurrent layers, pooled states, linear layer.

    Args:
        config: Shape of the network.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_dim)
        options = CoreOptions(bidirectional=config.bidirectional, skip_connections=config.skip_connections)
        self.core = RecurrentCore(
            config.cell, config.embedding_dim, config.hidden_size, config.num_layers, options=options
        )
        self.head = nn.Linear(config.pooled_size, config.num_classes)
        self.input_dropout = LockedDropout(config.input_dropout)
        self.head_dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of texts, (B, C).

        Args:
            ids: Token ids, (B, T), int64.
            lengths: Length of each text, (B,), int64, at least 1.
        """
        embedded = self.embedding(ids)
        if self.training and self.config.token_dropout:
            kept = torch.empty(ids.shape, device=embedded.device).bernoulli_(1 - self.config.token_dropout)
            embedded = embedded * (kept / (1 - self.config.token_dropout))[..., None]
        outputs, _ = self.core(self.input_dropout(embedded), None, lengths if self.config.bidirectional else None)
        logits: Tensor = self.head(self.head_dropout(self._pooled(outputs, lengths)))
        return logits

    def _pooled(self, outputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the pooled states, (B, 3 * D * H), for the states, (B, T, D * H)."""
        size = self.config.hidden_size
        last = outputs[torch.arange(len(lengths)), lengths - 1]
        if self.config.bidirectional:
            last = torch.cat([last[:, :size], outputs[:, 0, size:]], dim=1)
        is_token = (torch.arange(outputs.shape[1], device=outputs.device) < lengths[:, None])[..., None]
        mean = (outputs * is_token).sum(dim=1) / lengths[:, None]
        maximum = outputs.masked_fill(~is_token, -torch.inf).amax(dim=1)
        return torch.cat([last, mean, maximum], dim=1)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the weights in groups from the output to the input, in the order in which they are unfrozen."""
        layers = [list(layer.parameters()) for layer in self.core.layers]
        return [list(self.head.parameters()), *reversed(layers), list(self.embedding.parameters())]

    def to_tensors(self) -> dict[str, Any]:
        """Return the weights by name. On the CPU, the NumPy arrays share their memory with the weights."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    def load_tensors(self, tensors: Tensors) -> None:
        """Load those weights that come from `to_tensors` or from a model file."""
        own = {name: torch.from_numpy(np.array(tensors[name], dtype=np.float32)) for name in self.state_dict()}
        self.load_state_dict(own)

    def load_encoder(self, tensors: Tensors) -> None:
        """Load embedding and recurrent layers of a language model."""
        names = [name for name in self.state_dict() if not name.startswith("head.")]
        own = {name: torch.from_numpy(np.array(tensors[name], dtype=np.float32)) for name in names}
        self.load_state_dict(own, strict=False)
