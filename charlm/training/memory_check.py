"""Check that a training fits into the memory of its device. Otherwise, the system would kill the process.

Shapes: B batch, T time steps, V vocabulary, E embedding, H hidden, L layers.
"""

import torch

from charlm.config import CELLS, ModelConfig, TrainConfig
from charlm.engine.checkpoint import num_parameters
from charlm.errors import ConfigError
from charlm.memory import GIB, MemoryLimit, memory_limit

BYTES_PER_PARAMETER = 5 * 4
"""Memory per parameter in bytes: weight, gradient, two moments and average, each a float32."""

BYTES_PER_NUMBER = 2
"""Minimum memory per number that an update keeps for its backward pass: a bfloat16."""


def minimum_bytes(model: ModelConfig, train: TrainConfig) -> tuple[int, int]:
    """Return the memory that a training needs at least, in bytes: for the model, and for the tokens of an update.

    An update keeps the embedding, the gates and the state of every layer, and the logits of the softmax, of B x T
    tokens.
    """
    cell = CELLS[model.cell]
    per_layer = (len(cell.gates) + len(cell.state)) * model.hidden_size
    numbers = model.embedding_dim + model.num_layers * per_layer + (train.softmax_samples or model.vocab_size)
    tokens = train.batch_size * train.seq_len
    return num_parameters(model) * BYTES_PER_PARAMETER, tokens * numbers * BYTES_PER_NUMBER


def device_limit(device: torch.device) -> MemoryLimit | None:
    """Return the memory that this process may use on a device, or None if the system does not tell."""
    if device.type != "cuda":
        return memory_limit()
    return MemoryLimit(torch.cuda.get_device_properties(device).total_memory, "this GPU has")


def check_memory(model: ModelConfig, train: TrainConfig, device: torch.device) -> None:
    """Check that a training fits into the memory of its device.

    Raises:
        ConfigError: If it needs more memory than there is. The message says how much, and for what.
    """
    for_model, for_tokens = minimum_bytes(model, train)
    limit = device_limit(device)
    if limit is None or for_model + for_tokens <= limit.num_bytes:
        return
    if for_model >= for_tokens:
        cause = f"a model of {num_parameters(model):,} parameters"
        fields = ["hidden_size", "num_layers"]
    else:
        cause = f"updates of {train.batch_size:,} x {train.seq_len:,} tokens"
        fields = ["batch_size", "seq_len"]
    needed = (for_model + for_tokens) / GIB
    raise ConfigError(
        f"training with {cause} needs at least {needed:,.1f} GiB of memory, and {limit}; reduce {' or '.join(fields)}",
        fields=fields,
    )
